"""The table of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcalib.compare import Comparison
from medcalib.comparison_page.metric_words import UNKNOWN, metric_label
from medcalib.comparison_page.page_tables import Cell, Table

__all__ = ["rank_table"]

COLUMNS = ["rank", "rank_low", "rank_high", "share_first"]


def rank_table(comparison: Comparison, metrics: Sequence[str]) -> Table | None:
    """The rank of every method by the mean over classes, its interval, and how often it is the first.

    Args:
        comparison: what was compared.
        metrics: those that are shown.

    Returns:
        One column a metric; None where no rank is known.
    """
    if comparison.ranks.empty:
        return None
    known = comparison.ranks.set_index(["metric", "method"])
    shown = [metric for metric in metrics if known["rank"].get((metric, comparison.reference)) is not None]
    rows = [
        [Cell(method, method=method), *(_rank_cell(*known.loc[(metric, method), COLUMNS]) for metric in shown)]
        for method in comparison.evaluations
    ]
    caption = (
        f"Ranks by the mean over classes, 1 the best, with {100 * comparison.confidence:g} % intervals, and the share "
        f"of the bootstrap's draws in which a method is the first; equal ones share a rank, and a first place."
    )
    return Table(caption, ["Method", *map(metric_label, shown)], rows, folded="Ranks", key="ranks") if shown else None


def _rank_cell(rank: float, low: float, high: float, share: float) -> Cell:
    if np.isnan(rank):
        return Cell(UNKNOWN)
    detail = "" if np.isnan(low) else f"{low:.0f} to {high:.0f}, first in {_percent(share)}"
    return Cell(f"{rank:.0f}", rank, detail)


def _percent(share: float) -> str:
    """A share in percent, 0 and 100 only where it is that."""
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"
