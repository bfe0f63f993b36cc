"""Say why a file cannot be read, and what to do about it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

__all__ = ["UnreadableFileError", "describe_other_format"]

_DAMAGED = "the file may be damaged or cut short, so fetch or extract it again"
_CONVERTERS = {
    "mri_convert of FreeSurfer": (".mgz", ".mgh"),
    "nibabel": (".hdr", ".img", ".hdr.gz", ".img.gz"),
    "nibabel, from its array and affine": (".npy", ".npz"),
}
_SLICES = (".dcm", ".dicom", ".ima")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
_SLICE = "a DICOM file"
_FOLDER = "name the folder that holds the slices of its series"
_READ = "NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr) or a folder of DICOM slices"
_BEGINNINGS = {
    0: {b"NRRD": "an NRRD file", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"PK\x03\x04": "a zip archive"},
    128: {b"DICM": _SLICE},
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
        is no volume that is read: NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr) or a folder of \
DICOM slices; convert it with mri_convert of FreeSurfer
    """
    path = Path(path)
    no_volume = f"is no volume that is read: {_READ}"
    if path.is_dir():
        return UnreadableFileError("is a folder instead of a file", "name the file")
    name = path.name.lower()
    for converter, endings in _CONVERTERS.items():
        if name.endswith(endings):
            return UnreadableFileError(no_volume, f"convert it with {converter}")
    if name.endswith(_SLICES):
        return UnreadableFileError(f"is {_SLICE}, and volumes are folders of them", _FOLDER)
    if name.endswith(_PICTURES):
        return UnreadableFileError(
            no_volume,
            "pictures are read by medcalib.transforms.LoadPictured in the place of load_case::_target_",
        )
    for place, known in _BEGINNINGS.items():
        for mark, what in known.items():
            if beginning[place:].startswith(mark):
                if what == _SLICE:
                    return UnreadableFileError(f"is {what} by its content, and volumes are folders of them", _FOLDER)
                return UnreadableFileError(
                    f"is {what} by its content, but no NIfTI file, as which it is read for its name",
                    "correct its name, or convert it",
                )
    return None
