"""What figures show of bin statistics, as arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from medcalib.functional import BinStatistics, bin_indices, every_calibration_error

__all__ = ["accuracy_heatmap", "bin_means", "calibration_errors", "check_statistics", "mean_without_nan"]

Array = NDArray[np.float64]


def check_statistics(
    counts: ArrayLike, sum_pred: ArrayLike, sum_true: ArrayLike, class_names: Sequence[str], ndim: int
) -> tuple[Array, Array, Array]:
    """Bin statistics as float64 arrays in which entries that are not finite count as empty.

    Args:
        counts: voxels in each bin, ``(class, bin)`` for ``ndim=2`` or ``(case, class, bin)`` for ``ndim=3``.
        sum_pred: sum of the predicted probabilities in each bin, same shape.
        sum_true: number of voxels of the class (or sum of its soft labels) in each bin, same shape.
        class_names: one name for each class.
        ndim: 2 or 3, the number of axes wanted.

    Returns:
        ``counts``, ``sum_pred`` and ``sum_true``; where any of the three is NaN or infinite, all three are 0.

    Raises:
        ValueError: when the number of axes, the shapes, the number of class names, a count or a sum is wrong.

    Example:
        >>> counts, _, _ = check_statistics([[2.0, np.nan]], [[0.2, 0.0]], [[0.0, 0.0]], ["organ"], ndim=2)
        >>> counts
        array([[2., 0.]])
    """
    axes = "(class, bin)" if ndim == 2 else "(case, class, bin)"
    arrays = [np.asarray(array, dtype=np.float64) for array in (counts, sum_pred, sum_true)]
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != ndim or len(set(shapes)) != 1 or 0 in shapes[0]:
        raise ValueError(
            f"counts, sum_pred and sum_true must have one common, non-empty shape {axes}, "
            f"got {shapes[0]}, {shapes[1]} and {shapes[2]}."
        )
    if len(class_names) != shapes[0][-2]:
        raise ValueError(
            f"class_names must name the {shapes[0][-2]} classes of the statistics, got {len(class_names)}."
        )
    finite = np.isfinite(arrays[0]) & np.isfinite(arrays[1]) & np.isfinite(arrays[2])
    clean = [np.where(finite, array, 0.0) for array in arrays]
    if (clean[0] < 0).any():
        raise ValueError(f"counts must not be negative, got {clean[0].min():g}.")
    for name, sums in (("sum_pred", clean[1]), ("sum_true", clean[2])):
        # Soft bins and float32 sums round; a sum of other units or of another bin is off by more.
        outside = (sums < -1e-3) | (sums > clean[0] * (1 + 1e-3) + 1e-3)
        if outside.any():
            raise ValueError(f"{name} must lie between 0 and counts in every bin, got {sums[outside][0]:g}.")
    return clean[0], clean[1], clean[2]


def bin_means(counts: Array, sum_pred: Array, sum_true: Array) -> tuple[Array, Array]:
    """Mean confidence and observed frequency of each bin; an empty bin is NaN.

    Args:
        counts: voxels in each bin, any shape.
        sum_pred: sum of the predicted probabilities in each bin, same shape.
        sum_true: sum of the labels in each bin, same shape.

    Returns:
        ``confidence`` and ``frequency``, same shape, in [0, 1].

    Example:
        >>> bin_means(np.array([4.0, 0.0]), np.array([1.0, 0.0]), np.array([2.0, 0.0]))
        (array([0.25,  nan]), array([0.5, nan]))
    """
    voxels = np.where(counts > 0, counts, np.nan)
    return sum_pred / voxels, sum_true / voxels


def calibration_errors(counts: Array, sum_pred: Array, sum_true: Array) -> dict[str, Array]:
    """Expected, average and maximum calibration error over the bins of the last axis.

    Args:
        counts: voxels in each bin, ``(..., bin)``.
        sum_pred: sum of the predicted probabilities in each bin, same shape.
        sum_true: sum of the labels in each bin, same shape.

    Returns:
        ``ECE``, ``ACE`` and ``MCE`` as of :func:`medcalib.functional.every_calibration_error`, each of shape ``(...)``
        and in [0, 1]; NaN where every bin is empty.

    Example:
        >>> errors = calibration_errors(np.array([3.0, 1.0]), np.array([0.6, 0.9]), np.array([0.0, 1.0]))
        >>> {name: round(float(value), 3) for name, value in errors.items()}
        {'ECE': 0.175, 'ACE': 0.15, 'MCE': 0.2}
    """
    statistics = BinStatistics(*(torch.as_tensor(array) for array in (counts, sum_pred, sum_true)))
    errors = every_calibration_error(statistics, ignore_empty=False)
    return {name.upper(): error.numpy() for name, error in errors.items()}


def mean_without_nan(values: Array, axis: int) -> Array:
    """Mean over the entries of ``axis`` that are not NaN; NaN, without a warning, where there is none.

    Args:
        values: any shape.
        axis: the axis that is averaged away.

    Returns:
        The means, of the shape of ``values`` without ``axis``.

    Example:
        >>> mean_without_nan(np.array([[1.0, np.nan], [2.0, np.nan]]), axis=0)
        array([1.5, nan])
    """
    known = (~np.isnan(values)).sum(axis=axis)
    return np.nansum(values, axis=axis) / np.where(known > 0, known, np.nan)


def accuracy_heatmap(counts: Array, sum_true: Array, num_accuracy_bins: int) -> NDArray[np.int64]:
    r"""How many cases have a given observed frequency in a given confidence bin.

    .. math::
        H_{c,a,k} = \#\{\text{case } i : n_{i,c,k} > 0,\ \bar y_{i,c,k} \in \text{accuracy bin } a\}

    The accuracy bins are those of :func:`medcalib.functional.bin_indices`, as the confidence bins are.

    Args:
        counts: voxels in each bin, ``(case, class, bin)``.
        sum_true: sum of the labels in each bin, same shape.
        num_accuracy_bins: number of accuracy bins over [0, 1].

    Returns:
        Counts of cases, ``(class, accuracy bin, confidence bin)``.

    Example:
        >>> accuracy_heatmap(np.array([[[4.0, 0.0]], [[4.0, 2.0]]]), np.array([[[1.0, 0.0]], [[0.0, 2.0]]]), 2)[0]
        array([[2, 0],
               [0, 1]])
    """
    _, num_classes, num_bins = counts.shape
    case, group, confidence_bin = np.nonzero(counts)
    frequency = sum_true[case, group, confidence_bin] / counts[case, group, confidence_bin]
    accuracy_bin = bin_indices(torch.from_numpy(frequency.clip(0, 1)), num_accuracy_bins).numpy()
    heatmap = np.zeros((num_classes, num_accuracy_bins, num_bins), dtype=np.int64)
    np.add.at(heatmap, (group, accuracy_bin, confidence_bin), 1)
    return heatmap
