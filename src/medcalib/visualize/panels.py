"""The marks of one panel, each drawn as one Matplotlib artist: one patch a bar would cost ten times as much."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from medcalib.visualize.bins import Array
from medcalib.visualize.style import ReliabilityStyle

__all__ = [
    "count_bars",
    "diagonal",
    "diagonal_entry",
    "frequency_bars",
    "legend_entries",
    "note",
    "readable_number",
    "row_bars",
    "spread_lines",
    "write_note",
]

HATCH_DISTANCE = 0.04
DIAGONAL = {"color": "black", "linewidth": 0.7, "linestyle": (0, (4, 2))}
# Letters of the font: setting a power with mathtext takes 50 ms for each new exponent.
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def boxes(low: Array, high: Array, horizontal: bool = False) -> Array:
    """Corners ``(bin, 4, 2)`` of the boxes from ``low`` to ``high`` over equal bins of [0, 1]; none where NaN."""
    edges = np.linspace(0.0, 1.0, len(low) + 1)
    known = ~(np.isnan(low) | np.isnan(high))
    left, right, low, high = edges[:-1][known], edges[1:][known], low[known], high[known]
    along = np.stack([left, left, right, right], axis=1)
    across = np.stack([low, high, high, low], axis=1)
    return np.stack([across, along] if horizontal else [along, across], axis=2)


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


def diagonal(axes: Axes) -> None:
    """The line of perfect calibration."""
    axes.add_artist(Line2D([0, 1], [0, 1], zorder=3, **DIAGONAL))


def diagonal_entry(style: ReliabilityStyle) -> Line2D:
    """The line of perfect calibration in a legend."""
    return Line2D([], [], label=style.diagonal_label, **DIAGONAL)


def frequency_bars(axes: Axes, confidence: Array, frequency: Array, style: ReliabilityStyle) -> list[Artist]:
    """Observed frequency of each bin, the gap up or down to the mean confidence, and the point where the two meet.

    Args:
        axes: unit axes.
        confidence: mean confidence of each bin, ``(bin,)``, NaN where empty.
        frequency: observed frequency of each bin, ``(bin,)``, NaN where empty.
        style: colours and words.

    Returns:
        What was added to the axes.
    """
    artists: list[Artist] = []

    def add(collection: PolyCollection | LineCollection) -> None:
        artists.append(axes.add_collection(collection, autolim=False))

    floor = np.where(np.isnan(frequency), np.nan, 0.0)
    add(
        PolyCollection(
            boxes(floor, frequency),
            facecolors=style.frequency_color,
            edgecolors="white",
            linewidths=0.4,
            zorder=1,
            label=style.frequency_label,
        )
    )
    over = boxes(frequency, np.where(confidence > frequency, confidence, np.nan))
    under = boxes(np.where(confidence < frequency, confidence, np.nan), frequency)
    for name, gaps, color, slope in (
        (style.overconfident_label, over, style.overconfident_color, 1),
        (style.underconfident_label, under, style.underconfident_color, -1),
    ):
        add(PolyCollection(gaps, facecolors=(color, 0.25), edgecolors=color, linewidths=0.5, zorder=2, label=name))
        add(LineCollection(hatching(gaps, slope), colors=color, linewidths=0.5, zorder=2))
    points = Line2D(
        confidence, frequency, linestyle="none", marker="o", markersize=2.2, color="black", zorder=4, clip_on=False
    )
    artists.append(axes.add_artist(points))
    return artists


def spread_lines(axes: Axes, position: Array, low: Array, high: Array) -> None:
    """Vertical lines from ``low`` to ``high`` at ``position``, each ``(bin,)``; none where NaN."""
    known = ~(np.isnan(position) | np.isnan(low) | np.isnan(high))
    ends = np.stack([np.stack([position, low], axis=1), np.stack([position, high], axis=1)], axis=1)
    axes.add_collection(
        LineCollection(ends[known], colors="black", linewidths=0.9, zorder=4, label="spread"), autolim=False
    )


def count_bars(axes: Axes, counts: Array, style: ReliabilityStyle) -> Artist:
    """Upright bars of counts on a logarithmic axis that begins at 0.5, so that a single voxel still shows.

    Args:
        axes: axes whose horizontal axis is [0, 1].
        counts: ``(bin,)``.
        style: colours and words.

    Returns:
        What was added to the axes.
    """
    top = max(float(counts.max(initial=0.0)), 1.0)
    bars = count_boxes(axes, np.full(len(counts), 0.5), counts, style)
    decade = int(np.floor(np.log10(top)))
    axes.set_yscale("log")
    axes.set_ylim(0.5, 2 * top)
    axes.set_yticks(
        [1.0, 10.0**decade] if decade else [1.0],
        ["1", "10" + str(decade).translate(SUPERSCRIPTS)] if decade else ["1"],
    )
    axes.minorticks_off()
    return bars


def row_bars(axes: Axes, counts: Array, style: ReliabilityStyle) -> Artist:
    """Bars of counts that grow to the right on a linear axis with one tick, at a round number.

    Args:
        axes: axes whose vertical axis is [0, 1].
        counts: ``(bin,)``.
        style: colours and words.

    Returns:
        What was added to the axes.
    """
    top = max(float(counts.max(initial=0.0)), 1.0)
    bars = count_boxes(axes, np.zeros(len(counts)), counts, style, horizontal=True)
    unit = 10.0 ** np.floor(np.log10(top))
    tick = max(step * unit for step in (1, 2, 5) if step * unit <= top)
    axes.set_xlim(0, 1.05 * top)
    axes.set_xticks([tick], [f"{tick:.0f}"])
    return bars


def count_boxes(axes: Axes, low: Array, counts: Array, style: ReliabilityStyle, horizontal: bool = False) -> Artist:
    """Grey boxes from ``low`` to ``counts`` over equal bins of [0, 1]; none where there is nothing to count."""
    high = np.where(counts > 0, np.maximum(counts, 1.1 * low), np.nan)
    bars = PolyCollection(
        boxes(low, high, horizontal),
        facecolors=style.count_color,
        edgecolors="white",
        linewidths=0.4,
        label=style.count_label,
    )
    return axes.add_collection(bars, autolim=False)


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


def thin_hatch(artist: Patch | PolyCollection) -> None:
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
