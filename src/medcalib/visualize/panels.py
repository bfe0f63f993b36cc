"""Figures of one square panel a class, with strips of counts beside it, and the marks in them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from medcalib.visualize.bins import Array
from medcalib.visualize.style import ReliabilityStyle

__all__ = [
    "Panel",
    "band_bars",
    "band_entry",
    "bar_beside",
    "bin_edges",
    "count_bars",
    "diagonal",
    "frequency_bars",
    "panel_grid",
    "readable_number",
    "reliability_entries",
    "row_bars",
    "write_note",
]

# Inches: the strips of counts and the gaps before them. Parts of a panel would not do: the layout finds margins first.
STRIP, GAP = 0.32, 0.09
DIAGONAL: dict[str, Any] = {"color": "black", "linewidth": 0.7, "linestyle": (0, (4, 2))}
# As letters: a power of ten in mathematics would be set in another font.
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Panel(NamedTuple):
    """The axes of one class: the diagram, and the strips of counts beside it where there are any."""

    main: Axes
    count_strip: Axes | None
    side_strip: Axes | None


class _Inches(NamedTuple):
    """Around all panels at the left, right and foot and the top, and above and below each of them."""

    left: float
    right: float
    foot: float
    above: float
    below: float
    top: float


def panel_grid(
    titles: Sequence[str],
    style: ReliabilityStyle,
    entries: Sequence[Artist],
    *,
    columns: int | None = None,
    title: str | None = None,
    strip: str | None = None,
    side_strip: bool = False,
    color_bar: bool = False,
) -> tuple[Figure, list[Panel]]:
    """A figure with one square panel of unit axes for each title, and a legend below.

    Args:
        titles: title of each panel.
        style: sizes and words.
        entries: handles of the legend.
        columns: panels in a row; by default up to 3, and 4 from ten panels on.
        title: title of the whole figure.
        strip: ``"above"``, ``"below"`` or None: where a strip of counts shares the horizontal axis of its panel.
        side_strip: whether a strip at the right shares the vertical axis of its panel.
        color_bar: whether room is left for a colour bar, as of `bar_beside`.

    Returns:
        The figure and its panels.

    Raises:
        ValueError: when ``columns`` is below 1, or too large for the width of the figure.

    Example:
        >>> figure, panels = panel_grid(["liver", "spleen"], ReliabilityStyle(), [])
        >>> len(panels), len(figure.axes)
        (2, 2)
    """
    if columns is None:
        columns = 2 if len(titles) == 4 else 3 if len(titles) < 10 else 4
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    beside = (STRIP + GAP) * side_strip
    # what is left of the width beside labels and gaps
    margin = (1.5 if color_bar else 0.9) * max(1.0, style.font_size / 7)
    side = min(style.panel_size, (style.width - margin) / columns - 0.2 - beside)
    if side < 0.3:
        raise ValueError(f"columns={columns} leaves no room for panels in a figure {style.width:g} inches wide.")
    width = min(style.width, columns * (side + beside + 0.2) + margin)
    line = style.font_size * 1.3 / 72
    widths = [(0.52 * len(str(entry.get_label())) + 5) * style.font_size / 72 for entry in entries] or [width]
    in_a_row = len(widths) if sum(widths) < width else max(1, int(width / max(widths)))
    heading = max(8, int(side * 72 / (0.62 * style.title_size)))
    titles = [textwrap.fill(name, heading, max_lines=2, placeholder=" …") for name in titles]
    vertical = textwrap.fill(style.frequency_label, max(8, int(side * 72 / (0.58 * style.font_size))))
    # A layout engine finds other places each time that the figure is drawn, since the strips are sized in inches.
    size = _Inches(
        left=2 * style.font_size / 72 + 0.15 + (1 + vertical.count("\n")) * line,
        right=beside + (margin - 0.7 if color_bar else 0.15),
        foot=-(-len(entries) // in_a_row) * 1.2 * line + line + 0.2,
        above=(1 + max(name.count("\n") for name in titles)) * 1.3 * style.title_size / 72 + 0.12
        + (STRIP + GAP) * (strip == "above"),
        below=line + 0.06 + (STRIP + GAP) * (strip == "below"),
        top=((style.title_size + 1) * 1.3 / 72 + 0.05) * bool(title),
    )  # fmt: skip
    height = size.foot + rows * (size.above + side + size.below) + size.top
    figure = Figure(figsize=(width, height), facecolor="white")
    spare = max(0.0, width - size.left - size.right - columns * side - (columns - 1) * (0.2 + beside))
    first = size.left + spare / 2
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": first / width,
            "right": (first + columns * side + (columns - 1) * (0.2 + beside)) / width,
            "bottom": (size.foot + size.below) / height,
            "top": (height - size.top - size.above) / height,
            "wspace": (0.2 + beside) / side,
            "hspace": (size.above + size.below) / side,
        },
    )
    for axes in grid.flat[len(titles) :]:
        axes.remove()

    panels = []
    for number, (main, name) in enumerate(zip(grid.flat, titles, strict=False)):
        main.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1, xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        count_strip = beside_strip = None
        inches = figure.dpi_scale_trans + ScaledTranslation(int(side_strip), strip == "above", main.transAxes)
        if strip:
            beyond = blended_transform_factory(main.transAxes, inches)
            low = GAP if strip == "above" else -GAP - STRIP
            count_strip = main.inset_axes((0, low, 1, STRIP), transform=beyond, sharex=main)
        if side_strip:
            beyond = blended_transform_factory(inches, main.transAxes)
            beside_strip = main.inset_axes((GAP, 0, STRIP, 1), transform=beyond, sharey=main)
            beside_strip.tick_params(labelleft=False)
        top = main if count_strip is None or strip == "below" else count_strip
        top.set_title(name, fontsize=style.title_size, fontweight="bold")
        lowest = main if count_strip is None or strip == "above" else count_strip
        for axes in (main, count_strip, beside_strip):
            if axes is not None:
                axes.spines[["top", "right"]].set_visible(False)
                axes.tick_params(labelsize=style.font_size, length=2.5, pad=1.5)
                axes.tick_params(axis="x", labelbottom=axes in (lowest, beside_strip))
        if number + columns >= len(titles):
            lowest.set_xlabel(style.confidence_label, fontsize=style.font_size)
            if beside_strip is not None:
                beside_strip.set_xlabel(style.case_label, fontsize=style.font_size)
        if number % columns:
            main.tick_params(labelleft=False)
        else:
            main.set_ylabel(vertical, fontsize=style.font_size)
            if count_strip is not None:
                count_strip.set_ylabel(style.count_label, fontsize=style.font_size)
        panels.append(Panel(main, count_strip, beside_strip))
    if title:
        figure.suptitle(title, y=1 - 0.05 / height, fontsize=style.title_size + 1)
    if entries:
        figure.legend(
            handles=list(entries),
            loc="lower center",
            bbox_to_anchor=(0.5, 0.04 / height),
            borderaxespad=0,
            ncols=in_a_row,
            fontsize=style.font_size,
            frameon=False,
            borderpad=0.1,
        )
    return figure, panels


def bar_beside(figure: Figure, panels: Sequence[Panel]) -> Axes:
    """Axes for a colour bar at the right of all panels, four fifths as high as they are."""
    width, _ = figure.get_size_inches()
    places = [panel.main.get_position() for panel in panels]
    right = max(place.x1 for place in places)
    low, high = min(place.y0 for place in places), max(place.y1 for place in places)
    beside = STRIP + GAP if panels[0].side_strip is not None else 0.0
    return figure.add_axes((right + (beside + 0.2) / width, low + 0.1 * (high - low), 0.12 / width, 0.8 * (high - low)))


def bin_edges(num_bins: int) -> Array:
    """Edges of equal bins of [0, 1]."""
    return np.linspace(0.0, 1.0, num_bins + 1)


def diagonal(axes: Axes, style: ReliabilityStyle) -> Line2D:
    """Draw the line of perfect calibration."""
    return axes.plot([0, 1], [0, 1], zorder=3, label=style.diagonal_label, **DIAGONAL)[0]


def frequency_bars(axes: Axes, confidence: Array, frequency: Array, style: ReliabilityStyle) -> None:
    """Draw the observed frequency of each bin, the gap up or down to the mean confidence, and where the two meet.

    Args:
        axes: unit axes.
        confidence: mean confidence of each bin, (bin,), NaN where empty.
        frequency: observed frequency, the same.
        style: colours and words.
    """
    known = ~np.isnan(frequency)
    left, wide = bin_edges(len(frequency))[:-1], 1 / len(frequency)
    axes.bar(left[known], frequency[known], wide, align="edge", zorder=1, **_frequency_look(style))
    for sign, look in zip((1, -1), _gap_looks(style), strict=True):
        off = known & (sign * (confidence - frequency) > 0)
        low, high = np.sort([confidence[off], frequency[off]], axis=0)
        axes.bar(left[off], high - low, wide, low, align="edge", zorder=2, **look)
    axes.plot(
        confidence[known], frequency[known], linestyle="none", marker="o", markersize=2.2, color="black", clip_on=False
    )


def band_bars(axes: Axes, low: Array, high: Array, style: ReliabilityStyle) -> None:
    """Draw how far the observed frequency of each bin may stray by chance.

    Args:
        axes: unit axes.
        low: lower end for each bin, (bin,), NaN where empty.
        high: upper end, the same.
        style: colours.
    """
    known = ~np.isnan(low)
    left, wide = bin_edges(len(low))[:-1], 1 / len(low)
    # a band of nothing, as of bins in which no case strays, still shows
    axes.bar(
        left[known] + 0.2 * wide, (high - low)[known], 0.6 * wide, low[known], align="edge", zorder=3.5,
        label="band", **_band_look(style),
    )  # fmt: skip


def band_entry(label: str, style: ReliabilityStyle) -> Artist:
    """What `band_bars` mean."""
    return Patch(label=label, **_band_look(style))


def _band_look(style: ReliabilityStyle) -> dict[str, Any]:
    return {"facecolor": (style.band_color, 0.35), "edgecolor": style.band_color, "linewidth": 0.5}


def reliability_entries(style: ReliabilityStyle, spread: str | None = None) -> list[Artist]:
    """What the marks of a reliability diagram mean."""
    entries: list[Artist] = [Patch(**look) for look in (_frequency_look(style), *_gap_looks(style))]
    entries.append(Line2D([], [], label=style.diagonal_label, **DIAGONAL))
    return entries + ([Line2D([], [], color="black", linewidth=0.9, label=spread)] if spread else [])


def _frequency_look(style: ReliabilityStyle) -> dict[str, Any]:
    return {
        "facecolor": style.frequency_color,
        "edgecolor": "white",
        "linewidth": 0.4,
        "label": style.frequency_label,
    }


def _gap_looks(style: ReliabilityStyle) -> list[dict[str, Any]]:
    kinds = (
        (style.overconfident_color, style.overconfident_label, "//////"),
        (style.underconfident_color, style.underconfident_label, "\\\\\\\\\\\\"),
    )
    return [
        {
            "facecolor": (color, 0.25),
            "edgecolor": color,
            "linewidth": 0.5,
            "hatch": hatch,
            "hatch_linewidth": 0.5,
            "label": label,
        }
        for color, label, hatch in kinds
    ]


def count_bars(panels: Sequence[Panel], counts: Array, style: ReliabilityStyle) -> None:
    """Draw counts, (panel, bin), on logarithmic axes that all panels share.

    The axes begin at 0.5, so that a single voxel still shows, and end beyond the next power of ten.
    """
    decade = int(np.ceil(np.log10(max(float(counts.max(initial=0.0)), 1.0))))
    power = "10" + (str(decade).translate(SUPERSCRIPTS) if decade > 1 else "")
    for panel, values in zip(panels, counts, strict=True):
        if (axes := panel.count_strip) is None:
            continue
        some, left = values > 0, bin_edges(len(values))[:-1]
        axes.set(yscale="log", ylim=(0.5, 1.5 * 10.0**decade))
        heights = np.maximum(values[some], 0.55) - 0.5
        axes.bar(left[some], heights, 1 / len(values), 0.5, align="edge", **_count_look(style))
        axes.minorticks_off()
        axes.set_yticks([1.0, 10.0**decade] if decade else [1.0], ["1", power] if decade else ["1"])
        place = panel.main.get_subplotspec()
        if place is not None and place.colspan.start:
            axes.tick_params(labelleft=False)


def row_bars(axes: Axes, counts: Array, style: ReliabilityStyle) -> None:
    """Draw counts, (bin,), that grow to the right on an axis with one tick, at a round number."""
    top = max(float(counts.max(initial=0.0)), 1.0)
    some, low = counts > 0, bin_edges(len(counts))[:-1]
    axes.barh(low[some], counts[some], 1 / len(counts), align="edge", **_count_look(style))
    unit = 10.0 ** np.floor(np.log10(top))
    tick = max(step * unit for step in (1, 2, 5) if step * unit <= top)
    axes.set(xlim=(0, 1.05 * top))
    axes.set_xticks([tick], [f"{tick:.0f}"])


def _count_look(style: ReliabilityStyle) -> dict[str, Any]:
    return {"facecolor": style.count_color, "edgecolor": "white", "linewidth": 0.4, "label": style.count_label}


def write_note(axes: Axes, content: str, confidence: Array, frequency: Array, style: ReliabilityStyle) -> None:
    """Write in the corner that the marks leave free.

    Over-confident marks lie below the diagonal, so the upper left is empty; under-confident ones lie above it, and the
    lower right holds nothing but the inside of bars.
    """
    gap = frequency - confidence
    above = np.nansum(gap) > 0 and np.nanmax(gap) > 0.15
    axes.text(
        0.965 if above else 0.035,
        0.03 if above else 0.97,
        content,
        ha="right" if above else "left",
        va="bottom" if above else "top",
        fontsize=style.font_size,
        linespacing=1.15,
        zorder=6,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )


def readable_number(value: float) -> str:
    """Four decimals, because calibration errors of whole volumes are small.

    Example:
        >>> readable_number(0.01234), readable_number(2e-6), readable_number(float("nan"))
        ('0.0123', '<.0001', '-')
    """
    if np.isnan(value):
        return "-"
    if 0 < value < 0.00005:
        return "<.0001"
    return f"{value:.4f}"
