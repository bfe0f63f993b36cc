"""Segmentations grown by a distance in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from medcalib.functional.inputs import plain

__all__ = ["grown", "margin_losses"]

# a margin that is a multiple of the voxel size includes the voxel at its end
SLACK = 1e-6


def grown(segmentation: Tensor, margins: Sequence[float], spacing: Sequence[float]) -> Tensor:
    """Each class grown by a margin of its own; an empty class stays empty.

    Args:
        segmentation: whether a voxel is of a class, (C, ...), 0 or 1.
        margins: in mm, not negative, one for each class.
        spacing: size of a voxel along each axis, in mm.

    Returns:
        Whether the centre of a voxel is not further from that of a voxel of the class than the margin, (C, ...), bool.

    Raises:
        ValueError: the number of margins or of axes does not fit, or a margin is negative.

    Example:
        >>> grown(torch.tensor([[0, 1, 0, 0, 0, 0]]), [2.0], spacing=[1.0]).int()
        tensor([[1, 1, 1, 1, 0, 0]], dtype=torch.int32)
    """
    _check(segmentation, spacing)
    if len(margins) != len(segmentation) or any(not margin >= 0 for margin in margins):
        raise ValueError(f"margins must be one for each of {len(segmentation)} classes, not negative, got {margins}.")
    result = np.zeros(tuple(segmentation.shape), dtype=bool)
    for own, one, margin in zip(result, _arrays(segmentation), margins, strict=True):
        box = _box(one, [int(margin / size) + 1 for size in spacing])
        if box is not None:
            own[box] = _distances(one[box], spacing) <= margin + SLACK
    return torch.from_numpy(result).to(segmentation.device)


def margin_losses(
    segmentation: Tensor, target: Tensor, margins: Tensor, spacing: Sequence[float], mask: Tensor | None = None
) -> Tensor:
    """How much of each class a segmentation misses when it is grown by each of several margins.

    Args:
        segmentation: whether a voxel is predicted to be of a class, (C, ...), 0 or 1.
        target: whether it is, (C, ...), 0 or 1.
        margins: in mm, ascending (T,).
        spacing: size of a voxel along each axis, in mm.
        mask: (1, ...); voxels where it is zero do not count.

    Returns:
        Share of the class's voxels that are missed, (C, T), float64 on the CPU, never rising from left to right; 1 for
        a class that is not segmented at all, NaN for one that the case does not have.

    Raises:
        ValueError: shapes do not fit or margins do not ascend.

    Example:
        >>> segmentation, target = torch.tensor([[0, 1, 0, 0, 0]]), torch.tensor([[0, 1, 1, 1, 0]])
        >>> margin_losses(segmentation, target, torch.tensor([0.0, 1.0, 2.0]), spacing=[1.0])
        tensor([[0.6667, 0.3333, 0.0000]], dtype=torch.float64)
    """
    _check(segmentation, spacing)
    if segmentation.shape != target.shape or (mask is not None and mask.shape != (1, *target.shape[1:])):
        raise ValueError(
            f"segmentation {tuple(segmentation.shape)}, target {tuple(target.shape)} and mask do not fit together."
        )
    if margins.ndim != 1 or not bool((margins.diff() > 0).all()):
        raise ValueError("margins must ascend in one dimension.")
    limits = margins.double().cpu().numpy() + SLACK
    counts = True if mask is None else _arrays(mask)[0]
    losses = np.full((len(segmentation), len(limits)), math.nan)
    for own, one, true in zip(losses, _arrays(segmentation), _arrays(target), strict=True):
        true = true & counts
        if not true.any():
            continue
        own[:] = 1.0
        if one.any():
            box = _box(one | true, [0] * one.ndim)
            distances = np.sort(_distances(one[box], spacing)[true[box]])
            own[:] = 1 - np.searchsorted(distances, limits, side="right") / len(distances)
    return torch.from_numpy(losses)


def _check(segmentation: Tensor, spacing: Sequence[float]) -> None:
    if len(spacing) != segmentation.ndim - 1 or any(not size > 0 for size in spacing):
        raise ValueError(f"spacing {tuple(spacing)} does not fit a segmentation {tuple(segmentation.shape)}.")


def _arrays(tensor: Tensor) -> NDArray[np.bool_]:
    array: NDArray[np.bool_] = (plain(tensor).cpu() != 0).numpy()
    return array


def _distances(segmented: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = distance_transform_edt(~segmented, sampling=tuple(spacing))
    return distances


def _box(there: NDArray[np.bool_], around: Sequence[int]) -> tuple[slice, ...] | None:
    """The box that holds all voxels that are there, and so many more on each side; None if there are none."""
    if not there.any():
        return None
    box = []
    for axis, more in enumerate(around):
        places = np.flatnonzero(there.any(axis=tuple(other for other in range(there.ndim) if other != axis)))
        box.append(slice(max(int(places[0]) - more, 0), int(places[-1]) + more + 1))
    return tuple(box)
