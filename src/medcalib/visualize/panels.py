"""The marks of one panel, each drawn as one Matplotlib artist: one patch a bar would cost ten times as much."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.text import Text

from medcalib.visualize.bins import Array
from medcalib.visualize.panel_layout import Panel
from medcalib.visualize.style import ReliabilityStyle

__all__ = [
    "CountStrips",
    "FrequencyBars",
    "diagonal",
    "diagonal_entry",
    "legend_entries",
    "note",
    "outlines",
    "readable_number",
    "row_bars",
    "spread_lines",
    "write_note",
]

HATCH_DISTANCE = 0.04
DIAGONAL = {"color": "black", "linewidth": 0.7, "linestyle": (0, (4, 2))}
# Letters of the font: setting a power with mathtext takes 50 ms for each new exponent.
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def boxes(low: Array, high: Array) -> Array:
    """Corners ``(bin, 4, 2)`` of upright boxes from ``low`` to ``high`` over equal bins of [0, 1]; none where NaN."""
    edges = np.linspace(0.0, 1.0, len(low) + 1)
    known = ~(np.isnan(low) | np.isnan(high))
    left, right, low, high = edges[:-1][known], edges[1:][known], low[known], high[known]
    return np.stack([np.stack([left, left, right, right], axis=1), np.stack([low, high, high, low], axis=1)], axis=2)


def hatching(corners: Array, slope: int) -> Array:
    """Parallel lines ``(line, 2, 2)`` of slope 1 or -1 inside boxes; Matplotlib's hatches take ten times as long."""
    left, right = corners[:, 0, 0, None], corners[:, 2, 0, None]
    low, high = corners[:, 0, 1, None], corners[:, 1, 1, None]
    if slope < 0:
        low, high = -high, -low
    offset = np.arange(-2.0, 1.0, HATCH_DISTANCE)
    start, stop = np.maximum(left, low - offset), np.minimum(right, high - offset)
    inside = start < stop
    start, stop, offset = start[inside], stop[inside], np.broadcast_to(offset, inside.shape)[inside]
    ends = np.stack([start, stop], axis=1)
    return np.stack([ends, slope * (ends + offset[:, None])], axis=2)


def outlines(corners: Array) -> Path:
    """One path along the boundaries of all boxes, ``(box, corner, 2)``."""
    closed = np.concatenate([corners, corners[:, :1]], axis=1)
    codes = np.full(closed.shape[:2], Path.LINETO, dtype=Path.code_type)
    codes[:, 0], codes[:, -1] = Path.MOVETO, Path.CLOSEPOLY
    return Path(closed.reshape(-1, 2), codes.ravel())


def strokes(ends: Array) -> Path:
    """One path along all lines, ``(line, 2, 2)``."""
    return Path(ends.reshape(-1, 2), np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=Path.code_type), len(ends)))


def add_shapes(axes: Axes, **look: Any) -> PathPatch:
    """Add an artist without a path yet, which the limits of the axes take no notice of."""
    shapes = PathPatch(Path(np.empty((0, 2))), **look)
    axes.add_artist(shapes)
    return shapes


def diagonal(axes: Axes) -> None:
    """The line of perfect calibration."""
    axes.add_artist(Line2D([0, 1], [0, 1], zorder=3, **DIAGONAL))


def diagonal_entry(style: ReliabilityStyle) -> Line2D:
    """The line of perfect calibration in a legend."""
    return Line2D([], [], label=style.diagonal_label, **DIAGONAL)


class FrequencyBars:
    """Observed frequency of each bin, the gap up or down to the mean confidence, and the point where the two meet.

    Args:
        axes: unit axes.
        style: colours and words.
    """

    def __init__(self, axes: Axes, style: ReliabilityStyle) -> None:
        self.bars = add_shapes(
            axes,
            zorder=1,
            label=style.frequency_label,
            facecolor=style.frequency_color,
            edgecolor="white",
            linewidth=0.4,
        )
        self.over, self.over_hatching = gap_shapes(axes, style.overconfident_color, style.overconfident_label)
        self.under, self.under_hatching = gap_shapes(axes, style.underconfident_color, style.underconfident_label)
        self.points = Line2D([], [], linestyle="none", marker="o", markersize=2.2, color="black", zorder=4)
        axes.add_artist(self.points)
        self.points.set_clip_on(False)
        self.artists = [self.bars, self.over, self.over_hatching, self.under, self.under_hatching, self.points]

    def show(self, confidence: Array, frequency: Array) -> None:
        """Set mean confidence and observed frequency of each bin, ``(bin,)``, NaN where empty."""
        self.bars.set_path(outlines(boxes(np.where(np.isnan(frequency), np.nan, 0.0), frequency)))
        over = boxes(frequency, np.where(confidence > frequency, confidence, np.nan))
        under = boxes(np.where(confidence < frequency, confidence, np.nan), frequency)
        self.over.set_path(outlines(over))
        self.under.set_path(outlines(under))
        self.over_hatching.set_path(strokes(hatching(over, 1)))
        self.under_hatching.set_path(strokes(hatching(under, -1)))
        self.points.set_data(confidence, frequency)


def gap_shapes(axes: Axes, color: str, label: str) -> tuple[PathPatch, PathPatch]:
    """Shapes for the gaps of one sign, and for the hatching in them."""
    gaps = add_shapes(axes, zorder=2, linewidth=0.5, edgecolor=color, facecolor=(color, 0.25), label=label)
    return gaps, add_shapes(axes, zorder=2, linewidth=0.5, edgecolor=color, facecolor="none")


