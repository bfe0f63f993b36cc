"""Figure of guarantees: what was promised, what happened on the test cases, and how large the sets are for it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from medcalib.metrics.risk_interval import MeanRisk
from medcalib.visualize.style import plain_text

__all__ = ["GuaranteeRow", "draw_guarantees"]

# Inches: the text width of a two-column page, and what a row needs.
WIDTH = 7.0
ROW_HEIGHT = 0.21
FONT_SIZE = 7.0
TITLE_SIZE = 8.0
# Okabe and Ito.
KEPT_COLOR, BROKEN_COLOR, GREY = "#0072b2", "#d55e00", "#8c8c8c"
PROMISE: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (4, 2))}
KEPT, UNDECIDED, BROKEN, NONE = "mean not above", "mean above, interval not", "interval above", "no cases"
LOOKS: dict[str, dict[str, Any]] = {
    KEPT: {"marker": "o", "color": KEPT_COLOR, "markerfacecolor": KEPT_COLOR},
    UNDECIDED: {"marker": "o", "color": KEPT_COLOR, "markerfacecolor": "white"},
    BROKEN: {"marker": "D", "color": BROKEN_COLOR, "markerfacecolor": BROKEN_COLOR},
}
# A size that varies by more than this factor needs a logarithmic axis.
WIDE_RANGE = 30.0
# Letters of a name that stand in one line.
LONGEST_LINE = 24


class GuaranteeRow(NamedTuple):
    """A row of `draw_guarantees`.

    Attributes:
        name: of the class, or of whatever the promise is about.
        promised: the mean loss that is promised not to be exceeded, in [0, 1].
        risk: what happened on the test cases.
        group: the group of cases; None for all cases.
        sizes: sizes of the sets by what they are, one number a case, (case,); NaN is left out.

    Example:
        >>> from medcalib.metrics import mean_risk
        >>> GuaranteeRow("liver", 0.1, mean_risk([0.05, 0.1])).group is None
        True
    """

    name: str
    promised: float
    risk: MeanRisk
    group: str | None = None
    sizes: Mapping[str, ArrayLike] = {}


@plain_text
def draw_guarantees(
    rows: Sequence[GuaranteeRow],
    risk_label: str = "mean loss",
    references: Mapping[str, float] | None = None,
    confidence: float = 0.95,
    title: str | None = None,
    width: float = WIDTH,
) -> Figure:
    """Promised and realised risk of each class and group with its interval, and the sizes of the sets of each case.

    The dashed line is what was promised. A point is the mean over test cases: filled where it is not above, empty where
    it is above but the interval reaches down to what was promised, a diamond of another colour where the whole interval
    is above. Of sizes each case is a point, and the line is their median.

    Args:
        rows: in the order in which they are drawn, from above; those with a group belong to the class before them.
        risk_label: what the losses are.
        references: by the name of a size, the value at which a thin line is drawn, such as 1 for a ratio.
        confidence: of the intervals, for the legend.
        title: title of the figure.
        width: width of the figure in inches, with panels of sizes; less without.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: there is no row.

    Example:
        >>> from medcalib.metrics import mean_risk
        >>> row = GuaranteeRow("liver", 0.1, mean_risk([0.05, 0.1]), sizes={"stretch": [1.2, 1.3]})
        >>> figure = draw_guarantees([row])
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['mean loss (%)', 'stretch']
    """
    if not rows:
        raise ValueError("a figure needs at least one row.")
    measures = list(dict.fromkeys(name for row in rows for name in row.sizes))
    width = width if measures else min(width, 4.6)
    height = ROW_HEIGHT * (len(rows) + 0.6) + 0.86 + (0.22 if title else 0.0)
    layout = ConstrainedLayoutEngine(wspace=0.12)
    figure = Figure(figsize=(width, height), layout=layout)
    ratios = [1.25, *[1.0] * len(measures)]
    risk_axes, *size_axes = figure.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)[0]
    places = np.arange(len(rows), dtype=float)
    for axes in (risk_axes, *size_axes):
        _dress(axes, rows)
    names = [row.name if row.group is None else str(row.group) for row in rows]
    risk_axes.set_yticks(places, [textwrap.fill(name, LONGEST_LINE) for name in names])
    for label, row in zip(risk_axes.get_yticklabels(), rows, strict=True):
        label.set(fontweight="bold" if row.group is None else "normal", fontsize=FONT_SIZE)
    risk_axes.set_ylim(len(rows) - 0.45, -0.55)

    shown = [_draw_risk(risk_axes, place, row) for place, row in zip(places, rows, strict=True)]
    largest = max([0.0, *(high for row in rows for high in (row.risk.high, row.promised) if np.isfinite(high))])
    risk_axes.set_xlim(0, min(103.0, 104 * largest + 1))
    risk_axes.set_xlabel(f"{risk_label} (%)", fontsize=FONT_SIZE)
    for axes, measure in zip(size_axes, measures, strict=True):
        _draw_sizes(axes, measure, rows, (references or {}).get(measure))
    _add_legend(figure, shown, confidence, bool(measures))
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold")
    return figure


def _draw_risk(axes: Axes, place: float, row: GuaranteeRow) -> str:
    """Draw a row, and say how it turned out."""
    promised = 100 * row.promised
    axes.plot([promised, promised], [place - 0.5, place + 0.5], **PROMISE)
    risk = row.risk
    mean, low, high = (100 * value for value in risk[:3])
    if not risk.num_cases:
        outcome, text = NONE, NONE
    else:
        outcome = KEPT if mean <= promised + 1e-9 else UNDECIDED if low <= promised else BROKEN
        look = LOOKS[outcome]
        axes.plot([low, high], [place, place], color=look["color"], linewidth=1.2, solid_capstyle="butt")
        axes.plot([mean], [place], markersize=4.0, markeredgewidth=1.0, linestyle="none", zorder=4, **look)
        text = f"{mean:.1f} [{low:.1f}, {high:.1f}], n = {risk.num_cases}"
    axes.annotate(
        text,
        (1, place),
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=FONT_SIZE,
        va="center",
    )
    return outcome


def _draw_sizes(axes: Axes, measure: str, rows: Sequence[GuaranteeRow], reference: float | None) -> None:
    drawn: list[NDArray[np.float64]] = []
    for place, row in enumerate(rows):
        values = np.asarray(row.sizes.get(measure, []), dtype=np.float64)
        values = np.sort(values[np.isfinite(values)])
        if not values.size:
            continue
        drawn.append(values)
        # neighbours in size lie at different heights, so that they do not hide each other
        heights = place + 0.24 * (((np.arange(values.size) * 0.618034) % 1) * 2 - 1)
        axes.plot(
            values,
            heights,
            linestyle="none",
            marker="o",
            markersize=2.6,
            markerfacecolor=(KEPT_COLOR, 0.35),
            markeredgecolor=KEPT_COLOR,
            markeredgewidth=0.3,
        )
        axes.plot([np.median(values)] * 2, [place - 0.36, place + 0.36], color="black", linewidth=1.3, zorder=4)
    if reference is not None:
        axes.axvline(reference, color=GREY, linewidth=0.6, zorder=0)
    axes.set_xlabel(textwrap.fill(measure, LONGEST_LINE), fontsize=FONT_SIZE)
    axes.margins(x=0.06)
    every = np.concatenate([*drawn, np.zeros(0)])
    if every.size and every.min() > 0 and every.max() > WIDE_RANGE * every.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.locator_params(axis="x", nbins=4)


def _dress(axes: Axes, rows: Sequence[GuaranteeRow]) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.patch.set_visible(False)
    axes.spines["bottom"].set_linewidth(0.6)
    axes.tick_params(labelsize=FONT_SIZE, length=2.5, width=0.6, pad=1.5)
    axes.tick_params(axis="y", length=0, pad=3)
    for place, row in enumerate(rows):
        if place and row.group is None:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.4, zorder=0)


def _add_legend(figure: Figure, shown: Sequence[str], confidence: float, wide: bool) -> None:
    entries = [Line2D([], [], label="promised: at most", **PROMISE)]
    entries += [
        Line2D([], [], label=outcome, markersize=4.0, linewidth=1.2, **look)
        for outcome, look in LOOKS.items()
        if outcome in shown
    ]
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=len(entries) if wide else 2,
        title=f"mean over test cases, with its {100 * confidence:g} % interval",
        title_fontsize=FONT_SIZE,
        fontsize=FONT_SIZE,
        frameon=False,
        borderpad=0.1,
        labelspacing=0.25,
    )
