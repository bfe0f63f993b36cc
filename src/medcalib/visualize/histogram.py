"""Reliability histogram of a data set: over its cases, how often each confidence meets each observed frequency."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import ArrayLike

from medcalib.visualize.bins import accuracy_heatmap, bin_means, check_statistics, mean_without_nan
from medcalib.visualize.panels import (
    DIAGONAL,
    bar_beside,
    bin_edges,
    count_bars,
    diagonal,
    panel_grid,
    row_bars,
    write_note,
)
from medcalib.visualize.style import ReliabilityStyle, plain_text

__all__ = ["draw_dataset_reliability_histograms"]


@plain_text
def draw_dataset_reliability_histograms(
    counts: ArrayLike,
    sum_pred: ArrayLike,
    sum_true: ArrayLike,
    class_names: Sequence[str],
    title: str | None = None,
    norm: str = "power",
    gamma: float = 0.35,
    num_accuracy_bins: int | None = None,
    show_counts: bool = True,
    show_average: bool = True,
    columns: int | None = None,
    style: ReliabilityStyle | None = None,
) -> Figure:
    """Heat map of the cases over confidence and observed frequency, for every class and for their mean.

    The colour of a cell is the number of cases whose voxels in that confidence bin have that observed frequency; white
    cells have none. The curve pools the voxels of all cases. The strip above holds the voxels of each confidence bin on
    a logarithmic axis, the strip at the right the sum of each row of the heat map. Every panel shares one colour scale.
    The panel of the mean averages heat maps and curves over the classes that occur in some case.

    Args:
        counts: voxels in each bin, ``(case, class, bin)``; bins have equal width on [0, 1].
        sum_pred: sum of the predicted probabilities in each bin, same shape.
        sum_true: sum of the labels in each bin, same shape.
        class_names: one name for each class.
        title: title of the figure.
        norm: ``"power"``, ``"log"`` or ``"linear"`` colour scale.
        gamma: exponent of the power scale; below 1 it spreads the small counts.
        num_accuracy_bins: rows of the heat map; by default as many as there are confidence bins.
        show_counts: whether the two strips are drawn.
        show_average: whether a panel of the mean over classes follows; it never does for a single class.
        columns: panels in a row; by default up to 3, and 4 from ten panels on.
        style: sizes, colours and words.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: when the shapes, the number of class names, a count, ``norm``, ``gamma``, ``num_accuracy_bins`` or
            ``columns`` is wrong.

    References:
        Barfoot et al., "Average Calibration Losses for Reliable Uncertainty in Medical Image Segmentation", 2025,
        https://arxiv.org/abs/2506.03942

    Example:
        >>> counts = np.array([[[90.0, 10.0]], [[80.0, 20.0]]])
        >>> figure = draw_dataset_reliability_histograms(counts, counts * [0.1, 0.9], counts * [0.1, 0.7], ["liver"])
        >>> figure.axes[0].collections[0].get_array()[[0, 1], [0, 1]].tolist()
        [2.0, 2.0]
    """
    style = style or ReliabilityStyle()
    voxels, predicted, observed = check_statistics(counts, sum_pred, sum_true, class_names, ndim=3)
    rows = voxels.shape[-1] if num_accuracy_bins is None else num_accuracy_bins
    if rows < 1:
        raise ValueError(f"num_accuracy_bins must be at least 1, got {rows}.")
    pooled = [array.sum(axis=0) for array in (voxels, predicted, observed)]
    known = pooled[2].sum(axis=-1) > 0
    heatmaps = accuracy_heatmap(voxels, observed, rows).astype(np.float64)
    confidence, frequency = bin_means(*pooled)
    color_norm = color_scale(norm, gamma, float(heatmaps[known].max(initial=1.0)), smallest=1.0)

    names = list(class_names)
    shown = [(heatmaps[i], confidence[i], frequency[i], pooled[0][i]) for i in range(len(names))]
    notes = [
        style.empty_label if pooled[0][i].sum() == 0 else "" if known[i] else style.absent_label
        for i in range(len(names))
    ]
    if show_average and len(names) > 1:
        names.append(style.average_label)
        notes.append("" if known.any() else style.absent_label)
        shown.append(
            (
                heatmaps[known].sum(axis=0) / max(int(known.sum()), 1),
                mean_without_nan(confidence[known], axis=0),
                mean_without_nan(frequency[known], axis=0),
                pooled[0][known].sum(axis=0),
            )
        )

    entries = [curve([], [], style), Line2D([], [], label=style.diagonal_label, **DIAGONAL)]
    strip = "above" if show_counts else None
    figure, panels = panel_grid(
        names, style, entries, columns=columns, title=title, strip=strip, side_strip=show_counts, color_bar=True
    )
    edges = bin_edges(voxels.shape[-1]), bin_edges(rows)
    for panel, text, (heatmap, confidences, frequencies, _) in zip(panels, notes, shown, strict=True):
        cells = panel.main.pcolormesh(
            *edges, np.ma.masked_equal(heatmap, 0), norm=color_norm, cmap=style.cmap, rasterized=True, zorder=1
        )
        diagonal(panel.main, style)
        known_bins = ~np.isnan(confidences)
        panel.main.add_artist(curve(confidences[known_bins], frequencies[known_bins], style))
        if text:
            write_note(panel.main, text, confidences, frequencies, style)
        if panel.side_strip is not None:
            row_bars(panel.side_strip, heatmap.sum(axis=1), style)
    count_bars(panels, np.stack([voxels_of_bins for *_, voxels_of_bins in shown]), style)
    top = float(color_norm.vmax or 1.0)
    bar = figure.colorbar(cells, cax=bar_beside(figure, panels))
    ticks = [10.0**power for power in range(int(np.log10(top)) + 1)]
    bar.set_ticks([*ticks, top] if top > 1.5 * ticks[-1] else ticks, minor=False)
    bar.ax.set_yticklabels([f"{tick:.0f}" for tick in bar.get_ticks()])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=style.font_size, length=2.5, pad=1.5)
    bar.set_label(style.case_label, fontsize=style.font_size)
    return figure


def color_scale(norm: str, gamma: float, largest: float, smallest: float) -> Normalize:
    """The colour scale of the counts from ``smallest`` to ``largest``.

    Raises:
        ValueError: when ``norm`` is unknown or ``gamma`` not above 0.
    """
    largest = max(largest, 1.5 * smallest)
    if norm == "power":
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma}.")
        return PowerNorm(gamma, vmin=0.0, vmax=largest)
    if norm == "log":
        return LogNorm(vmin=smallest / 2, vmax=largest, clip=True)
    if norm == "linear":
        return Normalize(vmin=0.0, vmax=largest)
    raise ValueError(f"norm must be 'power', 'log' or 'linear', got {norm!r}.")


def curve(confidence: ArrayLike, frequency: ArrayLike, style: ReliabilityStyle) -> Line2D:
    """The pooled reliability curve, outlined in white so that it shows on every colour."""
    line = Line2D(
        confidence,
        frequency,
        color=style.curve_color,
        linewidth=1.2,
        marker="o",
        markersize=2.4,
        zorder=5,
        clip_on=False,
        label=style.pooled_label,
    )
    line.set_path_effects([Stroke(linewidth=2.4, foreground="white"), Normal()])
    return line
