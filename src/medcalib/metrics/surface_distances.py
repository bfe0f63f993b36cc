"""Distances between the surfaces of two segmentations of a case, found once for all metrics that need them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics.utils import get_mask_edges, get_surface_distance
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

__all__ = ["ClassMask", "SurfaceDistances", "class_masks", "joint_box", "surface_distances"]

Box = tuple[slice, ...]


class ClassMask(NamedTuple):
    """Where ``volume`` equals ``label``; ``box`` is the smallest that holds it, None where it never does."""

    volume: NDArray[np.integer]
    label: int
    box: Box | None

    def crop(self, box: Box) -> NDArray[np.bool_]:
        """The mask inside of a box."""
        return self.volume[box] == self.label


class SurfaceDistances(NamedTuple):
    """Distances in mm, float32, from each voxel of a surface to the nearest one of the other.

    Attributes:
        there: from the predicted surface to the true one; empty without prediction, infinite without truth.
        back: from the true surface to the predicted one; likewise.

    Example:
        >>> SurfaceDistances(np.zeros(3, np.float32), np.zeros(0, np.float32)).both
        False
    """

    there: NDArray[np.float32]
    back: NDArray[np.float32]

    @property
    def both(self) -> bool:
        """Whether both surfaces are there."""
        return self.there.size > 0 and self.back.size > 0


def class_masks(y: Tensor, num_classes: int) -> list[ClassMask]:
    """A mask for each class of a label map (1, ...) or of binary channels (C, ...).

    Args:
        y: one case. One channel of a single class is a binary mask, whose foreground has the label 1.
        num_classes: number of classes, the background included.

    Raises:
        ValueError: the number of channels is neither 1 nor that of the classes, or a value is no class.

    Example:
        >>> [mask.box for mask in class_masks(torch.tensor([[0, 2, 2, 0]]), 3)]
        [(slice(0, 4, None),), None, (slice(1, 3, None),)]
    """
    if y.shape[0] not in (1, num_classes):
        raise ValueError(f"expected a label map or {num_classes} channels, got {y.shape[0]} channels.")
    if y.shape[0] == 1:
        first = 1 if num_classes == 1 else 0
        labels = _integers(y[0], first + num_classes)
        boxes = find_objects(labels + (1 - first), max_label=num_classes)
        return [ClassMask(labels, first + index, box) for index, box in enumerate(boxes)]
    channels = [_integers(channel, 2) for channel in y]
    return [ClassMask(channel, 1, find_objects(channel, max_label=1)[0]) for channel in channels]


def joint_box(first: Box, second: Box) -> Box:
    """The smallest box that holds two boxes."""
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def surface_distances(
    predicted: Sequence[ClassMask], true: Sequence[ClassMask], spacing: tuple[float, ...]
) -> list[SurfaceDistances]:
    """Distances between the surfaces of the classes of a case.

    A surface is made of the voxels of a class that touch another one or the border of the volume. Those of the case
    that was asked for last are kept, so that several metrics of the same case share them.

    Args:
        predicted: of each class, of one volume or each of its own.
        true: likewise.
        spacing: voxel size in mm along each axis.

    Returns:
        The distances of each class.

    Example:
        >>> one, other = class_masks(torch.tensor([[1, 0, 0]]), 1), class_masks(torch.tensor([[0, 0, 1]]), 1)
        >>> surface_distances(one, other, (0.5,))[0].there
        array([1.], dtype=float32)
    """
    key = _key(predicted, true, spacing)
    if key not in _LAST:
        found = [_of_class(*pair, spacing) for pair in zip(predicted, true, strict=True)]
        _LAST.clear()
        _LAST[key] = found
    return _LAST[key]


# of one case, by what decides them
_LAST: dict[bytes, list[SurfaceDistances]] = {}


def _key(predicted: Sequence[ClassMask], true: Sequence[ClassMask], spacing: tuple[float, ...]) -> bytes:
    digest = hashlib.blake2b(repr(spacing).encode(), digest_size=32)
    for masks in (predicted, true):
        volume = None
        for mask in masks:
            digest.update(repr((mask.label, mask.volume.shape, mask.volume.dtype.str)).encode())
            if mask.volume is not volume:
                volume = mask.volume
                digest.update(np.ascontiguousarray(volume))
    return digest.digest()


def _of_class(predicted: ClassMask, true: ClassMask, spacing: tuple[float, ...]) -> SurfaceDistances:
    if predicted.box is None or true.box is None:
        of_one = [np.full(int(mask.box is not None), np.inf, np.float32) for mask in (predicted, true)]
        return SurfaceDistances(*of_one)
    box = joint_box(predicted.box, true.box)
    first, second = get_mask_edges(predicted.crop(box), true.crop(box))
    return SurfaceDistances(
        get_surface_distance(first, second, spacing=spacing), get_surface_distance(second, first, spacing=spacing)
    )


def _integers(volume: Tensor, stop: int) -> NDArray[np.integer]:
    array = volume.as_subclass(torch.Tensor).cpu().numpy()
    with np.errstate(invalid="ignore"):
        # one more than the largest value is needed, too
        labels = array.astype(np.uint8 if stop < 256 else np.int32)
    if labels.size and not ((labels == array).all() and labels.max() < stop and labels.min() >= 0):
        raise ValueError(
            f"segmentations must hold whole numbers from 0 to {stop - 1}; label maps of more classes need num_classes."
        )
    return labels
