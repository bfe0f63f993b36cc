"""Figures of quality control: does the uncertainty of a case tell how good its segmentation is?"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from medcalib.metrics.quality_control import FlaggingCurve, score_correlation
from medcalib.metrics.risk import RiskCoverage
from medcalib.visualize.style import plain_text

__all__ = ["draw_flagging_curves", "draw_risk_coverage_curves", "draw_score_scatter"]

# Inches: one column of a two-column page.
COLUMN_WIDTH = 3.35
FONT_SIZE = 7.0
TITLE_SIZE = 8.0
POINT_COLOR = "#0072b2"
GREY = "#c8c8c8"
# Okabe and Ito, darkest first; dashes tell the lines apart where colours do not.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ((), (4, 1.2), (1.2, 1.2), (5, 1.2, 1.2, 1.2), (7, 1.5))
DASHED = (0, (4, 2))
MINUS, RHO = "\N{MINUS SIGN}", "\N{GREEK SMALL LETTER RHO}"
REFERENCE: dict[str, Any] = {"color": "black", "linewidth": 0.8}


@plain_text
def draw_score_scatter(
    scores: Mapping[str, ArrayLike],
    quality: ArrayLike,
    quality_label: str = "Dice",
    threshold: float | None = None,
    title: str | None = None,
    columns: int = 2,
    width: float = COLUMN_WIDTH,
) -> Figure:
    """Each score against the quality of the segmentations, one point a case, one panel a score.

    Above each panel stand Spearman's rank correlation, the number of cases that have both values, and how many have a
    quality but no score and so no place in it.

    Args:
        scores: name of a score: one number a case, (case,); NaN where unknown.
        quality: such as Dice or a distance in mm, (case,).
        quality_label: what the quality is.
        threshold: quality below which a case is poor, drawn as a line; none if None.
        title: title of the figure.
        columns: panels in a row.
        width: width of the figure in inches.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If there is no score, ``columns`` is below 1, shapes differ or a value is infinite.

    Example:
        >>> figure = draw_score_scatter({"entropy": [0.1, 0.2, 0.4]}, [0.9, 0.8, 0.3])
        >>> figure.axes[0].get_title(loc="left")
        'ρ = −1.00, n = 3'
    """
    _check_names(scores)
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    columns = min(columns, len(scores))
    rows = -(-len(scores) // columns)
    panel = min(width / columns, 2.4)
    figure = Figure(figsize=(width, rows * (0.72 * panel + 0.35) + (0.2 if title else 0.0)), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    # A long name is wrapped where its panel ends.
    letters = max(8, int(0.75 * width / columns * 72 / (0.55 * FONT_SIZE)))
    for number, (axes, (name, values)) in enumerate(zip(grid.flat, scores.items(), strict=False)):
        correlation = score_correlation(values, quality)
        _dress(axes)
        axes.plot(
            np.asarray(values, dtype=float),
            np.asarray(quality, dtype=float),
            linestyle="none",
            marker="o",
            markersize=3.2,
            markerfacecolor=(POINT_COLOR, 0.45),
            markeredgecolor=POINT_COLOR,
            markeredgewidth=0.4,
        )
        if threshold is not None:
            axes.axhline(threshold, linestyle=DASHED, **REFERENCE)
        value = "undefined" if np.isnan(correlation.correlation) else _signed(correlation.correlation)
        lacking = int((np.isnan(np.asarray(values, dtype=float)) & ~np.isnan(np.asarray(quality, dtype=float))).sum())
        note = f"{RHO} = {value}, n = {correlation.num_cases}" + _lacking(lacking, "\n")
        axes.set_title(note, fontsize=FONT_SIZE, loc="left", pad=3)
        axes.set_xlabel(textwrap.fill(_words(name), letters), fontsize=FONT_SIZE)
        axes.locator_params(axis="x", nbins=3)
        if number % columns == 0:
            axes.set_ylabel(quality_label, fontsize=FONT_SIZE)
    for axes in grid.flat[len(scores) :]:
        axes.remove()
    _set_title(figure, title)
    return figure


@plain_text
def draw_flagging_curves(
    curves: Mapping[str, FlaggingCurve], title: str | None = None, width: float = COLUMN_WIDTH
) -> Figure:
    """How many poor cases nobody sees when the most uncertain cases are looked at, for several scores or methods.

    The dashed line is expected of flags set at random, the dotted line 5 % of all cases. Flags by the quality itself
    would leave the grey triangle. Both begin at the mean of the curves' beginnings, as methods may differ in how many
    of their segmentations are poor. The legend gives the area under each curve, and how many cases had no score and
    are flagged first.

    Args:
        curves: name of a score or method: its curve.
        title: title of the figure.
        width: width of the figure in inches.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If there is no curve.

    Example:
        >>> from medcalib.metrics import flagging_curve
        >>> curve = flagging_curve([0.9, 0.1, 0.5, 0.3], [0.2, 0.9, 0.8, 0.4], threshold=0.5)
        >>> [text.get_text() for text in draw_flagging_curves({"entropy": curve}).legends[0].get_texts()][-1]
        '0.188  entropy'
    """
    _check_names(curves)
    figure, axes = _single_panel(width)
    poor = _mean([curve.poor for curve in curves.values()])
    ideal_area, random_area = (
        _mean([getattr(c, kind) for c in curves.values()]) for kind in ("ideal_area", "random_area")
    )
    number = _format([random_area, *(curve.area for curve in curves.values())])
    axes.fill([0, poor, 0], [0, 0, poor], color=GREY, linewidth=0, zorder=1, label=f"{number(ideal_area)}  ideal")
    axes.plot([0, 1], [poor, 0], linestyle=DASHED, label=f"{number(random_area)}  random", **REFERENCE)
    axes.axhline(0.05, linestyle=(0, (1, 1.5)), **REFERENCE)
    axes.annotate("5 %", (1, 0.05), xytext=(0, 1.5), textcoords="offset points", ha="right", fontsize=FONT_SIZE)
    for style, (name, curve) in zip(_line_styles(), curves.items(), strict=False):
        label = f"{number(curve.area)}  {_words(name)}{_lacking(curve.unknown)}"
        axes.plot(curve.fraction, curve.remaining, label=label, **style)
    top = np.nanmax([0.06, *(np.nanmax([0.0, *curve.remaining]) for curve in curves.values())])
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * top))
    axes.set_xlabel("fraction of cases flagged", fontsize=FONT_SIZE)
    axes.set_ylabel("poor cases not flagged / all cases", fontsize=FONT_SIZE)
    _legend(figure, axes, "area under the curve")
    _set_title(figure, title)
    return figure


@plain_text
def draw_risk_coverage_curves(
    curves: Mapping[str, RiskCoverage],
    risk_label: str = f"mean of 1 {MINUS} Dice",
    title: str | None = None,
    width: float = COLUMN_WIDTH,
) -> Figure:
    """Mean risk of the most certain part, for several scores or methods, each with its area and its excess.

    A dashed line shows the oracle, which would order by the risk itself: one line if all curves share it, otherwise one
    in the colour of each curve, as methods differ in their risks. The legend says how many cases had no score and come
    last.

    Args:
        curves: name of a score or method: its curve, over cases or over voxels.
        risk_label: what the vertical axis shows.
        title: title of the figure.
        width: width of the figure in inches.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If there is no curve.

    Example:
        >>> from medcalib.metrics import risk_coverage
        >>> curve = risk_coverage([0.1, 0.3, 0.5], [0.0, 0.6, 0.3])
        >>> [text.get_text() for text in draw_risk_coverage_curves({"entropy": curve}).legends[0].get_texts()]
        ['0.150 (0.000)  oracle', '0.200 (0.050)  entropy']
    """
    _check_names(curves)
    figure, axes = _single_panel(width)
    oracles = {curve.oracle_aurc for curve in curves.values()}
    shared = len(oracles) == 1
    number = _format([curve.aurc for curve in curves.values()])
    for place, (style, (name, curve)) in enumerate(zip(_line_styles(), curves.items(), strict=False)):
        if place == 0 or not shared:
            color = "black" if shared else style["color"]
            label = f"{number(curve.oracle_aurc)} ({number(0.0)})  oracle" if shared else None
            axes.plot(curve.coverage, curve.oracle, color=color, linewidth=0.8, linestyle=DASHED, label=label)
        label = f"{number(curve.aurc)} ({number(curve.excess_aurc)})  {_words(name)}{_lacking(curve.unknown)}"
        axes.plot(curve.coverage, curve.risk, label=label, **style)
    if not shared:
        axes.plot([], [], label="oracle of each", linestyle=DASHED, **REFERENCE)
    axes.set_xlim(0, 1)
    axes.locator_params(axis="y", nbins=6)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel("coverage: part kept, most certain first", fontsize=FONT_SIZE)
    axes.set_ylabel(risk_label, fontsize=FONT_SIZE)
    _legend(figure, axes, "AURC (excess over the oracle)")
    _set_title(figure, title)
    return figure


def _words(name: str) -> str:
    """A name in which lines can be broken."""
    return name.replace("_", " ")


def _lacking(number: int, separator: str = ", ") -> str:
    """What is said of cases without a score."""
    return f"{separator}{number} without score" if number else ""


def _check_names(named: Mapping[str, object]) -> None:
    if not named:
        raise ValueError("a figure needs at least one score.")


def _single_panel(width: float) -> tuple[Figure, Axes]:
    # Room for the legend is added once its lines are known.
    figure = Figure(figsize=(width, 0.68 * width), layout="constrained")
    axes = figure.subplots()
    _dress(axes)
    return figure, axes


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)
    axes.tick_params(labelsize=FONT_SIZE, length=2.5, width=0.6, pad=1.5)


def _line_styles() -> Iterator[dict[str, Any]]:
    for color, dashes in zip(cycle(COLORS), cycle(DASHES), strict=False):
        yield {"color": color, "linewidth": 1.3, "linestyle": (0, dashes) if dashes else "-"}


def _legend(figure: Figure, axes: Axes, title: str) -> None:
    """A legend below the axes, one line an entry, so that the numbers in front of the names form a column."""
    handles, labels = axes.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    letters = max(8, int((width - 0.6) * 72 / (0.55 * FONT_SIZE)))
    labels = [textwrap.fill(label, letters, subsequent_indent="    ") for label in labels]
    lines = sum(label.count("\n") + 1 for label in labels) + 1
    figure.set_size_inches(width, height + 1.35 * lines * FONT_SIZE / 72)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        title=title,
        title_fontsize=FONT_SIZE,
        fontsize=FONT_SIZE,
        frameon=False,
        alignment="left",
        handlelength=2.6,
        borderpad=0.1,
        labelspacing=0.25,
    )


def _set_title(figure: Figure, title: str | None) -> None:
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _format(values: Sequence[float]) -> Callable[[float], str]:
    """How to write numbers of about this size: at least three digits of the largest one."""
    largest = max((abs(value) for value in values if value), default=1.0)
    decimals = max(3, 2 - int(np.floor(np.log10(largest)))) if np.isfinite(largest) else 3
    return f"{{:.{decimals}f}}".format


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)
