"""Volumes in files: read as they are stored, compared, and written in the geometry of another."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medcalib.errors import UserError
from medcalib.image_files.grids import Grid, image_like
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.image_files.volumes_in_files import open_volume

__all__ = ["Geometry", "Volume", "check_same_geometry", "read_volume", "write_channels"]

Geometry = Grid
"""The grid on which the voxels of a file lie, read as bundles read it."""


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
        file = open_volume(path)
        if len(file.grid.shape) != 3:
            raise UserError(
                f"Case {case}: {path} has {len(file.grid.shape)} axes, but a volume has three, and one more for "
                f"classes; write a slice as a volume of one slice."
            )
        channels = file.read()
    except FileNotFoundError:
        raise UserError(f"Case {case}: {path} does not exist.") from None
    except UnreadableFileError as error:
        raise UserError(f"Case {case}: {path} {error}.") from None
    wrong = sum(channel.size - int(np.isfinite(channel).sum()) for channel in channels)
    if wrong:
        raise UserError(f"Case {case}: {path} holds {wrong} NaN or Inf value(s); repair it or leave out this case.")
    return Volume(np.moveaxis(channels, 0, -1) if file.has_channels else channels[0], file.grid)


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
    if not one.lies_with(other):
        raise UserError(
            f"Case {case}: the affines of {one.path} and {other.path} differ, by {one.distance(other):.2g} voxels at a "
            f"corner; they must lie at the same place."
        )


def write_channels(path: Path, channels: Tensor, geometry: Geometry) -> None:
    """Write channels (C, X, Y, Z) as float32 NIfTI (X, Y, Z, C) that lies where another file lies.

    Args:
        path: the file; its folder is made if it is missing.
        channels: (C, X, Y, Z).
        geometry: the grid of that file, whose sform, qform, codes, voxel sizes and units are kept.
    """
    array = np.moveaxis(channels.detach().cpu().numpy().astype(np.float32, copy=False), 0, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image_like(geometry, array), path)
