"""Which files an image consists of: one, a header with its voxels beside it, or a folder of slices."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

__all__ = ["HEADER_ENDINGS", "image_parts", "is_dicom_file", "slice_files", "voxel_files"]

HEADER_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
"""How names of MetaImage and NRRD files end, whose voxels may lie in another file."""

_MARK = (128, b"DICM")
_MOST_HEADER = 1 << 16
_NAMED = re.compile(
    rb"^(?:ElementDataFile[ \t]*=|data ?file:)[ \t]*([^\r\n]+?)[ \t]*\r?$", re.MULTILINE | re.IGNORECASE
)
# beside slices, a list of all files of a medium
_INDEX = "dicomdir"


def is_dicom_file(path: str | PathLike[str]) -> bool:
    """Whether a file is DICOM by its content.

    Example:
        >>> is_dicom_file("/no/such/file")
        False
    """
    place, mark = _MARK
    try:
        with Path(path).open("rb") as file:
            file.seek(place)
            return file.read(len(mark)) == mark
    except OSError:
        return False


def slice_files(folder: str | PathLike[str]) -> list[Path]:
    """The DICOM files in a folder, sorted, but not those of folders in it, hidden ones, and ``DICOMDIR``."""
    return sorted(
        path
        for path in Path(folder).iterdir()
        if path.name.lower() != _INDEX and not path.name.startswith(".") and is_dicom_file(path)
    )


def voxel_files(header: str | PathLike[str]) -> list[Path]:
    r"""The files that a MetaImage or NRRD header names for its voxels, whether they exist or not.

    None where the voxels follow in the same file, and none where the names are given by a pattern.

    Args:
        header: a file that can be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.mhd").write_text("DimSize = 4 3 2\nElementDataFile = a.zraw\n")
        ...     [path.name for path in voxel_files(f"{folder}/a.mhd")]
        ['a.zraw']
    """
    header = Path(header)
    with header.open("rb") as file:
        text = file.read(_MOST_HEADER)
    if text.startswith(b"NRRD"):
        text = re.split(rb"\r?\n\r?\n", text, maxsplit=1)[0]
    if not (named := _NAMED.search(text)) or named[1].upper() == b"LOCAL" or b"%" in named[1]:
        return []
    names = text[named.end() :].split(b"\n") if named[1].upper().startswith(b"LIST") else [named[1]]
    return [header.parent / name.strip().decode(errors="replace") for name in names if name.strip()]


def image_parts(path: str | PathLike[str]) -> list[Path]:
    """Every file of an image: itself, with its voxels where these lie beside it, or the slices in a folder.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> image_parts("a.nii.gz")
        [PosixPath('a.nii.gz')]
    """
    path = Path(path)
    if path.is_dir():
        return slice_files(path)
    return [path, *voxel_files(path)] if path.name.lower().endswith(HEADER_ENDINGS) else [path]
