"""Open a volume with the reader that its file needs."""

from __future__ import annotations

from pathlib import Path

from medcalib.files.image_parts import HEADER_ENDINGS
from medcalib.image_files.dicom_series import DicomSeries
from medcalib.image_files.header_files import HeaderFile
from medcalib.image_files.nifti import NiftiFile

__all__ = ["VOLUME_ENDINGS", "open_volume"]

VOLUME_ENDINGS = (".nii.gz", ".nii", *HEADER_ENDINGS)
"""How names of files end that hold volumes; a folder of DICOM slices is one, too."""


def open_volume(path: str | Path, series: str | None = None) -> NiftiFile | HeaderFile | DicomSeries:
    """Read the header of a volume: of MetaImage or NRRD by its name, of a folder of DICOM slices, or of NIfTI.

    Args:
        path: the file or folder.
        series: SeriesInstanceUID of the DICOM series that is meant where a folder holds several.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is something else or damaged.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.ones((4, 3, 2), np.int16), np.eye(4)), f"{folder}/a.nii.gz")
        ...     open_volume(f"{folder}/a.nii.gz").grid.shape
        (4, 3, 2)
    """
    path = Path(path)
    if path.is_dir():
        return DicomSeries(path, series)
    return HeaderFile(path) if path.name.lower().endswith(HEADER_ENDINGS) else NiftiFile(path)
