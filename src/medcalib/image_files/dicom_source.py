"""What the slices of a DICOM series say of patient, study and place, for objects that are derived from them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcalib.errors import UserError
from medcalib.files.image_parts import slice_files
from medcalib.image_files.dicom_series import DicomSeries
from medcalib.image_files.unreadable import UnreadableFileError

__all__ = ["DicomSource", "check_dicom_source", "frames_of", "pydicom_and_highdicom"]

_TILT = 1e-3
_NEEDED = ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_ALIKE = ("FrameOfReferenceUID", "StudyInstanceUID", "PatientID")
# what the standard asks for, but allows to be empty
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_ADVICE = "export the series again from where it came, or leave --dicom out"


class DicomSource:
    """The headers of a series, in the order of its slices, with what objects that are derived from it ask for.

    Args:
        series: the series, whose slices were sorted.

    Attributes:
        headers: of every slice, without its pixels. What may be empty is there, SliceThickness is the distance of
            slices where the files do not say it, and SpacingBetweenSlices always; it is missing where slices are
            shifted against each other.
        distance: of neighbouring slices along the normal of their planes, in mm; of a single slice its depth.

    Raises:
        UnreadableFileError: a slice lacks an identifier, or slices differ in study, patient or frame of reference.
        UserError: pydicom or highdicom is not installed.
    """

    def __init__(self, series: DicomSeries) -> None:
        axes = series.grid.affine[:3, :3]
        normal = np.cross(axes[:, 0], axes[:, 1])
        self.distance = float(abs(axes[:, 2] @ normal) / np.linalg.norm(normal))
        is_sheared = self.distance < (1 - _TILT) * float(np.linalg.norm(axes[:, 2]))
        self.headers = [_header(file) for file in series.files]
        for file, header in zip(series.files, self.headers, strict=True):
            _check_identifiers(file, header)
            for name in _ALIKE:
                if header.get(name) != self.headers[0].get(name):
                    raise UnreadableFileError(
                        f"holds slices of different {name}, such as {series.files[0].name} and {file.name}", _ADVICE
                    )
            for name in _MAY_BE_EMPTY:
                if name not in header:
                    setattr(header, name, None)
            header.SliceThickness = _decimal(_positive(header.get("SliceThickness")) or self.distance)
            header.pop("SpacingBetweenSlices", None)
            if not is_sheared:
                header.SpacingBetweenSlices = _decimal(self.distance)

    def number_of(self, place: int) -> int:
        """A SeriesNumber for a derived series, a hundred times that of this one, and its place among them from 1."""
        number = self.headers[0].get("SeriesNumber")
        longest = 2**31 // 100 - 1
        return (int(number) * 100 if number is not None and 0 < int(number) <= longest else 0) + place


def check_dicom_source(folder: str | Path, series: str | None = None) -> None:
    """Look at one slice, before an image is predicted, for the identifiers that derived objects need.

    Args:
        folder: it holds the slices.
        series: SeriesInstanceUID of the one that is meant where it holds several.

    Raises:
        UnreadableFileError: it lacks one of them.
        UserError: pydicom or highdicom is not installed.
    """
    for file in slice_files(folder):
        header = _header(file)
        if series is None or header.get("SeriesInstanceUID") == series:
            _check_identifiers(file, header)
            return


def frames_of(volume: NDArray) -> NDArray:
    """The slices (Z, Y, X, ...) of a volume (X, Y, Z, ...), each with its rows first.

    Example:
        >>> frames_of(np.zeros((4, 3, 2, 5))).shape
        (2, 3, 4, 5)
    """
    return np.ascontiguousarray(np.moveaxis(volume, (2, 1, 0), (0, 1, 2)))


def pydicom_and_highdicom() -> tuple[Any, Any]:
    """The modules that read and write DICOM objects.

    Raises:
        UserError: one is not installed.
    """
    try:
        import highdicom
        import pydicom
    except ImportError as error:
        raise UserError(
            f"--dicom needs {error.name or 'highdicom'}, which is not installed; pip install 'medcalib[dicom]', or "
            f"leave --dicom out."
        ) from None
    return pydicom, highdicom


def _header(file: Path) -> Any:
    return pydicom_and_highdicom()[0].dcmread(file, stop_before_pixels=True)


def _check_identifiers(file: Path, header: Any) -> None:
    if lacking := _first(name for name in _NEEDED if not header.get(name)):
        raise UnreadableFileError(
            f"has no {lacking} in {file.name}, without which no DICOM object can refer to it", _ADVICE
        )


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)


def _positive(value: Any) -> float | None:
    try:
        return float(value) if float(value) > 0 else None
    except (TypeError, ValueError):
        return None


def _decimal(value: float) -> str:
    """At most 16 characters, as DICOM has numbers."""
    return f"{value:.10g}"[:16]
