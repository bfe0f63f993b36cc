"""The table of a bar that was stated beforehand."""

from __future__ import annotations

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
        heads = [demand_text(*row).replace("-", MINUS) for row in judged[["metric", "bound", "unit"]].to_numpy()]
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
    unit = " %" if row["unit"] == "percent" else ""
    verdict = row["verdict"]
    if verdict == "unknown":
        return Cell(UNKNOWN, float("nan"), verdict)
    between = range_text(row["low"], row["high"], signed=True)
    detail = f"{between}{unit}; {verdict}" if between else f"no interval; {verdict}"
    return Cell(f"{signed_text(row['change'])}{unit}", row["change"], detail, _MARKS.get(verdict, ""))
