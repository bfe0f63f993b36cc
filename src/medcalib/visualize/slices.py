"""Which slice of a case is worth a figure, and how it lies on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import ArrayLike, NDArray

__all__ = ["CaseSlice", "case_slice"]

Array = NDArray[Any]

PLANES = ("sagittal", "coronal", "axial")
SIDES = (("L", "R"), ("P", "A"), ("I", "S"))


class CaseSlice(NamedTuple):
    """A slice of a case, all arrays over (right, up).

    Attributes:
        image: grey levels, or colours on a last axis of length 3.
        prediction: label map.
        uncertainty: not negative or NaN.
        label: ground truth, or None.
        spacing: size of a pixel in mm, to the right and upwards.
        name: of the slice, empty for an image of two axes.
        sides: letters of the patient's sides at the left, right, lower and upper border, or None where unknown.
        inner: voxels that are of a class for sure, (class, right, up), or None.
        outer: voxels that may be of a class, (class, right, up), or None.
    """

    image: Array
    prediction: Array
    uncertainty: Array
    label: Array | None
    spacing: tuple[float, float]
    name: str
    sides: tuple[str, str, str, str] | None
    inner: Array | None = None
    outer: Array | None = None


def case_slice(
    image: ArrayLike,
    prediction: ArrayLike,
    uncertainty: ArrayLike,
    label: ArrayLike | None = None,
    *,
    affine: ArrayLike | None = None,
    spacing: Sequence[float] | None = None,
    axis: int | None = None,
    channel: int = 0,
    rgb: bool = False,
    inner: ArrayLike | None = None,
    outer: ArrayLike | None = None,
) -> CaseSlice:
    """The slice of a volume with the most foreground, or an image as it is.

    What counts is the foreground of the ground truth; without any that of the prediction; without any the sum of the
    uncertainty; without any the middle.

    Args:
        image: (C, ...) with two or three spatial axes.
        prediction: label map, (...) or (1, ...).
        uncertainty: same shape as ``prediction``.
        label: ground truth, label map of the same shape.
        affine: from voxels to millimetres, (4, 4); turns a volume so that its axes point to the right, the front and
            the top of the patient, and gives the spacing. Of an image with two axes only the spacing is used.
        spacing: voxel size in mm along each axis, where there is no ``affine``; 1 without either.
        axis: the axis across which a volume is cut, after it was turned; by default the one with the coarsest spacing,
            the last of equal ones.
        channel: which channel of the image is taken.
        rgb: whether the three channels of an image of two axes are colours, which are taken together.
        inner: voxels that are of a class for sure, (class, ...).
        outer: voxels that may be of a class, (class, ...).

    Returns:
        The slice.

    Raises:
        ValueError: If shapes or options do not fit each other.

    Example:
        >>> prediction = np.zeros((8, 9, 5), dtype=int)
        >>> prediction[2:5, 3:6, 3] = 1
        >>> cut = case_slice(np.zeros((1, 8, 9, 5)), prediction, prediction * 0.3, affine=np.diag([1, 1, 3, 1]))
        >>> cut.name, cut.image.shape, cut.sides
        ('axial slice 4 of 5', (8, 9), ('L', 'R', 'P', 'A'))
    """
    image = np.asarray(image)
    axes = image.ndim - 1
    if axes not in (2, 3):
        raise ValueError(f"image must have shape (C, ...) with two or three spatial axes, got {image.shape}.")
    if rgb and (axes, image.shape[0]) != (2, 3):
        raise ValueError(f"colours need an image of shape (3, ...) with two spatial axes, got {image.shape}.")
    if not 0 <= channel < image.shape[0]:
        raise ValueError(f"channel must lie between 0 and {image.shape[0] - 1}, got {channel}.")
    if affine is not None and spacing is not None:
        raise ValueError("affine and spacing exclude each other: the affine gives the spacing.")

    volumes: list[Any] = [np.moveaxis(image, 0, -1) if rgb else image[channel]]
    for name, given in (("prediction", prediction), ("uncertainty", uncertainty), ("label", label)):
        volumes.append(None if given is None else _without_channel(np.asarray(given), name, image.shape[1:]))
    sets = {}
    for name, given in (("inner", inner), ("outer", outer)):
        if given is not None:
            sets[name] = np.asarray(given).astype(bool)
            if sets[name].shape[1:] != image.shape[1:]:
                raise ValueError(
                    f"{name} must have the shape (class, ...) with {image.shape[1:]} of the image, got "
                    f"{sets[name].shape}."
                )
    sizes = np.ones(axes) if spacing is None else np.asarray(spacing, dtype=float)
    if affine is not None:
        affine = np.asarray(affine, dtype=float)
        sizes = voxel_sizes(affine)[:axes]
        if axes == 3:
            orientation = io_orientation(affine)
            volumes = [None if volume is None else apply_orientation(volume, orientation) for volume in volumes]
            sets = {
                name: np.stack([apply_orientation(one, orientation) for one in channels])
                for name, channels in sets.items()
            }
            sizes = sizes[np.argsort(orientation[:, 0])]
    if sizes.shape != (axes,) or not ((sizes > 0) & np.isfinite(sizes)).all():
        raise ValueError(f"spacing must hold {axes} voxel sizes above 0 mm, got {sizes.tolist()}.")
    picture, predicted, unsure, true = volumes
    if axes == 2:
        pixel = (float(sizes[0]), float(sizes[1]))
        return CaseSlice(picture, predicted, unsure, true, pixel, "", None, **sets)

    if axis is None:
        axis = int(np.flatnonzero(sizes >= 0.99 * sizes.max())[-1])
    if axis not in (0, 1, 2):
        raise ValueError(f"axis must be 0, 1 or 2, got {axis}.")
    right, up = others = tuple(other for other in range(3) if other != axis)
    place = predicted.shape[axis] // 2
    # voxels of unknown truth are below 0
    shown = None if true is None else true > 0
    for volume, amount in ((shown, np.count_nonzero), (predicted, np.count_nonzero), (unsure, np.nansum)):
        sums = None if volume is None else amount(volume, axis=others)
        if sums is not None and sums.any():
            place = int(sums.argmax())
            break
    name = f"slice {place + 1} of {predicted.shape[axis]}"
    name = name if affine is None else f"{PLANES[axis]} {name}"
    picture, predicted, unsure = (volume.take(place, axis) for volume in (picture, predicted, unsure))
    true = None if true is None else true.take(place, axis)
    pixel = (float(sizes[right]), float(sizes[up]))
    sides = None if affine is None else (*SIDES[right], *SIDES[up])
    sets = {key: volume.take(place, axis + 1) for key, volume in sets.items()}
    return CaseSlice(picture, predicted, unsure, true, pixel, name, sides, **sets)


def _without_channel(volume: Array, name: str, shape: tuple[int, ...]) -> Array:
    if volume.shape == (1, *shape):
        volume = volume[0]
    if volume.shape != shape:
        raise ValueError(f"{name} must have the shape {shape} of the image, got {volume.shape}.")
    return volume
