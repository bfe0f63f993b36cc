"""From an uncertainty map to one number for a case."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional.inputs import plain
from medcalib.functional.slabs import slabs

__all__ = ["above_threshold_mean", "foreground_mean", "image_mean", "mean_foreground_confidence", "patch_maximum"]

# voxels that are chosen at a time
_VOXELS = 1 << 18


def _check_map(values: Tensor, **others: Tensor | None) -> Tensor:
    if values.ndim < 1 or values.shape[0] != 1 or not values.is_floating_point():
        raise ValueError(
            f"uncertainty must be a floating-point map of one case, shape (1, ...), got {values.dtype} of shape "
            f"{tuple(values.shape)}."
        )
    for name, other in others.items():
        if other is not None and other.shape != values.shape:
            raise ValueError(f"{name} must have shape {tuple(values.shape)} to fit, got {tuple(other.shape)}.")
    return plain(values)


def _mean(values: Tensor) -> Tensor:
    return values.mean(dtype=torch.float64)


def _foreground(seg: Tensor, mask: Tensor | None) -> Tensor:
    foreground = plain(seg) != 0
    return foreground if mask is None else foreground & (plain(mask) != 0)


def _chosen(values: Tensor, where: Tensor) -> Tensor:
    """Those of the values of a map, in order, that another map chooses."""
    # few at a time, since torch lists the place of every chosen voxel, which takes eight times the memory of a map
    chosen = values.new_empty(int(where.count_nonzero()))
    begin = 0
    for part in slabs(values, _VOXELS):
        found = values[part][where[part]]
        chosen[begin : begin + len(found)] = found
        begin += len(found)
    return chosen


def image_mean(uncertainty: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean uncertainty of all voxels.

    Args:
        uncertainty: map of one case (1, ...).
        mask: optional region of interest (1, ...); voxels where it is zero do not count.

    Returns:
        A scalar, float64, in the unit of the map; NaN where no voxel counts or one that does is NaN.

    Raises:
        ValueError: If shapes do not fit, or the map is not floating point.

    Example:
        >>> import torch
        >>> image_mean(torch.tensor([[0.0, 0.5, 1.0]])).item()
        0.5
    """
    values = _check_map(uncertainty, mask=mask)
    return _mean(values if mask is None else _chosen(values, plain(mask) != 0))


def foreground_mean(uncertainty: Tensor, seg: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean uncertainty of the predicted foreground.

    Args:
        uncertainty: map of one case (1, ...).
        seg: predicted segmentation (1, ...); all that is not 0 is foreground.
        mask: optional region of interest (1, ...); voxels where it is zero do not count.

    Returns:
        A scalar, float64, in the unit of the map; NaN without foreground, or where it holds NaN.

    Raises:
        ValueError: If shapes do not fit, or the map is not floating point.

    Example:
        >>> import torch
        >>> foreground_mean(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0, 1, 2]])).item()
        0.75
    """
    values = _check_map(uncertainty, seg=seg, mask=mask)
    return _mean(_chosen(values, _foreground(seg, mask)))


def patch_maximum(uncertainty: Tensor, patch_size: int = 10, mask: Tensor | None = None) -> Tensor:
    """Mean uncertainty of the box in which it is largest, the published box sum divided by the box's volume.

    Boxes lie wholly within the map (https://arxiv.org/abs/2401.08501).

    Args:
        uncertainty: map of one case (1, ...).
        patch_size: edge of the box in voxels; along shorter axes of the map it is as long as the axis.
        mask: optional region of interest (1, ...); voxels where it is zero count as certain, so that few voxels at its
            rim do not make a large mean.

    Returns:
        A scalar, float64, in the unit of the map; NaN if a voxel that counts is NaN.

    Raises:
        ValueError: If shapes do not fit, if the map is empty or not floating point, or if ``patch_size < 1``.

    Example:
        >>> import torch
        >>> patch_maximum(torch.tensor([[0.0, 0.0, 1.0, 0.5]]), patch_size=2).item()
        0.75
    """
    values = _check_map(uncertainty, mask=mask)
    if patch_size < 1 or not values.numel():
        raise ValueError(
            f"patch_size must be at least 1 and the map not empty, got {patch_size} and a map of shape "
            f"{tuple(values.shape)}."
        )
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if mask is not None:
        values = values.where(plain(mask) != 0, 0)
    # The mean of a box is the mean along one axis of means along another, at a cost that grows with the edge alone.
    for axis in range(1, values.ndim):
        values = values.unfold(axis, min(patch_size, values.shape[axis]), 1).mean(-1)
    return values.amax().double()


def above_threshold_mean(uncertainty: Tensor, foreground_fraction: float, mask: Tensor | None = None) -> Tensor:
    """Mean of the most uncertain voxels, as many as are expected to be foreground.

    The number of voxels is the fraction of all that count, rounded, at least one: those above the quantile
    1 - ``foreground_fraction``, where ties at the quantile are taken as often as the number asks for. The published
    variant (https://arxiv.org/abs/2401.08501) fixes the threshold for all cases, at the quantile of their pooled maps;
    here each case has its own, so that one case can be scored alone.

    Args:
        uncertainty: map of one case (1, ...).
        foreground_fraction: fraction of foreground in the prediction, of this case or on average over cases, in
            [0, 1].
        mask: optional region of interest (1, ...); voxels where it is zero do not count.

    Returns:
        A scalar, float64, in the unit of the map; NaN if the fraction is 0, if no voxel counts or one that does is NaN.

    Raises:
        ValueError: If shapes do not fit, if the map is not floating point, or if the fraction is outside [0, 1].

    Example:
        >>> import torch
        >>> above_threshold_mean(torch.tensor([[0.0, 0.25, 1.0, 0.5]]), foreground_fraction=0.5).item()
        0.75
    """
    values = _check_map(uncertainty, mask=mask)
    if not 0 <= foreground_fraction <= 1:
        raise ValueError(f"foreground_fraction must lie in [0, 1], got {foreground_fraction}.")
    values = values.reshape(-1) if mask is None else _chosen(values, plain(mask) != 0)
    count = max(round(float(foreground_fraction) * values.numel()), min(values.numel(), 1))
    if not foreground_fraction or not count:
        return values.new_full((), torch.nan, dtype=torch.float64)
    # torch.quantile refuses volumes above 2^24 voxels.
    return _mean(values.topk(count, sorted=False).values)


def mean_foreground_confidence(probs: Tensor, seg: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the predicted foreground of the largest probability, a simple baseline (https://arxiv.org/abs/2406.03323).

    Args:
        probs: probabilities of one case (C, ...).
        seg: predicted segmentation (1, ...); all that is not 0 is foreground.
        mask: optional region of interest (1, ...); voxels where it is zero do not count.

    Returns:
        A scalar, float64, in [0, 1]; higher means more certain. NaN without foreground, or where it holds NaN.

    Raises:
        ValueError: If shapes do not fit, or ``probs`` is not floating point.

    Example:
        >>> import torch
        >>> probs = torch.tensor([[0.75, 0.25, 0.0], [0.25, 0.75, 1.0]])
        >>> mean_foreground_confidence(probs, torch.tensor([[0, 1, 1]])).item()
        0.875
    """
    if probs.ndim < 1 or not probs.shape[0] or not probs.is_floating_point():
        raise ValueError(
            f"probs must be floating-point probabilities of one case, shape (C, ...), got {probs.dtype} of shape "
            f"{tuple(probs.shape)}."
        )
    confidence = _check_map(plain(probs).amax(0, keepdim=True), seg=seg, mask=mask)
    return _mean(_chosen(confidence, _foreground(seg, mask)))
