"""Read MetaImage and NRRD files: the header first, then the voxels."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medcalib.files.image_parts import voxel_files
from medcalib.image_files.grids import grid_of_affine, lps_to_ras
from medcalib.image_files.simple_itk import read_voxels, simple_itk
from medcalib.image_files.unreadable import UnreadableFileError

__all__ = ["HeaderFile"]


class HeaderFile:
    """A MetaImage (``.mha``, ``.mhd``) or NRRD file (``.nrrd``, ``.nhdr``) whose header was read.

    Args:
        path: the file; its voxels may lie in another one.

    Attributes:
        grid: where its voxels lie, in the orientation of NIfTI: x to the right, y to the front, z to the head.
        num_channels: number of values of each voxel; frames of a recording count as such.
        has_channels: whether it has an axis for them.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is something else or damaged, its voxels are no numbers or missing, or SimpleITK is not
            installed.

    Example:
        >>> import pytest, tempfile
        >>> itk = pytest.importorskip("SimpleITK")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     itk.WriteImage(itk.Image([4, 3, 2], itk.sitkInt16), f"{folder}/a.mha")
        ...     HeaderFile(f"{folder}/a.mha").read().shape
        (1, 4, 3, 2)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise UnreadableFileError(f"is a folder, but names that end in {self.path.suffix} are those of files")
        for file in voxel_files(self.path):
            if not file.is_file():
                raise UnreadableFileError(
                    f"has its voxels in {file.name}, which is not there", "put that file beside it again"
                )
        itk = simple_itk()
        reader = itk.ImageFileReader()
        reader.SetFileName(str(self.path))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            raise UnreadableFileError.because(
                f"SimpleITK finds no header of MetaImage or NRRD in it, as its name promises ({self.path.suffix})"
            ) from None
        kind = itk.GetPixelIDValueAsString(reader.GetPixelID())
        if "complex" in kind:
            raise UnreadableFileError(
                "holds complex numbers, but a volume has one number in each voxel", "convert it to numbers"
            )
        size, self._components = reader.GetSize(), reader.GetNumberOfComponents()
        frames = prod(size[3:])
        if len(size) < 2 or sum(number > 1 for number in (*size[3:], self._components)) > 1:
            raise UnreadableFileError(
                f"has axes of {' x '.join(map(str, (*size, self._components)))} numbers, but a volume has three, and "
                f"one more for channels",
                "write every further axis as files of their own",
            )
        rank = len(size)
        direction = np.array(reader.GetDirection()).reshape(rank, rank) @ np.diag(reader.GetSpacing())
        axes = min(rank, 3)
        affine = np.eye(4)
        affine[:axes, :axes] = direction[:axes, :axes]
        affine[:axes, 3] = reader.GetOrigin()[:axes]
        self.grid = grid_of_affine(self.path, tuple(int(number) for number in size[:3]), lps_to_ras(affine))
        self.num_channels = frames * self._components
        self.has_channels = rank > 3 or self._components > 1

    def read(self, channel: int | None = None) -> NDArray[np.float32]:
        """Read the voxels.

        Args:
            channel: only this one; all of them when None.

        Returns:
            Values (C, X, Y, Z), or (C, X, Y) of a file of two axes.

        Raises:
            UnreadableFileError: its voxels are damaged or cut short.
        """
        values = read_voxels(self.path, self._components > 1)
        rank = len(self.grid.shape)
        if self._components > 1:
            values = np.moveaxis(values, -1, 0)
        channels = values.reshape(self.num_channels, *self.grid.shape[::-1]).transpose(0, *range(rank, 0, -1))
        return np.ascontiguousarray(channels if channel is None else channels[channel : channel + 1])
