"""How results decay as images of test cases are made worse: a figure and a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medcalib.compare import Comparison
from medcalib.comparison_page.chart import Chart, FigureBlock, Series
from medcalib.comparison_page.decay_rows import AREA, AS_IT_IS, CORRELATION, RISK, Shifted, promised_risks, shift_rows
from medcalib.comparison_page.method_rows import is_classification
from medcalib.comparison_page.metric_words import MINUS, metric_label, number_text, words
from medcalib.comparison_page.page_tables import Cell, Table

__all__ = ["decay", "decay_table"]

EVERY = "all corruptions"
# between the bars of two methods at one level, of which bars must not hide one another
STEP, WIDEST = 0.09, 0.6


def decay(comparison: Comparison, shifted: Shifted) -> FigureBlock | None:
    """Metrics over the levels of corruptions, a line a method, as in figure 1 of https://arxiv.org/abs/1906.02530."""
    rows = shift_rows(comparison, shifted)
    kinds = _kinds(shifted)
    metrics = _metrics(comparison, rows)
    if not kinds or not metrics:
        return None
    whole = _whole_kinds(shifted)
    variants = [*([EVERY] if len(whole) > 1 else []), *kinds]
    methods = list(comparison.evaluations)
    levels = sorted({0, *(level for _, level in shifted)})
    promised = promised_risks(comparison)
    charts = []
    for metric in metrics:
        parts: list[Series] = []
        if metric in promised:
            parts.append(Series([levels[0], levels[-1]], [promised[metric]] * 2, label="promised"))
        for variant in variants:
            for place, method in enumerate(methods):
                of_method = rows[(rows["metric"] == metric) & (rows["method"] == method)]
                if variant == EVERY:
                    shift = min(STEP, WIDEST / len(methods)) * (place - (len(methods) - 1) / 2)
                    parts += _mean_parts(of_method, method, whole, shift)
                else:
                    parts += _kind_parts(of_method, method, variant)
        title, way = _title(metric), "higher" if _higher(comparison, metric) else "lower"
        charts.append(
            Chart(
                title=title,
                x_label="level (0: images as they are)",
                y_label=f"{_unit(metric)} ({way} is better)",
                alt=f"{title} over levels of {', '.join(kinds)} for {', '.join(methods)}.",
                parts=parts,
                x_ticks=[(float(level), str(level)) for level in levels],
                height=340,
            )
        )
    told = (
        f"{EVERY[0].upper()}{EVERY[1:]}: mean over {', '.join(map(words, whole))}, with bars from the least to the "
        f"largest of them. "
        if EVERY in variants
        else ""
    )
    caption = (
        f"Test cases whose images were made worse in levels, one line a method; level 0 is the images as they are. "
        f"{told}One corruption: {100 * comparison.confidence:g} % intervals over cases and seeds as bands. "
        f"Calibrators, thresholds and guarantees were fitted on images as they are."
    )
    return FigureBlock("shift", caption, charts, methods, variants if len(variants) > 1 else [], "corruption")


def decay_table(comparison: Comparison, shifted: Shifted) -> Table | None:
    """Every metric of the figure on images as they are and, mean over corruptions, at the highest level."""
    rows = shift_rows(comparison, shifted)
    metrics, whole = _metrics(comparison, rows), _whole_kinds(shifted)
    if not whole or not metrics:
        return None
    highest = max(level for _, level in shifted)
    worst = rows[(rows["level"] == highest) & rows["corruption"].isin(whole)]
    table = []
    for method in comparison.evaluations:
        cells = [Cell(method, method=method)]
        for metric in metrics:
            before = _mean(rows[(rows["level"] == 0)], metric, method)
            after = _mean(worst, metric, method)
            cells.append(Cell(number_text(after), after, f"from {number_text(before)}"))
        table.append(cells)
    caption = (
        f"At level {highest}, mean over {', '.join(map(words, whole))}; below each number that on images as they are."
    )
    return Table(caption, ["Method", *map(_title, metrics)], table, key="shift")


def _mean(rows: pd.DataFrame, metric: str, method: str) -> float:
    found = rows[(rows["metric"] == metric) & (rows["method"] == method)]["mean"]
    return float(found.mean()) if len(found) else np.nan


def _kinds(shifted: Shifted) -> list[str]:
    return list(dict.fromkeys(kind for kind, _ in shifted))


def _whole_kinds(shifted: Shifted) -> list[str]:
    """Kinds that are known at all levels, with all methods that any has, so that a mean over them is one of equals."""
    levels = {level for _, level in shifted}
    methods = {name for one in shifted.values() for name in one.evaluations}
    return [
        kind
        for kind in _kinds(shifted)
        if all((kind, level) in shifted and methods <= shifted[kind, level].evaluations.keys() for level in levels)
    ]


def _metrics(comparison: Comparison, rows: pd.DataFrame) -> list[str]:
    """The primary metric, likelihood, quality, and how uncertainty and guarantees fare."""
    known = dict.fromkeys(rows["metric"])
    images = is_classification(comparison)
    more = ("nll_categorical", "accuracy", AREA) if images else ("nll", "mean_dice", CORRELATION)
    wanted = dict.fromkeys((comparison.primary, *more, *(metric for metric in known if metric.startswith(RISK))))
    return [metric for metric in wanted if metric in known]


def _kind_parts(rows: pd.DataFrame, method: str, kind: str) -> list[Series]:
    found = rows[rows["corruption"].isin((AS_IT_IS, kind))].sort_values("level")
    if len(found) < 2:
        return []
    low, high = (found[end].where(found[end].notna(), found["mean"]).tolist() for end in ("low", "high"))
    return [
        Series(
            found["level"].astype(float).tolist(), found["mean"].tolist(), method, y_ends=(low, high), markers=True,
            hover=_told(method, found["level"], found["mean"]), variant=kind,
        )
    ]  # fmt: skip


def _mean_parts(rows: pd.DataFrame, method: str, kinds: Sequence[str], shift: float) -> list[Series]:
    found = rows[rows["corruption"].isin((AS_IT_IS, *kinds))].groupby("level")["mean"].agg(["mean", "min", "max"])
    if len(found) < 2:
        return []
    x = [float(level) + shift for level in found.index]
    hover = _told(method, found.index, found["mean"])
    ends = (found["min"].tolist(), found["max"].tolist())
    y = found["mean"].tolist()
    return [
        Series(x, y, method, variant=EVERY),
        Series(x, y, method, y_ends=ends, lines=False, markers=True, hover=hover, variant=EVERY),
    ]


def _told(method: str, levels: Sequence[int], means: Sequence[float]) -> list[str]:
    return [f"{method}\nlevel {level}: {number_text(mean)}" for level, mean in zip(levels, means, strict=True)]


def _title(metric: str) -> str:
    if metric == CORRELATION:
        return f"correlation of uncertainty with 1 {MINUS} Dice"
    if metric == AREA:
        return "area under risk and coverage"
    if metric.startswith(RISK):
        return f"risk, {words(metric.removeprefix(RISK))}"
    return metric_label(metric)


def _unit(metric: str) -> str:
    """What a vertical axis is called beside the title of its panel."""
    if metric.startswith(RISK):
        return "mean loss"
    return {CORRELATION: "Spearman's correlation", AREA: "AURC"}.get(metric, metric_label(metric))


def _higher(comparison: Comparison, metric: str) -> bool:
    return metric == CORRELATION or (not metric.startswith((RISK, AREA)) and comparison.higher_is_better(metric))
