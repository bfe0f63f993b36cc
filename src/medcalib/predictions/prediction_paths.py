"""Where the files of a case lie in folders of predictions and of labels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from medcalib.bundle.option_values import read_texts
from medcalib.data.cases import check_case_name
from medcalib.errors import UserError
from medcalib.files.tables import read_text_file

__all__ = ["Layout", "PredictionPaths", "find_label", "find_prediction", "read_case_list"]

ENDINGS = (".nii.gz", ".nii")


class Layout(StrEnum):
    """How a prediction is stored."""

    VOLUME = "volume"
    """One NIfTI, classes on the last axis."""
    CHANNELS = "channels"
    """One NIfTI for each class."""
    ARCHIVE = "archive"
    """An npz archive as nnU-Net writes it."""


class PredictionPaths(NamedTuple):
    """The files of one prediction.

    Attributes:
        layout: how it is stored.
        paths: its file, or its files in the order of the classes.
        segmentation: the segmentation that nnU-Net writes beside an archive, if it is there.
    """

    layout: Layout
    paths: list[Path]
    segmentation: Path | None = None


def read_case_list(cases: str | Path | Sequence[str], name: str = "cases") -> list[str]:
    """Case ids from a text file with one id a line, from a text with commas between them, or from a list.

    In a file, empty lines and what follows a # are passed over; it may be in any encoding that
    :func:`~medcalib.files.tables.read_text_file` knows.

    Args:
        cases: path, text or list.
        name: what the list is called in messages.

    Returns:
        The ids, in the order given.

    Raises:
        UserError: there is no such file, no id, an id twice, or an id that no file can have.

    Example:
        >>> read_case_list("patient_1, patient_2")
        ['patient_1', 'patient_2']
    """
    if isinstance(cases, str | Path):
        path = Path(cases).expanduser()
        if _is_file(path):
            lines = [line.partition("#")[0] for line in read_text_file(path).splitlines()]
        elif isinstance(cases, Path) or path.suffix == ".txt":
            raise UserError(f"{cases} does not exist; {name} is a file with one case id a line, or ids with commas.")
        else:
            lines = read_texts(name, cases) or []
    else:
        lines = list(cases)
    ids = [str(line).strip() for line in lines if str(line).strip()]
    if not ids:
        raise UserError(f"{name} names no case; give a file with one case id a line, or ids with commas.")
    for case in ids:
        if ids.count(case) > 1:
            raise UserError(f"{name} names the case {case} twice; keep one.")
        if Path(case).name != case:
            raise UserError(f"{name} names the case {case}, but an id is a name without folders.")
        check_case_name(case, f"A case of {name}")
    return ids


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a long list of ids is no path
        return False


def find_prediction(folder: Path, case: str, case_ids: Collection[str] = ()) -> PredictionPaths:
    """Find the prediction of a case in a folder, or in the folder of the case below it.

    Looked for are ``<case>_prob.nii.gz``, one NIfTI per class ``<case>_0.nii.gz``, ``<case>_1.nii.gz``, ..., the
    archive ``<case>.npz``, and, without any of these, ``<case>.nii.gz``; ``.nii`` in each place of ``.nii.gz``. Names
    are matched whole: what is called as another case is a file of that case.

    Args:
        folder: the folder of predictions.
        case: the case id.
        case_ids: ids of other cases that may be there.

    Raises:
        UserError: there is none, more than one, or a class between others is missing.
    """
    places = (folder, folder / case)
    plain = _existing(places, case)
    found = [PredictionPaths(Layout.VOLUME, [path]) for path in _existing(places, f"{case}_prob", case_ids)]
    found += [channels for place in places if (channels := _channels(place, case, case_ids))]
    for archive in (place / f"{case}.npz" for place in places):
        if archive.is_file():
            beside = next((path for path in plain if path.parent == archive.parent), None)
            found.append(PredictionPaths(Layout.ARCHIVE, [archive], beside))
    if not found or (len(found) == 1 and _may_be_another_case(found[0])):
        found += [PredictionPaths(Layout.VOLUME, [path]) for path in plain if not found or _is_fractional(path)]
    if not found:
        raise UserError(
            f"{folder} holds no prediction of case {case}: looked for {case}_prob.nii.gz, {case}_0.nii.gz and so on, "
            f"{case}.npz and {case}.nii.gz, there and in {folder / case}."
        )
    if len(found) > 1:
        raise UserError(
            f"Case {case} has two predictions, {found[0].paths[0]} and {found[1].paths[0]}; keep one of them there."
        )
    return found[0]


def find_label(folder: Path, case: str, case_ids: Collection[str] = ()) -> Path:
    """Find the label of a case: ``<case>.nii.gz`` or ``<case>_seg.nii.gz``, there or in the folder of the case.

    Args:
        folder: the folder of labels.
        case: the case id.
        case_ids: ids of other cases that may be there.

    Raises:
        UserError: there is none.
    """
    places = (folder, folder / case)
    for stem in (case, f"{case}_seg"):
        if paths := _existing(places, stem, set(case_ids) - {case}):
            return paths[0]
    raise UserError(
        f"{folder} holds no label of case {case}: looked for {case}.nii.gz and {case}_seg.nii.gz, there and in "
        f"{folder / case}."
    )


def _existing(places: Sequence[Path], stem: str, case_ids: Collection[str] = ()) -> list[Path]:
    if stem in case_ids:
        return []
    paths = [place / f"{stem}{ending}" for place in places for ending in ENDINGS]
    return [path for path in paths if path.is_file()]


def _channels(folder: Path, case: str, case_ids: Collection[str]) -> PredictionPaths | None:
    pattern = re.compile(rf"({re.escape(case)}_(\d+))\.nii(\.gz)?")
    if not folder.is_dir():
        return None
    numbered = {path: match for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    taken = [path for path, match in numbered.items() if match[1] in case_ids or (folder / f"{match[1]}.npz").is_file()]
    own = sorted((int(match[2]), path) for path, match in numbered.items() if path not in taken)
    # a file of all classes is never that of one; among files of single classes it is a mistake that is told later
    if all(_num_axes(path) == 4 for _, path in own):
        return None
    if taken:
        raise UserError(
            f"Case {case}: {taken[0]} could be the file of one of its classes or of the case {numbered[taken[0]][1]}; "
            f"give each case a folder of its own, called as the case."
        )
    numbers = [number for number, _ in own]
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"Case {case}: its files in {folder} are numbered {', '.join(map(str, numbers))}; give one file for each "
            f"class, numbered from 0 without a gap."
        )
    return PredictionPaths(Layout.CHANNELS, [path for _, path in own])


def _may_be_another_case(found: PredictionPaths) -> bool:
    """Whether the only file of a class could as well be the whole prediction of a case with a number in its name."""
    return found.layout is Layout.CHANNELS and len(found.paths) == 1


def _num_axes(path: Path) -> int:
    """Number of axes of a file, where a vector image has four; 0 where it cannot be read."""
    header = _header(path)
    shape: tuple[int, ...] = () if header is None else header.get_data_shape()
    return 4 if len(shape) == 5 and shape[3] == 1 else len(shape)


def _is_fractional(path: Path) -> bool:
    """Whether a file can hold probabilities: it is no segmentation, which holds whole numbers."""
    header = _header(path)
    return header is not None and header.get_data_dtype().kind == "f"


def _header(path: Path) -> nib.Nifti1Header | None:
    try:
        image = nib.load(path)
        return image.header if isinstance(image, nib.Nifti1Image) else None
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error):
        # whoever reads the file says what is wrong with it
        return None
