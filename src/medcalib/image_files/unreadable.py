"""Say why a file cannot be read, and what to do about it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

__all__ = ["UnreadableFileError", "describe_other_format"]

_DAMAGED = "the file may be damaged or cut short, so fetch or extract it again"
_CONVERTERS = {
    "SimpleITK's WriteImage(ReadImage(...))": (".nrrd", ".nhdr", ".mha", ".mhd"),
    "mri_convert of FreeSurfer": (".mgz", ".mgh"),
    "dcm2niix": (".dcm", ".dicom", ".ima"),
    "nibabel": (".hdr", ".img", ".hdr.gz", ".img.gz"),
    "nibabel, from its array and affine": (".npy", ".npz"),
}
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
_BEGINNINGS = {
    0: {b"NRRD": "an NRRD file", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"PK\x03\x04": "a zip archive"},
    128: {b"DICM": "a DICOM file"},
}


class UnreadableFileError(Exception):
    """A file is not what it should be.

    Attributes:
        reason: what is wrong, as it follows the path in a sentence.
        advice: what to do.
    """

    def __init__(self, reason: str, advice: str = _DAMAGED) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason = reason
        self.advice = advice

    @classmethod
    def because(cls, cause: str) -> UnreadableFileError:
        """The error of a file that is damaged.

        Example:
            >>> UnreadableFileError.because("it is empty").reason
            'cannot be read (it is empty)'
        """
        return cls(f"cannot be read ({cause})")

    @classmethod
    def too_large(cls) -> UnreadableFileError:
        """The error of a file that is sound, but larger than the memory.

        Example:
            >>> print(UnreadableFileError.too_large())
            does not fit into memory; read it on a machine with more, or in smaller parts
        """
        return cls("does not fit into memory", "read it on a machine with more, or in smaller parts")


def describe_other_format(path: str | PathLike, beginning: bytes = b"") -> UnreadableFileError | None:
    """The error of a file that is no NIfTI; None if nothing is known about what it is instead.

    Args:
        path: the file, or a folder.
        beginning: its first bytes.

    Example:
        >>> print(describe_other_format("scan.mgz"))
        is no NIfTI file (.nii or .nii.gz), the only format of volumes that is read; convert it with mri_convert of \
FreeSurfer
    """
    path = Path(path)
    only = "the only format of volumes that is read"
    if path.is_dir():
        return UnreadableFileError(
            f"is a folder instead of a NIfTI file (.nii or .nii.gz), {only}",
            "if it holds the slices of a DICOM series, convert them with dcm2niix",
        )
    name = path.name.lower()
    for converter, endings in _CONVERTERS.items():
        if name.endswith(endings):
            return UnreadableFileError(f"is no NIfTI file (.nii or .nii.gz), {only}", f"convert it with {converter}")
    if name.endswith(_PICTURES):
        return UnreadableFileError(
            f"is no NIfTI file (.nii or .nii.gz), {only}",
            "pictures are read by medcalib.transforms.LoadPictured in the place of load_case::_target_",
        )
    for place, known in _BEGINNINGS.items():
        for mark, what in known.items():
            if beginning[place:].startswith(mark):
                return UnreadableFileError(
                    f"is {what} by its content, but NIfTI is {only}", "convert it, or correct its name"
                )
    return None
