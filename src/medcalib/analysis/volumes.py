"""Volumes in files: read as they are stored, compared, and written in the geometry of another."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from torch import Tensor

from medcalib.errors import UserError, plain_reason

__all__ = ["Geometry", "Volume", "check_same_geometry", "read_volume", "write_channels"]

# As far as this may corners of two grids lie apart, in voxels.
AFFINE_TOLERANCE = 0.1


class Geometry(NamedTuple):
    """The grid on which the voxels of a file lie.

    Attributes:
        path: the file.
        shape: number of voxels along each of the three axes.
        header: its NIfTI header.
        affine: from voxel to position in mm, (4, 4).
    """

    path: Path
    shape: tuple[int, ...]
    header: nib.Nifti1Header
    affine: NDArray[np.float64]


class Volume(NamedTuple):
    """A file that was read.

    Attributes:
        array: float32 (X, Y, Z), or (X, Y, Z, channel) if the file has a further axis.
        geometry: its grid.
    """

    array: NDArray[np.float32]
    geometry: Geometry


def read_volume(path: Path, case: str) -> Volume:
    """Read a NIfTI file.

    A vector per voxel, as ITK writes it (X, Y, Z, 1, channel), loses its fourth axis.

    Args:
        path: the file.
        case: the case, for messages.

    Raises:
        UserError: naming case and file: it cannot be read, has not three or four axes, or holds NaN or Inf.
    """
    try:
        image = nib.load(path)
        array = np.asarray(image.dataobj, dtype=np.float32)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"Case {case}: {path} cannot be read ({plain_reason(error)}); it may be damaged or cut short, so write it "
            f"again."
        ) from None
    if array.ndim == 5 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.ndim not in (3, 4):
        raise UserError(
            f"Case {case}: {path} has {array.ndim} axes, but a volume has three, and one more for classes; write a "
            f"slice as a volume of one slice."
        )
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise UserError(f"Case {case}: {path} holds {wrong} NaN or Inf value(s); repair it or leave out this case.")
    return Volume(array, Geometry(path, array.shape[:3], image.header, image.affine))


def check_same_geometry(one: Geometry, other: Geometry, case: str) -> None:
    """Check that two files have the same grid.

    Raises:
        UserError: naming case and files: shapes differ, or a corner lies more than a tenth of a voxel off.
    """
    if one.shape != other.shape:
        raise UserError(
            f"Case {case}: {one.path} has the shape {one.shape}, but {other.path} has {other.shape}; resample one of "
            f"them to the grid of the other."
        )
    corners = np.ones((4, 8))
    corners[:3] = [axis.ravel() for axis in np.meshgrid(*([0, size - 1] for size in one.shape))]
    try:
        moved = np.linalg.solve(one.affine, other.affine @ corners)
    except np.linalg.LinAlgError:
        raise UserError(f"Case {case}: {one.path} has an affine that cannot be inverted; write it again.") from None
    distance = np.abs(moved - corners).max()
    if distance > AFFINE_TOLERANCE:
        raise UserError(
            f"Case {case}: the affines of {one.path} and {other.path} differ, by {distance:.2g} voxels at a corner; "
            f"they must lie at the same place."
        )


def write_channels(path: Path, channels: Tensor, geometry: Geometry) -> None:
    """Write channels (C, X, Y, Z) as float32 NIfTI (X, Y, Z, C) with affine and voxel sizes of another file.

    Args:
        path: the file; its folder is made if it is missing.
        channels: (C, X, Y, Z).
        geometry: the grid.
    """
    header = geometry.header.copy()
    header.set_data_dtype(np.float32)
    header.set_intent("none")
    zooms = header.get_zooms()[:3]
    array = np.moveaxis(channels.detach().cpu().numpy().astype(np.float32), 0, -1)
    image = nib.Nifti1Image(array, geometry.affine, header)
    image.header.set_zooms((*zooms, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
