"""Tables of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medcalib.compare import Comparison
from medcalib.comparison_page.method_rows import MEAN, difference_of, level_of, verdict
from medcalib.comparison_page.metric_words import (
    UNKNOWN,
    metric_label,
    number_text,
    p_text,
    range_text,
    signed_text,
    words,
)

__all__ = ["Cell", "Table", "class_tables", "difference_table", "level_table", "number_cell"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        value: by which it is sorted; by its text if None.
        detail: said below, smaller.
        mark: ``best``, ``near``, ``good``, ``bad`` or nothing.
        method: whose look is shown before it.
    """

    text: str
    value: float | None = None
    detail: str = ""
    mark: str = ""
    method: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose rows can be sorted by any column; the first cell of a row is its head.

    Attributes:
        caption: what it holds.
        columns: heads of the columns.
        rows: cells.
        folded: what is clicked to see it; always seen if empty.
        key: by which it is found in the page.
        open: whether it is seen at first, although it is folded.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""
    key: str = ""
    open: bool = False


def number_cell(value: Any, detail: str = "", mark: str = "", signed: bool = False) -> Cell:
    """A cell with a number, a dash where there is none."""
    number = np.nan if value is None else float(value)
    return Cell((signed_text if signed else number_text)(number), number, detail, mark)


def arrow(higher_is_better: bool) -> str:
    """Which way is better."""
    return "↑" if higher_is_better else "↓"


def level_table(comparison: Comparison, metrics: Sequence[str], true_names: Mapping[str, str]) -> Table:
    """Every method with its means and their intervals."""
    rows = [
        [
            Cell(method, method=method, detail=_about(comparison, method, true_names)),
            *(_level_cell(level_of(comparison, metric, method)) for metric in metrics),
        ]
        for method in comparison.evaluations
    ]
    heads = [f"{metric_label(metric)} {arrow(comparison.higher_is_better(metric))}" for metric in metrics]
    caption = (
        f"Means over cases with {100 * comparison.confidence:g} % intervals. ★ best of its column; ● not shown to be "
        f"worse than the best. Arrows say which way is better."
    )
    return Table(caption, ["Method", *heads], rows, key="levels")


def _about(comparison: Comparison, method: str, true_names: Mapping[str, str]) -> str:
    seeds = len(comparison.evaluations[method])
    parts = ["reference"] if method == comparison.reference else []
    parts += [true_names[method]] if true_names.get(method, method) != method else []
    parts += [f"{seeds} seeds"] if seeds > 1 else []
    return ", ".join(parts)


def _level_cell(row: dict[str, Any]) -> Cell:
    mark = "best" if _is_true(row.get("best")) else "near" if _is_true(row.get("not_worse_than_best")) else ""
    return number_cell(row["mean"], range_text(row["low"], row["high"]), mark)


def _is_true(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) and bool(value)


def difference_table(comparison: Comparison, metric: str, folded: bool, of_class: str = MEAN) -> Table:
    """What every method changes in a metric, and whether that is shown."""
    higher = comparison.higher_is_better(metric)
    rows = []
    for method in comparison.evaluations:
        row = difference_of(comparison, metric, method, of_class)
        if method == comparison.reference or "difference" not in row or np.isnan(row["difference"]):
            continue
        shown = verdict(row, higher, comparison.confidence)
        margin = comparison.margins.get(metric)
        kept = _margin_cell(row, margin) if margin is not None else None
        per_case = number_cell(
            row.get("percent_per_case_mean"), f"sd {number_text(row.get('percent_per_case_sd', np.nan))}", signed=True
        )
        rows.append(
            [
                Cell(method, method=method),
                number_cell(row["method_mean"]),
                number_cell(
                    row["difference"],
                    range_text(row["difference_low"], row["difference_high"], signed=True),
                    signed=True,
                ),
                number_cell(row.get("percent_of_means"), signed=True),
                per_case,
                Cell(p_text(row["p_t"]), row["p_t"]),
                Cell(p_text(row["p_wilcoxon"]), row["p_wilcoxon"]),
                Cell(p_text(row["p_holm"]), row["p_holm"]),
                number_cell(row.get("effect_size"), signed=True),
                Cell(shown, mark={"better": "good", "worse": "bad"}.get(shown, "")),
                *([kept] if kept else []),
                number_cell(row.get("num_cases"))
                if row.get("num_cases") is None
                else Cell(f"{int(row['num_cases'])}", float(row["num_cases"])),
                Cell(str(row["warning"]) if isinstance(row.get("warning"), str) else ""),
            ]
        )
    heads = [
        "Method",
        metric_label(metric),
        f"Difference ({100 * comparison.confidence:g} % interval)",
        "% of means",
        "% per case, mean",
        "p, t test",
        "p, Wilcoxon",
        "p, Holm",
        "Effect size",
        "Shown",
        *(["Within margin"] if metric in comparison.margins else []),
        "Cases",
        "Warning",
    ]
    reference = difference_of(comparison, metric, rows[0][0].text, of_class)["reference_mean"] if rows else np.nan
    way = "higher" if higher else "lower"
    where = "" if of_class == MEAN else f" of {of_class}"
    of_reference = f"{comparison.reference} ({number_text(reference)})"
    caption = f"{metric_label(metric)}{where}: difference to {of_reference}; {way} is better."
    return Table(caption, heads, rows, caption if folded else "", key=f"difference-{metric}")


def _margin_cell(row: dict[str, Any], margin: float) -> Cell:
    value = row.get("non_inferior")
    if value is None or value != value:
        return Cell(UNKNOWN)
    kept = str(value).lower() in ("true", "1", "1.0")
    return Cell("yes" if kept else "not shown", detail=f"margin {number_text(margin)}", mark="good" if kept else "")


def class_tables(comparison: Comparison, metrics: Iterable[str]) -> list[Table]:
    """Means of every class, a table a metric; none where nothing but the mean over classes is known."""
    tables: list[Table] = []
    for metric in metrics:
        found = comparison.levels[comparison.levels["metric"] == metric]
        classes = [str(name) for name in dict.fromkeys(found["class"]) if name != MEAN]
        if not classes:
            continue
        rows = [
            [
                Cell(method, method=method),
                *(_level_cell(level_of(comparison, metric, method, name)) for name in [*classes, MEAN]),
            ]
            for method in comparison.evaluations
        ]
        label = f"{metric_label(metric)} {arrow(comparison.higher_is_better(metric))} by class"
        tables.append(
            Table(label, ["Method", *(words(name) for name in classes), "mean"], rows, label, open=not tables)
        )
    return tables
