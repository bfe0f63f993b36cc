"""The voxels close to a boundary between labels, where segmentations are uncertain and calibration matters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from medcalib.metrics.spacing import spacings

__all__ = ["boundary_band", "mask_band"]

# Voxels of a slab in which distances are found at a time.
_SLAB = 1 << 22


def boundary_band(y: Tensor, width: float, spacing: Sequence[float] | None = None) -> Tensor:
    r"""Voxels within a given distance of a voxel with another label.

    .. math::
        \{ x : \min_{x' : y(x') \ne y(x)} \lVert x - x' \rVert \le \text{width} \}

    Distances are between voxel centres. Calibration errors of a whole volume shrink as its empty surroundings grow;
    those of the band do not.

    Args:
        y: label map (B, 1, ...), or overlapping binary channels (B, C, ...), for which the bands of all channels are
            united; 1 to 3 spatial axes.
        width: largest distance in mm, on both sides of a boundary.
        spacing: voxel size in mm along each spatial axis; taken from ``y`` when it is a ``MetaTensor``.

    Returns:
        Booleans (B, 1, ...), on the device of ``y``; nowhere true for a volume with a single label.

    Raises:
        ValueError: If ``width`` is not above 0, or ``spacing`` is unknown, has the wrong length or is not above 0.

    Example:
        >>> import torch
        >>> y = torch.tensor([[[0, 0, 0, 0, 1, 1]]])
        >>> boundary_band(y, width=2.0, spacing=[1.0]).int()
        tensor([[[0, 0, 1, 1, 1, 1]]], dtype=torch.int32)
    """
    if not width > 0:
        raise ValueError(f"width of a boundary band must be above 0 mm, got {width}.")
    sizes = spacings(y, spacing)
    volumes = y.detach().as_subclass(torch.Tensor).cpu()
    if volumes.shape[1] > 1:
        volumes = volumes >= 0.5
    volumes = volumes.numpy().astype(np.int64)
    band = np.zeros((volumes.shape[0], 1, *volumes.shape[2:]), dtype=bool)
    for case in range(volumes.shape[0]):
        for channel in volumes[case]:
            band[case, 0] |= _band(channel, width, sizes[case])
    return torch.from_numpy(band).to(y.device)


def mask_band(
    mask: NDArray[np.bool_], width: float, spacing: Sequence[float]
) -> tuple[tuple[slice, ...], NDArray[np.bool_]] | None:
    """Voxels of a binary volume within a given distance of a voxel on the other side of its boundary.

    Args:
        mask: the volume; 1 to 3 axes.
        width: largest distance in mm between the centres of voxels; infinite for all voxels.
        spacing: voxel size in mm along each axis.

    Returns:
        A box that holds them all, and which of its voxels they are; None where the volume has no boundary.

    Example:
        >>> box, band = mask_band(np.array([0, 0, 0, 0, 1, 1, 1, 1]) > 0, 1.0, [1.0])
        >>> box, band
        ((slice(1, 7, None),), array([False, False,  True,  True, False, False]))
    """
    near = _surroundings(mask, width, spacing)
    if near is None:
        return None
    crop = mask[near]
    if np.isinf(width):
        return near, np.ones(crop.shape, dtype=bool)
    band = np.zeros(crop.shape, dtype=bool)
    for inside, (box,) in ((crop, find_objects(crop.view(np.uint8))), (~crop, find_objects((~crop).view(np.uint8)))):
        wider = _one_more(box)
        band[wider] |= _near_others(inside[wider], width, spacing)
    return near, band


def _band(labels: NDArray, width: float, spacing: Sequence[float]) -> NDArray[np.bool_]:
    band = np.zeros(labels.shape, dtype=bool)
    near = _surroundings(labels, width, spacing)
    if near is None:
        return band
    crop = labels[near]
    # Labels from 1 up without gaps; a band of labels is small, so sorting it costs little.
    numbers = np.unique(crop, return_inverse=True)[1].reshape(crop.shape) + 1
    for number, box in enumerate(find_objects(numbers), start=1):
        wider = _one_more(box)
        band[near][wider] |= _near_others(numbers[wider] == number, width, spacing)
    return band


def _one_more(box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The box and one voxel around it, which the nearest voxel outside of what the box holds touches."""
    return tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)


def _near_others(inside: NDArray[np.bool_], width: float, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """Which voxels of a mask lie within ``width`` of one outside of it, found slab by slab along the first axis."""
    near = np.zeros(inside.shape, dtype=bool)
    # What is nearer than that along the first axis alone is in the slab and its margins.
    margin = int(min(width / spacing[0], inside.shape[0])) + 1
    rows = max(margin, _SLAB // max(1, inside[0].size))
    for start in range(0, inside.shape[0], rows):
        stop = min(start + rows, inside.shape[0])
        low = max(start - margin, 0)
        slab = inside[low : stop + margin]
        if slab.all() or not slab.any():
            continue
        distance = distance_transform_edt(slab, sampling=spacing)[start - low : stop - low]
        # Slack for rounding: a width that is a multiple of the voxel size includes its end.
        near[start:stop] = inside[start:stop] & (distance <= width * (1 + 1e-9))
    return near


def _surroundings(labels: NDArray, width: float, spacing: Sequence[float]) -> tuple[slice, ...] | None:
    """The box that holds every voxel within ``width`` of a change of label; None where no label changes."""
    changes = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        lower = tuple(slice(None, -1) if other == axis else slice(None) for other in range(labels.ndim))
        upper = tuple(slice(1, None) if other == axis else slice(None) for other in range(labels.ndim))
        differs = labels[lower] != labels[upper]
        changes[lower] |= differs
        changes[upper] |= differs
    if not changes.any():
        return None
    box = []
    for axis, size in enumerate(spacing):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        places = np.flatnonzero(changes.any(axis=others))
        margin = int(min(width / size, labels.shape[axis])) + 1
        box.append(slice(max(int(places[0]) - margin, 0), int(places[-1]) + margin + 1))
    return tuple(box)
