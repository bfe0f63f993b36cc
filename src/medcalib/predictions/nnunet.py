"""Probabilities as nnU-Net writes them with ``--save_probabilities``."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medcalib.errors import UserError, plain_reason
from medcalib.predictions.volumes import Geometry

__all__ = [
    "Plans",
    "check_label",
    "check_segmentation",
    "find_plans",
    "predicted_box",
    "read_plans",
    "read_probabilities",
    "write_probabilities",
]

ARRAY = "probabilities"
PLANS = "plans.json"
# How many folders above those of the predictions may hold the plans: <model>/fold_0/validation lies two below.
FOLDERS_ABOVE = 2
# Of the predicted foreground: rounding and the removal of small components change less.
LARGEST_DIFFERENCE = 0.1


class Plans(NamedTuple):
    """What nnU-Net's plans say of the files.

    Attributes:
        path: the file that says it.
        reader: name of the class of nnU-Net that read the images.
    """

    path: Path
    reader: str

    @property
    def turns_axes(self) -> bool:
        """Whether the reader turns the axes so that they point right, anterior and superior."""
        return "WithReorient" in self.reader


def read_plans(path: Path) -> Plans:
    """Read the ``plans.json`` of a training.

    Raises:
        UserError: it cannot be read, or does not name a reader.
    """
    try:
        reader = json.loads(path.read_text(encoding="utf-8"))["image_reader_writer"]
    except (ValueError, OSError, KeyError, TypeError):
        reader = None
    if not isinstance(reader, str):
        raise UserError(f"{path} is not the plans.json of nnU-Net, whose image_reader_writer is needed.")
    return Plans(path, reader)


def find_plans(folders: Sequence[Path]) -> Plans | None:
    """Find the plans of the training that made predictions.

    ``nnUNetv2_predict`` puts ``plans.json`` beside its predictions; those of the validation cases lie in
    ``<model>/fold_0/validation``, and their plans in ``<model>``.

    Args:
        folders: those of the predictions, where plans must be right; above the last of them only what are plans of
            nnU-Net counts.

    Returns:
        The nearest; None if there are none.

    Raises:
        UserError: those of the predictions are not nnU-Net's.
    """
    for folder in folders:
        if (folder / PLANS).is_file():
            return read_plans(folder / PLANS)
    for folder in list(folders[-1].resolve().parents)[:FOLDERS_ABOVE]:
        try:
            return read_plans(folder / PLANS)
        except UserError:
            continue
    return None


def read_probabilities(path: Path, geometry: Geometry, case: str, plans: Plans | None) -> NDArray[np.float32]:
    """Read an archive of nnU-Net, version 2.

    It holds ``probabilities``, (class, Z, Y, X): the axes of the NIfTI file in reverse, as SimpleITK hands them over.
    With the readers ``NibabelIOWithReorient`` and ``SimpleITKIOWithReorient`` the axes point right, anterior and
    superior instead of as in the file; which reader it was is said in the plans.

    Args:
        path: the archive.
        geometry: the grid of the case's segmentation or label.
        case: the case, for messages.
        plans: what the plans of the training say, if they are known.

    Returns:
        Probabilities (class, X, Y, Z) on the grid.

    Raises:
        UserError: naming case and file: it cannot be read, holds no probabilities, NaN or Inf, or has another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = ", ".join(arrays) or "nothing"
            array = arrays[ARRAY].astype(np.float32, copy=False) if ARRAY in arrays else None
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
    volumes = [volume.transpose(2, 1, 0) for volume in array]
    if plans is not None and plans.turns_axes:
        volumes = [_turn(volume, geometry, back=True) for volume in volumes]
    if volumes[0].shape != geometry.shape:
        raise UserError(
            f"Case {case}: {path} has the shape {array.shape} (class, Z, Y, X), which does not fit the shape "
            f"{geometry.shape} (X, Y, Z) of {geometry.path}; {_advice(plans)}"
        )
    channels = np.empty((len(volumes), *geometry.shape), np.float32)
    for channel, volume in zip(channels, volumes, strict=True):
        channel[:] = volume
    return channels


def write_probabilities(path: Path, channels: NDArray[np.float32], geometry: Geometry, plans: Plans) -> None:
    """Write an archive as nnU-Net has it, from which `read_probabilities` reads the same.

    Args:
        path: the archive.
        channels: probabilities (class, X, Y, Z) on the grid.
        geometry: the grid.
        plans: what the plans of the training say.
    """
    volumes = [_turn(volume, geometry, back=False) if plans.turns_axes else volume for volume in channels]
    array = np.stack([volume.transpose(2, 1, 0) for volume in volumes]).astype(np.float32, copy=False)
    np.savez_compressed(path, probabilities=array)


