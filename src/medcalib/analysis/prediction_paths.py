"""Where the files of a case lie in folders of predictions and of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from medcalib.bundle.option_values import read_texts
from medcalib.data.cases import check_case_name
from medcalib.data.tables import read_text_file
from medcalib.errors import UserError

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
    :func:`~medcalib.data.tables.read_text_file` knows.

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


def find_prediction(folder: Path, case: str) -> PredictionPaths:
    """Find the prediction of a case in a folder, or in the folder of the case below it.

    Looked for are ``<case>_prob.nii.gz``, one NIfTI per class ``<case>_0.nii.gz``, ``<case>_1.nii.gz``, ..., the
    archive ``<case>.npz``, and, without any of these, ``<case>.nii.gz``; ``.nii`` in each place of ``.nii.gz``.

    Args:
        folder: the folder of predictions.
        case: the case id.

    Raises:
        UserError: there is none, more than one, or a class between others is missing.
    """
    places = (folder, folder / case)
    found = [PredictionPaths(Layout.VOLUME, [path]) for path in _existing(places, f"{case}_prob")]
    found += [channels for place in places if (channels := _channels(place, case))]
    plain = _existing(places, case)
    for archive in (place / f"{case}.npz" for place in places):
        if archive.is_file():
            beside = next((path for path in plain if path.parent == archive.parent), None)
            found.append(PredictionPaths(Layout.ARCHIVE, [archive], beside))
    if not found:
        found = [PredictionPaths(Layout.VOLUME, [path]) for path in plain]
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


def find_label(folder: Path, case: str) -> Path:
    """Find the label of a case: ``<case>.nii.gz`` or ``<case>_seg.nii.gz``, there or in the folder of the case.

    Args:
        folder: the folder of labels.
        case: the case id.

    Raises:
        UserError: there is none.
    """
    places = (folder, folder / case)
    for stem in (case, f"{case}_seg"):
        if paths := _existing(places, stem):
            return paths[0]
    raise UserError(
        f"{folder} holds no label of case {case}: looked for {case}.nii.gz and {case}_seg.nii.gz, there and in "
        f"{folder / case}."
    )


def _existing(places: Sequence[Path], stem: str) -> list[Path]:
    paths = [place / f"{stem}{ending}" for place in places for ending in ENDINGS]
    return [path for path in paths if path.is_file()]


def _channels(folder: Path, case: str) -> PredictionPaths | None:
    pattern = re.compile(rf"{re.escape(case)}_(\d+)\.nii(\.gz)?")
    if not folder.is_dir():
        return None
    numbered = sorted((int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name)))
    if not numbered:
        return None
    numbers = [number for number, _ in numbered]
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"Case {case}: its files in {folder} are numbered {', '.join(map(str, numbers))}; give one file for each "
            f"class, numbered from 0 without a gap."
        )
    return PredictionPaths(Layout.CHANNELS, [path for _, path in numbered])
