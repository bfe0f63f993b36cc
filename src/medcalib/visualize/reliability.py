"""Reliability diagrams of one case and of a data set: arrays of bin statistics in, a Matplotlib figure out."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from medcalib.functional import BinStatistics, consistency_band
from medcalib.visualize.bins import Array, bin_means, calibration_errors, check_statistics, mean_without_nan
from medcalib.visualize.panels import (
    Panel,
    band_bars,
    band_entry,
    count_bars,
    diagonal,
    frequency_bars,
    panel_grid,
    readable_number,
    reliability_entries,
    write_note,
)
from medcalib.visualize.style import ReliabilityStyle, plain_text

__all__ = ["draw_case_reliability_diagrams", "draw_dataset_reliability_diagrams"]

# Of so many cases with signs of their own 95 % are not yet all.
_FEWEST_CASES = 6


@plain_text
def draw_case_reliability_diagrams(
    counts: ArrayLike,
    sum_pred: ArrayLike,
    sum_true: ArrayLike,
    class_names: Sequence[str],
    title: str | None = None,
    show_counts: bool = True,
    columns: int | None = None,
    style: ReliabilityStyle | None = None,
    band_level: float | None = None,
) -> Figure:
    """Reliability diagram of every class of one case.

    A bar shows the observed frequency of its confidence bin, and the hatched part the gap to the mean confidence, above
    the bar where the prediction is over-confident and inside it where it is under-confident. ECE, ACE and MCE stand in
    the panel. A class that does not occur in the reference is said to be absent and gets no numbers, because they would
    only say how seldom it was predicted.

    Classified images can be shown as one case, each image in the place of a voxel. Since they are independent of each
    other, as voxels are not, ``band_level`` then draws narrow bars that span where the observed frequency would lie by
    chance, as of `draw_dataset_reliability_diagrams` with ``band_unit="voxel"``.

    Args:
        counts: voxels in each bin, ``(class, bin)``; bins have equal width on [0, 1].
        sum_pred: sum of the predicted probabilities in each bin, same shape.
        sum_true: sum of the labels in each bin, same shape.
        class_names: one name for each class.
        title: title of the figure, such as the case id.
        show_counts: whether a strip with the number of voxels of each bin, on a logarithmic scale, lies below.
        columns: panels in a row; by default up to 3, and 4 from ten classes on.
        style: sizes, colours and words.
        band_level: probability of the band, in (0, 1), for each bin on its own; no band when None.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: when the shapes, the number of class names, a count, ``columns`` or ``band_level`` is wrong.

    Example:
        >>> counts = [[90.0, 0.0, 10.0]]
        >>> figure = draw_case_reliability_diagrams(counts, [[9.0, 0.0, 9.0]], [[9.0, 0.0, 7.0]], ["liver"])
        >>> print(figure.axes[0].texts[0].get_text())
        ECE 0.0200
        ACE 0.1000
        MCE 0.2000
    """
    style = style or ReliabilityStyle()
    voxels, predicted, observed = check_statistics(counts, sum_pred, sum_true, class_names, ndim=2)
    confidence, frequency = bin_means(voxels, predicted, observed)
    errors = calibration_errors(voxels, predicted, observed)
    strip = "below" if show_counts else None
    entries = reliability_entries(style)
    band = None
    if band_level is not None:
        band = _band(voxels[None], predicted[None], observed[None], band_level, "voxel")
        entries.append(_band_entry(band_level, style))
    figure, panels = panel_grid(class_names, style, entries, columns=columns, title=title, strip=strip)
    for index, panel in enumerate(panels):
        diagonal(panel.main, style)
        frequency_bars(panel.main, confidence[index], frequency[index], style)
        if voxels[index].sum() == 0:
            text = style.empty_label
        elif observed[index].sum() == 0:
            text = style.absent_label
        else:
            text = "\n".join(f"{name} {readable_number(float(values[index]))}" for name, values in errors.items())
        write_note(panel.main, text, confidence[index], frequency[index], style)
    _band_bars(panels, band, style)
    count_bars(panels, voxels, style)
    return figure


@plain_text
def draw_dataset_reliability_diagrams(
    counts: ArrayLike,
    sum_pred: ArrayLike,
    sum_true: ArrayLike,
    class_names: Sequence[str],
    title: str | None = None,
    show_counts: bool = True,
    show_average: bool = True,
    columns: int | None = None,
    style: ReliabilityStyle | None = None,
    band_level: float | None = 0.95,
    band_unit: str = "case",
) -> Figure:
    """Reliability diagram of every class over all cases, and of their mean, with the spread over the cases.

    The bars pool the voxels of all cases. A vertical line spans the middle half of the cases that have the class, each
    with its own observed frequency in that bin. *Micro* errors are those of the pooled bins, *macro* errors the means
    of the errors of the cases that have the class. The panel of the mean averages frequencies, confidences and micro
    errors over the classes that occur in some case; its macro errors are the means over cases of the means over their
    classes.

    A narrow bar in a bin spans where the observed frequency would lie with probability ``band_level`` if the
    probabilities were right, as of :func:`medcalib.functional.consistency_band`: an observed frequency outside of it is
    more than chance. By default only cases are taken to be independent of each other, since voxels are not; of fewer
    than six cases nothing can be said and nothing is drawn.

    Args:
        counts: voxels in each bin, ``(case, class, bin)``; bins have equal width on [0, 1].
        sum_pred: sum of the predicted probabilities in each bin, same shape.
        sum_true: sum of the labels in each bin, same shape.
        class_names: one name for each class.
        title: title of the figure.
        show_counts: whether a strip with the number of voxels of each bin, on a logarithmic scale, lies below.
        show_average: whether a panel of the mean over classes follows; it never does for a single class.
        columns: panels in a row; by default up to 3, and 4 from ten panels on.
        style: sizes, colours and words.
        band_level: probability of the band, in (0, 1), for each bin on its own; no band when None.
        band_unit: what is independent, ``"case"`` or ``"voxel"``.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: when the shapes, the number of class names, a count, ``columns`` or a choice of the band is wrong.

    Example:
        >>> counts = np.array([[[90.0, 10.0]], [[80.0, 20.0]]])
        >>> figure = draw_dataset_reliability_diagrams(counts, counts * [0.1, 0.9], counts * [0.1, 0.7], ["liver"])
        >>> print(figure.axes[0].texts[0].get_text().splitlines()[1])
        ECE .0300 .0300
    """
    style = style or ReliabilityStyle()
    voxels, predicted, observed = check_statistics(counts, sum_pred, sum_true, class_names, ndim=3)
    present = observed.sum(axis=-1) > 0
    pooled = [array.sum(axis=0) for array in (voxels, predicted, observed)]
    confidence, frequency = bin_means(*pooled)
    micro = calibration_errors(*pooled)
    absent = ~present.any(axis=0)
    per_case = {
        name: np.where(present, values, np.nan)
        for name, values in calibration_errors(voxels, predicted, observed).items()
    }
    macro = {name: mean_without_nan(values, axis=0) for name, values in per_case.items()}
    case_frequency = np.where(present[..., None], bin_means(voxels, predicted, observed)[1], np.nan)
    shown = list(zip(confidence, frequency, np.moveaxis(case_frequency, 1, 0), pooled[0], strict=True))
    notes = [
        style.empty_label
        if pooled[0][index].sum() == 0
        else style.absent_label
        if absent[index]
        else error_table(micro, macro, index) + f"\n{cases_with_class(present[:, index], style)}"
        for index in range(len(class_names))
    ]
    names = list(class_names)
    if show_average and len(names) > 1:
        names.append(style.average_label)
        known = ~absent
        shown.append(
            (
                mean_without_nan(confidence[known], axis=0),
                mean_without_nan(frequency[known], axis=0),
                mean_without_nan(case_frequency[:, known], axis=1),
                pooled[0][known].sum(axis=0),
            )
        )
        micro_mean = {name: values[known].mean(keepdims=True) for name, values in micro.items()}
        macro_mean = {
            name: mean_without_nan(mean_without_nan(values, axis=1)[None], axis=1) for name, values in per_case.items()
        }
        notes.append(error_table(micro_mean, macro_mean, 0) if known.any() else style.absent_label)

    spread = f"middle half of the {style.case_label}" if len(voxels) > 1 else None
    strip = "below" if show_counts else None
    entries = reliability_entries(style, spread)
    band = None
    if band_level is not None and (band_unit != "case" or len(voxels) >= _FEWEST_CASES):
        band = _band(voxels, predicted, observed, band_level, band_unit)
        entries.append(_band_entry(band_level, style))
    figure, panels = panel_grid(names, style, entries, columns=columns, title=title, strip=strip)
    for panel, text, (confidences, frequencies, cases, _) in zip(panels, notes, shown, strict=True):
        diagonal(panel.main, style)
        frequency_bars(panel.main, confidences, frequencies, style)
        if spread:
            low, high = quartiles(cases)
            some = ~np.isnan(confidences) & ~np.isnan(low)
            panel.main.vlines(
                confidences[some], low[some], high[some], colors="black", linewidths=0.9, zorder=4, label="spread"
            )
        write_note(panel.main, text, confidences, frequencies, style)
    # the panel of the mean has none: classes of a case stray together
    _band_bars(panels, band, style)
    count_bars(panels, np.stack([voxels_of_bins for *_, voxels_of_bins in shown]), style)
    return figure


def _band(voxels: Array, predicted: Array, observed: Array, level: float, unit: str) -> tuple[Array, Array]:
    statistics = BinStatistics(*(torch.as_tensor(array) for array in (voxels, predicted, observed)))
    low, high = consistency_band(statistics.pool() if unit == "voxel" else statistics, level, unit)
    return low[0].numpy(), high[0].numpy()


def _band_entry(level: float, style: ReliabilityStyle) -> Artist:
    return band_entry(f"{100 * level:g} % {style.band_label}", style)


def _band_bars(panels: Sequence[Panel], band: tuple[Array, Array] | None, style: ReliabilityStyle) -> None:
    """The band of every class, in the first panels."""
    if band is not None:
        for panel, low, high in zip(panels, *band, strict=False):
            band_bars(panel.main, low, high, style)


def quartiles(values: Array) -> tuple[Array, Array]:
    """Lower and upper quartile of each column of ``values``, ``(case, bin)``, over the entries that are not NaN."""
    ends = np.full((2, values.shape[1]), np.nan)
    for column in np.flatnonzero(~np.isnan(values).all(axis=0)):
        known = values[:, column]
        ends[:, column] = np.percentile(known[~np.isnan(known)], (25, 75))
    return ends[0], ends[1]


def error_table(micro: dict[str, Array], macro: dict[str, Array], index: int) -> str:
    """Micro and macro errors of one class, a line each, in columns narrow enough for four panels in a row."""
    lines = [
        " ".join([name, *(readable_number(float(kind[name][index])).removeprefix("0") for kind in (micro, macro))])
        for name in micro
    ]
    return "\n".join(["        micro macro", *lines])


def cases_with_class(present: Array, style: ReliabilityStyle) -> str:
    """How many cases the macro numbers of one class were taken over."""
    with_class = int(present.sum())
    return f"{style.case_label}: {with_class}" + (f" of {len(present)}" if with_class < len(present) else "")