def predicted_box(channels: NDArray[np.float32], exclusive: bool) -> tuple[slice, slice, slice] | None:
    """The part of a volume for which nnU-Net predicted anything.

    It crops images to what is not zero, and around that puts a probability of exactly 1 for the background, or of 0
    for all regions. Its ``.pkl`` says what the crop was, but reading it could run any code.

    Args:
        channels: probabilities (class, X, Y, Z).
        exclusive: whether classes exclude each other, with the background first.

    Returns:
        Its slices; None if it is the whole volume or nothing.

    Example:
        >>> foreground = np.zeros((4, 3, 2), np.float32)
        >>> foreground[1:3, 1] = 0.25
        >>> predicted_box(np.stack([1 - foreground, foreground]), exclusive=True)
        (slice(1, 3, None), slice(1, 2, None), slice(0, 2, None))
    """
    predicted = channels[0] != (1 if exclusive else 0)
    for channel in channels[1:]:
        predicted |= channel != 0
    if predicted.all() or not predicted.any():
        return None
    box = (_extent(predicted.any((1, 2))), _extent(predicted.any((0, 2))), _extent(predicted.any((0, 1))))
    whole = all(part.stop - part.start == size for part, size in zip(box, predicted.shape, strict=True))
    return None if whole else box


def check_segmentation(
    decided: NDArray, segmentation: NDArray, geometry: Geometry, path: Path, case: str, plans: Plans | None
) -> None:
    """Check that decisions are those of the segmentation that nnU-Net writes beside its archive.

    Args:
        decided: (X, Y, Z), the most probable class of each voxel; of independent classes, whether any is probable.
        segmentation: the same in the file beside the archive.
        geometry: its grid.
        path: the archive, for messages.
        case: the case, for messages.
        plans: what the plans of the training say.

    Raises:
        UserError: they differ in more than a tenth of the foreground, so the axes were taken in a wrong order.
    """
    different, foreground = _difference(decided, segmentation)
    if different > LARGEST_DIFFERENCE * foreground:
        raise UserError(
            f"Case {case}: {path} does not agree with the segmentation {geometry.path} beside it, {different} voxels "
            f"differ; {_advice(plans, _fits_turned(decided, segmentation, geometry, plans))}"
        )


def check_label(
    decided: NDArray, label: NDArray, geometry: Geometry, path: Path, case: str, plans: Plans | None
) -> None:
    """Check that decisions of an archive without segmentation are not better with its axes turned the other way.

    A label is no segmentation: the prediction may be wrong. That it is right where the axes are taken in another way
    is no chance, though.

    Args:
        decided: (X, Y, Z), the most probable class of each voxel, or (channel, X, Y, Z), whether each of independent
            classes is probable.
        label: what is true, in the same shape.
        geometry: the grid of the label.
        path: the archive, for messages.
        case: the case, for messages.
        plans: what the plans of the training say.

    Raises:
        UserError: more than a tenth of the foreground fits better the other way.
    """
    different, foreground = _difference(decided, label)
    if _fits_turned(decided, label, geometry, plans, largest=different - LARGEST_DIFFERENCE * foreground):
        raise UserError(
            f"Case {case}: {path} does not agree with its label {geometry.path}, {different} voxels differ; "
            f"{_advice(plans, True)}"
        )


def _extent(taken: NDArray[np.bool_]) -> slice:
    where = np.flatnonzero(taken)
    return slice(int(where[0]), int(where[-1]) + 1)


def _turn(volume: NDArray, geometry: Geometry, back: bool) -> NDArray:
    """The axes (X, Y, Z) of the file turned right, anterior and superior, or such axes turned back; a view."""
    stored, turned = nib.io_orientation(geometry.affine), nib.orientations.axcodes2ornt("RAS")
    ends = (turned, stored) if back else (stored, turned)
    return nib.orientations.apply_orientation(volume, nib.orientations.ornt_transform(*ends))


def _difference(decided: NDArray, truth: NDArray) -> tuple[int, int]:
    """How many decisions differ, and the size of both foregrounds together."""
    return int((decided != truth).sum()), int((decided > 0).sum()) + int((truth > 0).sum())


def _fits_turned(
    decided: NDArray, truth: NDArray, geometry: Geometry, plans: Plans | None, largest: float | None = None
) -> bool:
    """Whether decisions fit with their axes taken in the other way."""
    back = plans is None or not plans.turns_axes
    if decided.ndim == 4:
        other = np.stack([_turn(channel, geometry, back) for channel in decided])
    else:
        other = _turn(decided, geometry, back)
    if other.shape != truth.shape:
        return False
    different, foreground = _difference(other, truth)
    return different <= LARGEST_DIFFERENCE * foreground if largest is None else different < largest


def _advice(plans: Plans | None, fits_turned: bool = True) -> str:
    if not fits_turned:
        return (
            "it does not stem from the same prediction, or its axes were turned by another program; predict it again."
        )
    if plans is None:
        return (
            "if nnU-Net's reader turned the axes (NibabelIOWithReorient, SimpleITKIOWithReorient), give the plans.json "
            "of the training as plans_file."
        )
    return (
        f"{plans.path} names the reader {plans.reader}, but the axes fit only if it "
        f"{'did not turn them' if plans.turns_axes else 'turned them'}; give the plans.json of this prediction as "
        f"plans_file."
    )
