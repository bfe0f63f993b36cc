"""What images of a dataset have in common, and in what a new image is unlike them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import ArrayLike

__all__ = ["grid_traits", "image_traits", "ranges_of_traits", "unlike_others"]

_PERCENTILES = (1, 50, 99)
_MOST_VALUES = 1_000_000
_FACTOR = 2.0
_MARGIN = 0.25
_AXES = ("left-right", "back-front", "foot-head")


def image_traits(image: ArrayLike, affine: ArrayLike | None = None) -> dict[str, list]:
    """Size, spacing and intensities of an image, as its file holds them.

    Args:
        image: (C, ...).
        affine: from voxel to position in mm; axes are put into the order left-right, back-front, foot-head then. None
            of pictures, whose spacing is 1.

    Returns:
        ``size`` in voxels and ``spacing`` in mm by axis; ``intensity``, the percentiles 1, 50 and 99 of each channel,
        of large images those of evenly spaced voxels.

    Example:
        >>> image_traits(np.arange(101.0).reshape(1, 101, 1))
        {'size': [101, 1], 'spacing': [1.0, 1.0], 'intensity': [[1.0, 50.0, 99.0]]}
    """
    values = np.asarray(image)
    flat = values.reshape(len(values), -1)
    flat = flat[:, :: max(1, flat.shape[1] // _MOST_VALUES)]
    intensity = np.percentile(flat, _PERCENTILES, axis=1).T.astype(float).tolist()
    return {**grid_traits(values.shape[1:], affine), "intensity": intensity}


def grid_traits(shape: Sequence[int], affine: ArrayLike | None = None) -> dict[str, list]:
    """Size and spacing of an image, which need nothing but its header.

    Args:
        shape: number of voxels along each spatial axis.
        affine: as of `image_traits`.

    Returns:
        ``size`` and ``spacing`` of `image_traits`.

    Example:
        >>> grid_traits((4, 5, 6), np.diag([1.0, 2, 3, 1])[[1, 0, 2, 3]])
        {'size': [5, 4, 6], 'spacing': [2.0, 1.0, 3.0]}
    """
    size, spacing = list(shape), [1.0] * len(shape)
    if affine is not None and len(size) == 3:
        matrix = np.asarray(affine, dtype=float)
        order = nib.io_orientation(matrix)[:, 0]
        if not np.isnan(order).any():
            axes = np.argsort(order)
            size = [size[axis] for axis in axes]
            spacing = [float(voxel_sizes(matrix)[axis]) for axis in axes]
    return {"size": [int(number) for number in size], "spacing": spacing}


def ranges_of_traits(traits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Smallest and largest value of every trait over images that have the same number of axes and channels.

    Args:
        traits: each as of `image_traits`, of some as of `grid_traits`; at least one of the former.

    Returns:
        ``num_images``, of how many the intensities are known, and, in the shape of each trait, ``[smallest, largest]``.

    Example:
        >>> images = [np.full((1, 4, 2), 3.0), np.full((1, 4, 6), 5.0)]
        >>> ranges_of_traits([image_traits(image) for image in images])["size"]
        [[4, 4], [2, 6]]
    """
    ranges: dict[str, Any] = {"num_images": sum("intensity" in one for one in traits)}
    for name in ("size", "spacing", "intensity"):
        values = np.array([one[name] for one in traits if name in one])
        ranges[name] = np.stack([values.min(0), values.max(0)], axis=-1).tolist()
    return ranges


def unlike_others(traits: Mapping[str, Any], ranges: Mapping[str, Any], channel_names: Sequence[str]) -> list[str]:
    """In what an image is far from others, in words.

    A spacing or a size is far if it is less than half the smallest or more than twice the largest along an axis. A
    percentile of the intensities is far if it lies outside the range of the others by more than a quarter of the range
    of all their intensities, from the smallest percentile 1 to the largest percentile 99.

    Args:
        traits: as of `image_traits`.
        ranges: as of `ranges_of_traits`.
        channel_names: one name for each channel.

    Returns:
        Parts of a sentence, none if the image is like the others.

    Example:
        >>> others = ranges_of_traits([image_traits(np.arange(100.0).reshape(1, 10, 10))])
        >>> unlike_others(image_traits(np.arange(500.0).reshape(1, 50, 10)), others, ["CT"])
        ['size 50 along axis 0 (training 10 to 10)', 'intensities of CT 4.99 to 494 (training 0.99 to 98)']
    """
    return [*_far_axes(traits, ranges), *_far_channels(traits, ranges, channel_names)]


def _far_axes(traits: Mapping[str, Any], ranges: Mapping[str, Any]) -> Iterator[str]:
    if len(traits["size"]) != len(ranges["size"]):
        return
    for name, unit in (("spacing", " mm"), ("size", "")):
        for axis, (value, (low, high)) in enumerate(zip(traits[name], ranges[name], strict=True)):
            if not low / _FACTOR <= value <= high * _FACTOR:
                along = _AXES[axis] if len(ranges[name]) == 3 else f"along axis {axis}"
                yield f"{name} {value:.3g}{unit} {along} (training {low:.3g} to {high:.3g})"


def _far_channels(traits: Mapping[str, Any], ranges: Mapping[str, Any], channel_names: Sequence[str]) -> Iterator[str]:
    for name, own, known in zip(channel_names, traits["intensity"], ranges["intensity"], strict=False):
        lowest, highest = known[0][0], known[-1][1]
        margin = _MARGIN * (highest - lowest)
        if any(not low - margin <= value <= high + margin for value, (low, high) in zip(own, known, strict=True)):
            yield f"intensities of {name} {own[0]:.3g} to {own[-1]:.3g} (training {lowest:.3g} to {highest:.3g})"
