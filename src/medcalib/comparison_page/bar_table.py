"""The table of a bar that was stated beforehand."""

from __future__ import annotations

import math
from typing import Any

from medcalib.compare import Comparison
from medcalib.compare.bar import demand_text
from medcalib.comparison_page.metric_words import MINUS, UNKNOWN, range_text, signed_text
from medcalib.comparison_page.page_tables import Cell, Table

__all__ = ["bar_table"]

_MARKS = {"shown": "good", "missed": "bad"}


def bar_table(comparison: Comparison) -> Table | None:
    """Every method against the bar, demand by demand; None if there was no bar."""
    bar = comparison.bar
    if bar.empty:
        return None
    heads: list[str] = []
    rows = []
    for method, judged in bar.groupby("method", sort=False):
        heads = [demand_text(*row) for row in judged[["metric", "bound", "unit"]].to_numpy()]
        passes = bool(judged["passes"].all())
        cells = [_cell(row) for row in judged.to_dict("records")]
        rows.append([Cell(str(method), method=str(method)), *cells, Cell("yes" if passes else "no", float(passes))])
    caption = (
        f"The bar that was stated beforehand, against {comparison.reference}. Shown: the whole "
        f"{100 * comparison.confidence:g} % interval is beyond the bound; reached: the mean is; missed: the whole "
        f"interval is short of it. To pass, changes must be reached, and what must not be inferior must be shown. "
        f"Nothing is corrected for the number of methods."
    )
    return Table(caption, ["Method", *heads, "Passes"], rows, key="bar")


def _cell(row: dict[str, Any]) -> Cell:
    percent = row["unit"] == "percent"
    verdict = row["verdict"]
    if verdict == "unknown":
        return Cell(UNKNOWN, float("nan"), verdict)
    if math.isnan(row["low"]) or math.isnan(row["high"]):
        between = "no interval"
    elif percent:
        between = f"{_percent(row['low'])} to {_percent(row['high'])}"
    else:
        between = range_text(row["low"], row["high"], signed=True)
    text = _percent(row["change"]) if percent else signed_text(row["change"])
    return Cell(text, row["change"], f"{between}; {verdict}", _MARKS.get(verdict, ""))


def _percent(value: float) -> str:
    return f"{value:+.2f} %".replace("-", MINUS)
