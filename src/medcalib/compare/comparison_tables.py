"""Tables of a comparison for people and for programs: printed, as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from medcalib.compare.bar import bar_sentence
from medcalib.compare.comparison import Comparison
from medcalib.compare.metric_names import metric_title
from medcalib.errors import listed
from medcalib.files.result_tables import write_table
from medcalib.files.writing import complete_file, write_text

__all__ = ["comparison_text", "difference_table", "level_table", "write_tables"]

_LISTED = 20
_MISSING = "-"


def difference_table(comparison: Comparison) -> pd.DataFrame:
    """Every method against the reference, by the mean over classes, as texts.

    Returns:
        One row a metric and method: mean of the reference and of the method, difference with its interval, change of
        the means and mean change of the cases with its standard deviation in percent, p-values, effect size, and
        whether the method is not inferior.
    """
    rows = comparison.table[comparison.table["class"] == "mean"]
    percent = f"{100 * comparison.confidence:g} %"
    return pd.DataFrame(
        {
            "metric": [metric_title(metric) for metric in rows["metric"]],
            "method": rows["method"],
            f"reference {comparison.reference}": rows["reference_mean"].map(_value),
            "value": rows["method_mean"].map(_value),
            f"difference [{percent}]": [
                _with_interval(*values)
                for values in zip(rows["difference"], rows["difference_low"], rows["difference_high"], strict=True)
            ],
            "of means, %": rows["percent_of_means"].map(_percent),
            "per case, %": [
                _MISSING if np.isnan(mean) else f"{_percent(mean)} ± {sd:.2f}"
                for mean, sd in zip(rows["percent_per_case_mean"], rows["percent_per_case_sd"], strict=True)
            ],
            "p (t)": rows["p_t"].map(_number),
            "p (Wilcoxon)": rows["p_wilcoxon"].map(_number),
            "p (Holm)": rows["p_holm"].map(_number),
            "d": [_MISSING if np.isnan(value) else f"{value:.2f}" for value in rows["effect_size"]],
            "not inferior": rows["non_inferior"].map({True: "yes", False: "no"}).fillna(_MISSING),
        }
    ).reset_index(drop=True)


def level_table(comparison: Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method by itself, by the mean over classes.

    Returns:
        One row a method and one column a metric: values with their intervals as texts; and how each is to be set off,
        ``best``, ``near`` for one that is not worse than the best, or nothing.
    """
    rows = comparison.levels[comparison.levels["class"] == "mean"]
    texts = [_with_interval(*values) for values in zip(rows["mean"], rows["low"], rows["high"], strict=True)]
    marks = np.where(rows["best"], "best", np.where(rows["not_worse_than_best"], "near", ""))
    tables = []
    for content in (texts, marks):
        wide = rows.assign(content=content).pivot(index="method", columns="metric", values="content")
        wide = wide.loc[list(comparison.evaluations), list(dict.fromkeys(rows["metric"]))]
        tables.append(wide.rename(columns=_heads(wide.columns)).rename_axis(index=None, columns=None))
    return tables[0], tables[1]


def comparison_text(comparison: Comparison) -> str:
    """What a command prints: the table of differences, cases that were left out, and notes."""
    table = difference_table(comparison)
    num_cases = comparison.table["num_cases"].max()
    cases = "1 case" if num_cases == 1 else f"{num_cases} cases"
    head = f"{len(comparison.evaluations)} methods on {cases}, each against {comparison.reference}"
    lines = [
        f"\n{head}; means over classes.\n",
        table.to_string(index=False),
        "",
    ]
    for name, cases in comparison.left_out.items():
        lines.append(f"Cases of {name} that not all have, left out: {listed(cases, _LISTED)}.")
    told = comparison.table[(comparison.table["class"] == "mean") & (comparison.table["warning"] != "")]
    for warning, rows in told.groupby("warning", sort=False):
        where = dict.fromkeys(
            f"{metric_title(metric)} of {method}" for metric, method in zip(rows["metric"], rows["method"], strict=True)
        )
        lines.append(f"{', '.join(where)}: {warning}.")
    return "\n".join([*lines, *comparison.notes, *filter(None, [bar_sentence(comparison.bar)])])


def write_tables(comparison: Comparison, output: str | Path) -> None:
    """Write the tables of a comparison.

    ``comparison.csv``, ``levels.csv`` and ``ranks.csv`` hold every number; ``comparison.md`` and ``.tex`` (booktabs)
    each method against the reference, and ``levels.md`` and ``.tex`` each by itself, by the mean over classes. Where a
    bar was stated, ``bar.csv`` says who passes it.

    Args:
        comparison: what is written.
        output: the folder; it is made.

    Raises:
        UserError: a file cannot be written.
    """
    folder = Path(output)
    decided = comparison.table["non_inferior"].map({True: "True", False: "False"}).fillna("")
    numbers = {
        "comparison": comparison.table.assign(non_inferior=decided),
        "levels": comparison.levels,
        "ranks": comparison.ranks,
    }
    if comparison.demands:
        numbers["bar"] = comparison.bar
    for name, table in numbers.items():
        with complete_file(folder / f"{name}.csv") as draft:
            write_table(table, draft)
    differences = difference_table(comparison)
    nothing = pd.DataFrame("", index=differences.index, columns=differences.columns)
    levels, marks = level_table(comparison)
    levels, marks = (
        table.rename_axis("method").reset_index().assign(**extra)
        for table, extra in ((levels, {}), (marks, {"method": ""}))
    )
    for name, table, set_off in (("comparison", differences, nothing), ("levels", levels, marks)):
        write_text(folder / f"{name}.md", _markdown(table, set_off))
        write_text(folder / f"{name}.tex", _latex(table, set_off))


def _markdown(table: pd.DataFrame, marks: pd.DataFrame) -> str:
    around = {"best": "**", "near": "*", "": ""}
    lines = [[str(name) for name in table.columns], ["---", *["---:"] * (len(table.columns) - 1)]]
    for (_, row), (_, mark) in zip(table.iterrows(), marks.iterrows(), strict=True):
        lines.append([f"{around[how]}{_plain(text)}{around[how]}" for text, how in zip(row, mark, strict=True)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _latex(table: pd.DataFrame, marks: pd.DataFrame) -> str:
    around = {"best": "textbf:--rwrap;", "near": "textit:--rwrap;", "": ""}
    style = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    style = style.apply(lambda _: marks.map(around.__getitem__).to_numpy(), axis=None)
    return style.to_latex(hrules=True, column_format="l" + "r" * (len(table.columns) - 1))


def _heads(metrics: Iterable[str]) -> dict[str, str]:
    """A head for each metric; its name where another has the same title, or where it is that of another column."""
    titles = {metric: metric_title(metric) for metric in metrics}
    number = Counter([*titles.values(), "method"])
    return {metric: title if number[title] == 1 else f"{title} ({metric})" for metric, title in titles.items()}


def _plain(text: object) -> str:
    return str(text).replace("|", "\\|")


def _number(value: float) -> str:
    return _MISSING if np.isnan(value) else f"{value:.4g}"


def _value(value: float) -> str:
    return _MISSING if np.isnan(value) else f"{value:#.4g}"


def _percent(value: float) -> str:
    return _MISSING if np.isnan(value) else f"{value:+.2f}"


def _with_interval(value: float, low: float, high: float) -> str:
    if np.isnan(low):
        return _value(value)
    return f"{_value(value)} [{_value(low)}, {_value(high)}]"
