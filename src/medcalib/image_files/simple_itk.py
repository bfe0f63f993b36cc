"""Load SimpleITK, which only files other than NIfTI and pictures need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcalib.image_files.unreadable import UnreadableFileError

__all__ = ["read_voxels", "simple_itk"]


def simple_itk() -> Any:
    """The module, told to keep its remarks for itself.

    Raises:
        UnreadableFileError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError:
        raise UnreadableFileError(
            "is read by SimpleITK, which is not installed", "pip install 'medcalib[images]', or convert it to NIfTI"
        ) from None
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def read_voxels(path: Path, several: bool = False) -> NDArray[np.float32]:
    """The voxels of a file, with whatever it says of slope and offset applied.

    Args:
        path: the file.
        several: whether a voxel has several values.

    Returns:
        In the reversed order of ITK: (..., Z, Y, X), or (..., Z, Y, X, C).

    Raises:
        UnreadableFileError: it is damaged, cut short or too large.
    """
    itk = simple_itk()
    try:
        image = itk.ReadImage(str(path), itk.sitkVectorFloat32 if several else itk.sitkFloat32)
    except MemoryError:
        raise UnreadableFileError.too_large() from None
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise UnreadableFileError.too_large() from None
        raise UnreadableFileError.because("SimpleITK cannot read all of its voxels") from None
    return itk.GetArrayFromImage(image)