def spread_lines(axes: Axes, position: Array, low: Array, high: Array) -> None:
    """Vertical lines from ``low`` to ``high`` at ``position``, each ``(bin,)``; none where NaN."""
    known = ~(np.isnan(position) | np.isnan(low) | np.isnan(high))
    ends = np.stack([np.stack([position, low], axis=1), np.stack([position, high], axis=1)], axis=1)
    axes.add_collection(
        LineCollection(ends[known], colors="black", linewidths=0.9, zorder=4, label="spread"), autolim=False
    )


class CountStrips:
    """Upright bars of counts on a logarithmic axis that begins at 0.5, so that a single voxel still shows.

    The strips of all panels share the axis. It ends at a power of ten, so that cases of like size share it as well.

    Args:
        panels: those in which the strips lie; the leftmost have the ticks.
        style: colours and words.

    Attributes:
        decade: exponent at the end of the axis; None before anything was shown, and where there are no strips.
    """

    def __init__(self, panels: Sequence[Panel], style: ReliabilityStyle) -> None:
        self.axes = [panel.count_strip for panel in panels if panel.count_strip is not None]
        self.ticked = [panel.count_strip for panel in panels if panel.count_strip is not None and panel.leftmost]
        self.artists = [add_shapes(axes, **count_look(style)) for axes in self.axes]
        self.decade: int | None = None
        for axes in self.axes:
            axes.set_yscale("log")
            axes.set_yticks([])
            axes.minorticks_off()

    def show(self, counts: Array) -> None:
        """Set the counts, ``(panel, bin)``."""
        if not self.axes:
            return
        for bars, counts_of_bins in zip(self.artists, counts, strict=True):
            bars.set_path(outlines(count_boxes(np.full(len(counts_of_bins), 0.5), counts_of_bins)))
        decade = int(np.ceil(np.log10(max(float(counts.max(initial=0.0)), 1.0))))
        if decade == self.decade:
            return
        self.decade = decade
        for axes in self.axes:
            axes.set_ylim(0.5, 1.5 * 10.0**decade)
        power = "10" + (str(decade).translate(SUPERSCRIPTS) if decade > 1 else "")
        for axes in self.ticked:
            axes.set_yticks([1.0, 10.0**decade] if decade else [1.0], ["1", power] if decade else ["1"])


def row_bars(axes: Axes, counts: Array, style: ReliabilityStyle) -> None:
    """Bars of counts that grow to the right on a linear axis with one tick, at a round number.

    Args:
        axes: axes whose vertical axis is [0, 1].
        counts: ``(bin,)``.
        style: colours and words.
    """
    top = max(float(counts.max(initial=0.0)), 1.0)
    bars = add_shapes(axes, **count_look(style))
    bars.set_path(outlines(count_boxes(np.zeros(len(counts)), counts)[..., ::-1]))
    unit = 10.0 ** np.floor(np.log10(top))
    tick = max(step * unit for step in (1, 2, 5) if step * unit <= top)
    axes.set_xlim(0, 1.05 * top)
    axes.set_xticks([tick], [f"{tick:.0f}"])


def count_look(style: ReliabilityStyle) -> dict[str, Any]:
    """Grey with white edges."""
    return {"facecolor": style.count_color, "edgecolor": "white", "linewidth": 0.4, "label": style.count_label}


def count_boxes(low: Array, counts: Array) -> Array:
    """Upright boxes from ``low`` to ``counts`` over equal bins of [0, 1]; none where there is nothing to count."""
    return boxes(low, np.where(counts > 0, np.maximum(counts, 1.1 * low), np.nan))


def note(axes: Axes, style: ReliabilityStyle) -> Text:
    """An empty text for :func:`write_note`."""
    return axes.text(
        0,
        0,
        "",
        fontsize=style.font_size,
        linespacing=1.15,
        zorder=6,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
    )


def write_note(text: Text, content: str, confidence: Array, frequency: Array) -> None:
    """Set the text in the corner that the marks leave free.

    Over-confident marks lie below the diagonal, so the upper left is empty; under-confident ones lie above it, and the
    lower right holds nothing but the inside of bars.
    """
    above = np.nansum(frequency - confidence) > 0 and np.nanmax(frequency - confidence) > 0.15
    text.set_text(content)
    text.set(x=0.965 if above else 0.035, y=0.03 if above else 0.97)
    text.set(ha="right" if above else "left", va="bottom" if above else "top")


def legend_entries(style: ReliabilityStyle, spread: str | None = None) -> list[Patch | Line2D]:
    """What the marks of a reliability diagram mean."""
    over = Patch(
        facecolor=(style.overconfident_color, 0.25),
        edgecolor=style.overconfident_color,
        linewidth=0.5,
        hatch="//////",
        label=style.overconfident_label,
    )
    under = Patch(
        facecolor=(style.underconfident_color, 0.25),
        edgecolor=style.underconfident_color,
        linewidth=0.5,
        hatch="\\\\\\\\\\\\",
        label=style.underconfident_label,
    )
    thin_hatch(over)
    thin_hatch(under)
    entries: list[Patch | Line2D] = [
        Patch(facecolor=style.frequency_color, edgecolor="white", linewidth=0.4, label=style.frequency_label),
        over,
        under,
        diagonal_entry(style),
    ]
    if spread:
        entries.append(Line2D([], [], color="black", linewidth=0.9, label=spread))
    return entries


def thin_hatch(artist: Patch) -> None:
    """Hatch lines as thin as the outlines, where this Matplotlib can set them for one artist."""
    if hasattr(artist, "set_hatch_linewidth"):
        artist.set_hatch_linewidth(0.5)


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
