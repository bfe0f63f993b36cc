"""Probabilities as nnU-Net writes them with ``--save_probabilities``."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medcalib.analysis.volumes import Geometry
from medcalib.errors import UserError, plain_reason

__all__ = ["check_segmentation", "read_probabilities"]

ARRAY = "probabilities"
# Of the predicted foreground: rounding and the removal of small components change less.
LARGEST_DIFFERENCE = 0.1


def read_probabilities(path: Path, geometry: Geometry, case: str) -> NDArray[np.float32]:
    """Read an archive of nnU-Net, version 2.

    It holds ``probabilities``, (class, Z, Y, X): the axes of the NIfTI file in reverse, as SimpleITK hands them over.
    With the reader ``NibabelIOWithReorient`` the axes point right, anterior and superior instead of as in the file;
    which reader it was is said in ``plans.json``, which nnU-Net puts beside its predictions.

    Args:
        path: the archive.
        geometry: the grid of the case's segmentation or label.
        case: the case, for messages.

    Returns:
        Probabilities (class, X, Y, Z) on the grid.

    Raises:
        UserError: naming case and file: it cannot be read, holds no probabilities, NaN or Inf, or has another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = ", ".join(arrays) or "nothing"
            array = arrays[ARRAY].astype(np.float32) if ARRAY in arrays else None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"Case {case}: {path} cannot be read ({plain_reason(error)}); it may be damaged, write it again."
        ) from None
    if array is None:
        raise UserError(
            f"Case {case}: {path} holds {held}, but no array {ARRAY}, which nnUNetv2_predict --save_probabilities "
            f"writes; predict with it, or give NIfTI files."
        )
    if array.ndim != 4:
        raise UserError(f"Case {case}: {path} has {array.ndim} axes instead of four: class, Z, Y, X.")
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise UserError(f"Case {case}: {path} holds {wrong} NaN or Inf value(s); repair it or leave out this case.")
    channels = array.transpose(0, 3, 2, 1)
    if _reader(path.parent) == "NibabelIOWithReorient":
        stored = nib.orientations.io_orientation(geometry.affine)
        back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), stored)
        channels = np.stack([nib.orientations.apply_orientation(channel, back) for channel in channels])
    if channels.shape[1:] != geometry.shape:
        raise UserError(
            f"Case {case}: {path} has the shape {array.shape} (class, Z, Y, X), which does not fit the shape "
            f"{geometry.shape} (X, Y, Z) of {geometry.path}."
        )
    return np.ascontiguousarray(channels)


def check_segmentation(probabilities: NDArray, segmentation: NDArray, path: Path, case: str) -> None:
    """Check that the most probable classes are those of the segmentation that nnU-Net writes beside them.

    Args:
        probabilities: (class, X, Y, Z) of classes that exclude each other.
        segmentation: (X, Y, Z).
        path: the archive, for messages.
        case: the case, for messages.

    Raises:
        UserError: they differ in more than a tenth of the foreground, so the axes were taken in a wrong order.
    """
    decided = probabilities.argmax(0)
    foreground = (decided > 0).sum() + (segmentation > 0).sum()
    different = (decided != segmentation).sum()
    if different > LARGEST_DIFFERENCE * foreground:
        raise UserError(
            f"Case {case}: {path} does not agree with the segmentation beside it, {different} voxels differ; if "
            f"nnU-Net's reader turned the axes (NibabelIOWithReorient), put the plans.json of the training there."
        )


def _reader(folder: Path) -> str | None:
    """Name of nnU-Net's reader, if the folder says it."""
    path = folder / "plans.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("image_reader_writer")
    except (ValueError, OSError, AttributeError):
        raise UserError(f"{path} is not the plans.json of nnU-Net, whose image_reader_writer is needed.") from None
