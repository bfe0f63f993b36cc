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

from medcalib.keys import IGNORED

__all__ = [
    "Box",
    "ClassMask",
    "SurfaceDistances",
    "class_boxes",
    "class_masks",
    "joint_box",
    "surface_distances",
]

Box = tuple[slice, ...]


class ClassMask(NamedTuple):
    """Where ``volume`` equals ``label``."""

    volume: NDArray[np.integer]
    label: int

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
        y: one case. One channel of a single class is a binary mask, whose foreground has the label 1; in label maps of
            several classes `medcalib.keys.IGNORED` is none.
        num_classes: number of classes, the background included.

    Raises:
        ValueError: the number of channels is neither 1 nor that of the classes, or a value is no class.

    Example:
        >>> class_masks(torch.tensor([[0, 2, 2, 0]]), 3)[2].crop((slice(0, 3),))
        array([False,  True,  True])
    """
    if y.shape[0] not in (1, num_classes):
        raise ValueError(f"expected a label map or {num_classes} channels, got {y.shape[0]} channels.")
    if y.shape[0] == 1:
        first = 1 if num_classes == 1 else 0
        labels = _integers(y[0], first + num_classes, 0 if first else IGNORED)
        return [ClassMask(labels, first + index) for index in range(num_classes)]
    return [ClassMask(_integers(channel, 2), 1) for channel in y]


def class_boxes(masks: Sequence[ClassMask]) -> list[Box | None]:
    """The smallest box that holds each mask, None where it is nowhere.

    Example:
        >>> class_boxes(class_masks(torch.tensor([[0, 2, 2, 0]]), 3))
        [(slice(0, 4, None),), None, (slice(1, 3, None),)]
    """
    found: dict[int, list[Box | None]] = {}
    boxes = []
    for mask in masks:
        if id(mask.volume) not in found:
            found[id(mask.volume)] = find_objects(mask.volume + 1)
        of_labels = found[id(mask.volume)]
        boxes.append(of_labels[mask.label] if mask.label < len(of_labels) else None)
    return boxes


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
        boxes = class_boxes(predicted), class_boxes(true)
        found = [_of_class(*pair, spacing) for pair in zip(predicted, true, *boxes, strict=True)]
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
                digest.update(np.ascontiguousarray(volume).data)
    return digest.digest()


def _of_class(
    predicted: ClassMask, true: ClassMask, near: Box | None, there: Box | None, spacing: tuple[float, ...]
) -> SurfaceDistances:
    if near is None or there is None:
        of_one = [np.full(int(box is not None), np.inf, np.float32) for box in (near, there)]
        return SurfaceDistances(*of_one)
    box = joint_box(near, there)
    first, second = get_mask_edges(predicted.crop(box), true.crop(box))
    ways = (first, second), (second, first)
    return SurfaceDistances(*(np.asarray(get_surface_distance(*way, spacing=spacing)) for way in ways))


def _integers(volume: Tensor, stop: int, start: int = 0) -> NDArray[np.integer]:
    array = volume.as_subclass(torch.Tensor).cpu().numpy()
    with np.errstate(invalid="ignore"):
        # one more than the largest value is needed, too
        small = stop < 256 and not (start < 0 and (array < 0).any())
        labels: NDArray[np.integer] = array.astype(np.uint8 if small else np.int32)
    if labels.size and not ((labels == array).all() and labels.max() < stop and labels.min() >= start):
        raise ValueError(
            f"segmentations must hold whole numbers from 0 to {stop - 1}; label maps of more classes need num_classes."
        )
    return labels
