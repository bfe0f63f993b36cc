"""Read a folder of DICOM slices as one volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medcalib.errors import listed
from medcalib.files.image_parts import slice_files
from medcalib.image_files.grids import AFFINE_TOLERANCE, grid_of_affine, lps_to_ras
from medcalib.image_files.simple_itk import read_voxels, simple_itk
from medcalib.image_files.unreadable import UnreadableFileError

__all__ = ["DicomSeries", "DicomSlice", "FoundSeries", "series_in", "stacked"]

_SERIES, _DESCRIPTION, _NUMBER, _MODALITY = "0020|000e", "0008|103e", "0020|0011", "0008|0060"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
_BETWEEN_SLICES, _THICKNESS = "0018|0088", "0018|0050"
_FRAMES = "0028|0008"
_UNIT_TOLERANCE = 1e-3
_SIZE_TOLERANCE = 1e-2
_APART = "put the files of each into a folder of its own, and name the folders"
_SHOWN_SERIES = 5
_CONVERT = "convert it with dcm2niix, and look at the result"


class DicomSlice(NamedTuple):
    """Where the pixels of one file lie.

    Attributes:
        file: the file.
        size: number of pixels along x, its columns, and y, its rows.
        position: of the middle of the first pixel, in mm in DICOM's axes, to the left, back and head, (3,).
        axes: from a pixel to the next along x and along y, in mm, (3, 2).
        depth: how far apart slices are, in mm, if the file says so, else 1; it counts where there is a single one.
    """

    file: Path
    size: tuple[int, int]
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    depth: float


class FoundSeries(NamedTuple):
    """One of the series of a folder.

    Attributes:
        uid: SeriesInstanceUID, empty where the files have none.
        number: SeriesNumber as it stands there, empty where there is none.
        description: SeriesDescription, likewise.
        modality: such as ``MR``, likewise.
        num_files: number of its files.
    """

    uid: str
    number: str
    description: str
    modality: str
    num_files: int

    def __str__(self) -> str:
        """Number, description and number of files, for messages.

        Example:
            >>> print(FoundSeries("1.2.3", "4", "T1 axial", "MR", 24), FoundSeries("1.2.3", "", "", "", 1), sep="; ")
            4 'T1 axial' (MR, 24 files); 1.2.3 (1 file)
        """
        name = " ".join(filter(None, (self.number, f"'{self.description}'" * bool(self.description)))) or self.uid
        files = f"{self.num_files} file{'s' * (self.num_files != 1)}"
        return f"{name} ({', '.join(filter(None, (self.modality, files)))})"


class DicomSeries:
    """A folder with the slices of one DICOM series, whose headers were read.

    Slices are sorted by their position. Values are those that rescale slope and intercept of each slice make.

    Args:
        path: the folder; files of it that are no DICOM are passed over, and so are folders in it.
        series: SeriesInstanceUID of the one that is meant where the folder holds several.

    Attributes:
        grid: where its voxels lie, in the orientation of NIfTI: x to the right, y to the front, z to the head.
        series: as it was given.
        files: its slices in the order of the grid's third axis.
        num_channels: 1.
        has_channels: False.

    Raises:
        FileNotFoundError: there is no such folder.
        UnreadableFileError: it holds no DICOM, not that series, several ones if none is named, several frames in a
            file, or slices that make no volume, such as when one of them is missing; or SimpleITK is not installed.
    """

    num_channels = 1
    has_channels = False

    def __init__(self, path: str | Path, series: str | None = None) -> None:
        self.path, self.series = Path(path), series
        headers = _headers(self.path)
        if series is not None:
            headers = [header for header in headers if header.tags.get(_SERIES, "") == series]
            if not headers:
                raise UnreadableFileError(f"holds no DICOM series {series}", "name one that it holds")
        _check_one_series(headers)
        slices, affine = stacked([_slice(header) for header in headers])
        self.files = [one.file for one in slices]
        self.grid = grid_of_affine(self.path, (*slices[0].size, len(slices)), lps_to_ras(affine))

    def read(self, channel: int | None = None) -> NDArray[np.float32]:
        """Read the voxels (1, X, Y, Z).

        Args:
            channel: 0, or None.

        Raises:
            UnreadableFileError: a slice is damaged or cut short.
        """
        values = np.empty((1, *self.grid.shape), np.float32)
        # one by one, for slices of one series may differ in slope and type
        for number, file in enumerate(self.files):
            values[0, :, :, number] = _in_file(file, read_voxels, file).reshape(self.grid.shape[1::-1]).T
        return values


def series_in(path: str | Path) -> list[FoundSeries]:
    """The DICOM series whose files lie in a folder, by number, then description.

    Raises:
        FileNotFoundError: there is no such folder.
        UnreadableFileError: it holds no DICOM, or a damaged file; or SimpleITK is not installed.
    """
    return _found(_headers(Path(path)))


def stacked(slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], NDArray[np.float64]]:
    """Put slices into the order in which they lie, and say where the volume lies that they make.

    Args:
        slices: at least one.

    Returns:
        The slices from the first to the last along x cross y, and the matrix (4, 4) from voxel to position in mm in
        DICOM's axes. Slices that are shifted against each other, as with a tilted gantry, give a sheared one.

    Raises:
        UnreadableFileError: they differ in size or direction, two are at one place, or their distances differ, such as
            when one is missing.

    Example:
        >>> axes = np.array([[1.0, 0], [0, 1], [0, 0]])
        >>> slices = [DicomSlice(Path(f"{z}.dcm"), (4, 4), np.array([0, 0, z]), axes, 1.0) for z in (5.0, 0.0, 2.5)]
        >>> ordered, affine = stacked(slices)
        >>> [one.file.name for one in ordered], affine[:, 2].tolist()
        (['0.0.dcm', '2.5.dcm', '5.0.dcm'], [0.0, 0.0, 2.5, 0.0])
    """
    first = slices[0]
    for one in slices[1:]:
        if one.size != first.size or not np.allclose(
            one.axes, first.axes, atol=_UNIT_TOLERANCE * np.abs(first.axes).max()
        ):
            raise UnreadableFileError(
                f"holds slices of different size, spacing or direction, such as {first.file.name} and {one.file.name}",
                "leave only those of one volume in the folder",
            )
    normal = np.cross(*first.axes.T)
    normal /= np.linalg.norm(normal)
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 3] = first.axes, ordered[0].position
    if len(ordered) == 1:
        affine[:3, 2] = normal * first.depth
        return ordered, affine
    _check_distances(ordered, np.diff([float(one.position @ normal) for one in ordered]))
    affine[:3, 2] = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    # in voxels, how far each slice lies from where it should
    expected = [ordered[0].position + number * affine[:3, 2] for number in range(len(ordered))]
    off = np.linalg.solve(affine[:3, :3], (np.stack([one.position for one in ordered]) - np.stack(expected)).T)
    if (worst := np.abs(off).max(0)).max() > AFFINE_TOLERANCE:
        raise UnreadableFileError(
            f"holds slices that do not lie evenly on one line, {ordered[int(worst.argmax())].file.name} "
            f"{worst.max():.2g} voxels beside it",
            _CONVERT,
        )
    return ordered, affine


def _check_distances(ordered: Sequence[DicomSlice], distances: NDArray[np.float64]) -> None:
    usual = float(np.median(distances))
    names = [(one.file.name, next_.file.name) for one, next_ in pairwise(ordered)]
    if usual <= _SIZE_TOLERANCE or distances.min() <= _SIZE_TOLERANCE * usual:
        one, other = names[int(distances.argmin())]
        raise UnreadableFileError(
            f"holds several slices at one place, such as {one} and {other}, so it is several images in one series, "
            f"such as phases or echoes",
            _APART,
        )
    if distances.max() > (1 + AFFINE_TOLERANCE) * usual:
        one, other = names[int(distances.argmax())]
        raise UnreadableFileError(
            f"lacks slices, for most lie {usual:.4g} mm apart, but {one} and {other} {distances.max():.4g} mm",
            "fetch the whole series again, or leave it out",
        )


class _Header(NamedTuple):
    file: Path
    size: tuple[int, ...]
    components: int
    tags: dict[str, str]


def _header(file: Path) -> _Header:
    itk = simple_itk()
    reader = itk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise UnreadableFileError(
            f"holds {file.name}, in which SimpleITK finds no DICOM image",
            "fetch it again if it is a slice, and remove it if it is something else",
        ) from None
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    return _Header(file, reader.GetSize(), reader.GetNumberOfComponents(), tags)


def _headers(folder: Path) -> list[_Header]:
    files = slice_files(folder)
    if not files:
        raise UnreadableFileError("is a folder without DICOM files", "name one that holds the slices of a series")
    return [_header(file) for file in files]


def _found(headers: Sequence[_Header]) -> list[FoundSeries]:
    by_uid: dict[str, list[_Header]] = {}
    for header in headers:
        by_uid.setdefault(header.tags.get(_SERIES, ""), []).append(header)
    found = []
    for uid, of_one in by_uid.items():
        number, description, modality = (of_one[0].tags.get(key, "") for key in (_NUMBER, _DESCRIPTION, _MODALITY))
        found.append(FoundSeries(uid, number, description, modality, len(of_one)))
    return sorted(found, key=lambda one: (not one.number.isdecimal(), one.number.zfill(16), one.description, one.uid))


def _check_one_series(headers: Sequence[_Header]) -> None:
    if len(found := _found(headers)) > 1:
        raise UnreadableFileError(
            f"holds {len(found)} DICOM series, {listed([str(one) for one in found], _SHOWN_SERIES)}",
            f"of new images, name one by its number, description or UID with --dicom_series, or {_APART}",
        )


def _slice(header: _Header) -> DicomSlice:
    tags, file = header.tags, header.file
    if any(number > 1 for number in _numbers(tags.get(_FRAMES), 1) or ()) or any(
        number > 1 for number in header.size[2:]
    ):
        raise UnreadableFileError(
            f"holds several frames in one file, {file.name}, which is not read (enhanced DICOM)", _CONVERT
        )
    if header.components > 1:
        raise UnreadableFileError(f"holds colours in {file.name}, but a volume has one number in each voxel", _CONVERT)
    position, orientation, spacing = (
        _numbers(tags.get(key), count) for key, count in ((_POSITION, 3), (_ORIENTATION, 6), (_PIXEL_SPACING, 2))
    )
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        raise UnreadableFileError(
            f"does not say in {file.name} where its pixels lie (position, orientation or pixel spacing)", _CONVERT
        )
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    if not np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=_SIZE_TOLERANCE):
        raise UnreadableFileError(f"has an unusable orientation in {file.name}", _CONVERT)
    # the first number of the spacing is the distance of rows
    axes = np.stack([across * spacing[1], down * spacing[0]], axis=1)
    depths = (_numbers(tags.get(key), 1) for key in (_BETWEEN_SLICES, _THICKNESS))
    depth = next((abs(found[0]) for found in depths if found and found[0]), 1.0)
    return DicomSlice(file, (header.size[0], header.size[1]), np.array(position), axes, depth)


def _numbers(text: str | None, count: int) -> list[float] | None:
    """The numbers of a tag; None if they are not there."""
    try:
        found = [float(part) for part in (text or "").split("\\")]
    except ValueError:
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _in_file(file: Path, how: Callable, *arguments: Any) -> Any:
    """What a function returns; if it cannot, the file of the folder is named."""
    try:
        return how(*arguments)
    except UnreadableFileError as error:
        raise UnreadableFileError(f"holds {file.name}, which {error.reason}", error.advice) from None
