"""Choose one of the DICOM series that lie in one folder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medcalib.errors import UserError, listed
from medcalib.image_files.dicom_series import FoundSeries, series_in
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["choose_series", "chosen_series"]

_SHOWN = 8


def choose_series(
    split: Mapping[str, Sequence[Mapping[str, Any]]], name: str | int | None
) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Say of every test case which DICOM series of its folder it is.

    Args:
        split: its test cases are folders of DICOM slices.
        name: SeriesNumber, SeriesDescription or SeriesInstanceUID, the same in all folders; None leaves all as it is.

    Returns:
        The split, whose test cases have the key `medcalib.keys.CaseKeys.SERIES`.

    Raises:
        UserError: a case is a file, its folder holds no such series, or several of them.

    Example:
        >>> choose_series({"test": [{"case": "a", "image": "a.nii.gz"}]}, "T1 axial")
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: --dicom_series chooses among the series of a folder, but case a is the file \
a.nii.gz; leave the option out, or name folders of DICOM slices alone.
    """
    if name is None:
        return split
    cases = []
    for case in split[SplitKeys.TEST]:
        image = case[CaseKeys.IMAGE]
        paths = [image] if isinstance(image, str | Path) else list(image)
        if not any(Path(path).is_dir() for path in paths):
            raise UserError(
                f"--dicom_series chooses among the series of a folder, but case {case[CaseKeys.CASE]} is the file "
                f"{paths[0]}; leave the option out, or name folders of DICOM slices alone."
            )
        uids = [chosen_series(path, name) if Path(path).is_dir() else "" for path in paths]
        cases.append({**case, CaseKeys.SERIES.value: uids[0] if isinstance(image, str | Path) else uids})
    return {**split, SplitKeys.TEST.value: cases}


def chosen_series(folder: str | Path, name: str | int) -> str:
    """SeriesInstanceUID of one of the series in a folder.

    Args:
        folder: it holds DICOM files.
        name: the UID itself, the SeriesNumber, or the SeriesDescription, in upper or lower case.

    Raises:
        UserError: there is no such series, and the message names those that there are, or the nearest; or there are
            several of that number or description.
    """
    try:
        found = series_in(folder)
    except UnreadableFileError as error:
        raise UserError(f"{folder} {error}.") from None
    wanted = str(name).strip()
    for matches in (_by_uid(found, wanted), _by_number(found, wanted), _by_description(found, wanted)):
        if len(matches) == 1:
            return matches[0].uid
        if matches:
            raise UserError(
                f"{folder} holds {len(matches)} DICOM series {wanted!r}; give --dicom_series the UID of one of them: "
                f"{listed([f'{one.uid} ({one.num_files} files)' for one in matches], _SHOWN)}."
            )
    descriptions = {one.description.casefold(): one.description for one in found if one.description}
    near = difflib.get_close_matches(wanted.casefold(), descriptions, n=1)
    meant = f" did you mean {descriptions[near[0]]!r}?" if near else ""
    raise UserError(
        f"{folder} holds no DICOM series with the number, description or UID {wanted!r}, but "
        f"{listed([str(one) for one in found], _SHOWN)}{';' + meant if meant else '; name one of them.'}"
    )


def _by_uid(found: Sequence[FoundSeries], wanted: str) -> list[FoundSeries]:
    return [one for one in found if one.uid == wanted]


def _by_number(found: Sequence[FoundSeries], wanted: str) -> list[FoundSeries]:
    if not wanted.isdecimal():
        return []
    return [one for one in found if one.number.isdecimal() and int(one.number) == int(wanted)]


def _by_description(found: Sequence[FoundSeries], wanted: str) -> list[FoundSeries]:
    return [one for one in found if one.description.casefold() == wanted.casefold()]
