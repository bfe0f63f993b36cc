"""Where the voxels of a file lie: the one reading of a NIfTI header's geometry, and the one writing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medcalib.image_files.unreadable import UnreadableFileError

__all__ = ["AFFINE_TOLERANCE", "Grid", "corner_distance", "grid_of_affine", "image_like", "lps_to_ras", "read_grid"]

AFFINE_TOLERANCE = 0.1
"""As far as this may corners of two grids lie apart, in voxels."""

_SIZE_TOLERANCE = 0.01
_UNIT_TOLERANCE = 1e-4
_REWRITE = "correct its header"
_SCANNER = 1
_REPAIR = "correct its header, for example with set_sform and set_qform of nibabel"
# by the spatial part of xyzt_units: metre and micrometre; millimetre, or nothing, otherwise
_MM = {1: 1000.0, 3: 0.001}
_QFORM = ("qform_code", *(f"quatern_{axis}" for axis in "bcd"), *(f"qoffset_{axis}" for axis in "xyz"))
_SFORM = ("sform_code", *(f"srow_{axis}" for axis in "xyz"))
# a dataset may have thousands of such files
_warned: list[str] = []


class Grid(NamedTuple):
    """The grid on which the voxels of a file lie.

    Two affines, since headers contradict themselves. A viewer places the voxels by the first that is set of sform,
    qform and pixdim. Their size is that of this affine as well, except where it is an sform of voxels of 1 mm while
    the pixdim alone has the true size, as in the ACDC dataset.

    Attributes:
        path: the file.
        shape: number of voxels along each spatial axis.
        affine: from voxel to position in mm with the true size of the voxels, (4, 4); with it images are resampled and
            distances measured.
        viewer_affine: where a viewer puts the voxels, in mm, (4, 4).
        header: its NIfTI header, of another volume one that says the same; None of pictures.
    """

    path: Path
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    viewer_affine: NDArray[np.float64]
    header: nib.Nifti1Header | None

    def distance(self, other: Grid) -> float:
        """How far a corner lies from the same corner of another grid of the same shape, in voxels; NaN if unknown.

        Files are written by programs that take either affine for the truth, so the nearer one counts.
        """
        return min(
            corner_distance(self.affine, other.affine, self.shape),
            corner_distance(self.viewer_affine, other.viewer_affine, self.shape),
        )

    def lies_with(self, other: Grid, tolerance: float = AFFINE_TOLERANCE) -> bool:
        """Whether no corner is further than the tolerance, in voxels, from that of another grid of the same shape."""
        return self.distance(other) <= tolerance


def read_grid(path: str | Path, header: nib.Nifti1Header) -> Grid:
    """The grid that a header describes.

    Args:
        path: the file, for messages.
        header: as it is stored.

    Raises:
        UnreadableFileError: an affine that counts is not finite or cannot be inverted.

    Warns:
        UserWarning: sform and the sizes in pixdim contradict each other; once for all files.

    Example:
        >>> header = nib.Nifti1Header()
        >>> header.set_data_shape((2, 2, 2))
        >>> header.set_zooms((1.5, 1.5, 8))
        >>> header.set_sform(np.eye(4), code=1)
        >>> grid = read_grid("a.nii.gz", header)
        >>> np.diag(grid.affine).tolist(), np.diag(grid.viewer_affine).tolist()
        ([1.5, 1.5, 8.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    """
    which = "sform" if header["sform_code"] > 0 else "qform" if header["qform_code"] > 0 else "pixdim"
    sizes = np.abs(header["pixdim"][1:4].astype(float))
    try:
        affine = np.asarray(header.get_best_affine(), dtype=float)
    except (HeaderDataError, ValueError) as error:
        raise UnreadableFileError(f"has an unusable {which} ({error})", _REPAIR) from None
    if not np.isfinite(affine).all():
        raise UnreadableFileError(f"has NaN or Inf in its {which}, which says where its voxels lie", _REPAIR)
    lengths = voxel_sizes(affine)
    if abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * np.prod(lengths):
        raise UnreadableFileError(f"has an unusable {which} (its voxels have no volume)", _REPAIR)
    sized = affine.copy()
    known = np.isfinite(sizes).all() and (sizes > 0).all()
    if which == "sform" and known and not np.allclose(lengths, sizes, rtol=_SIZE_TOLERANCE):
        unset = np.allclose(sizes, 1, atol=_UNIT_TOLERANCE) and header["qform_code"] <= 0
        if np.allclose(lengths, 1, atol=_UNIT_TOLERANCE) and header["qform_code"] <= 0:
            sized[:3, :3] *= sizes / lengths
        elif not unset:
            _warn_of_sizes(f"{path}: its sform says voxels of {_listed(lengths)} mm, its pixdim {_listed(sizes)} mm")
    scale = np.diag([*[_MM.get(int(header["xyzt_units"]) % 8, 1.0)] * 3, 1.0])
    shape = tuple(int(size) for size in header["dim"][1 : 1 + min(int(header["dim"][0]), 3)])
    return Grid(Path(path), shape, scale @ sized, scale @ affine, header)


def grid_of_affine(path: str | Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The grid of a file that is no NIfTI, with the header that a NIfTI file at the same place would have.

    Args:
        path: the file.
        shape: number of voxels along each spatial axis.
        affine: from voxel to position in mm, x to the right, y to the front, z to the head, (4, 4).

    Raises:
        UnreadableFileError: the affine is not finite or cannot be inverted.

    Example:
        >>> grid = grid_of_affine("a.nrrd", (4, 3, 2), np.diag([2.0, 2, 3, 1]))
        >>> image_like(grid, np.zeros((4, 3, 2), np.uint8)).get_sform().diagonal().tolist()
        [2.0, 2.0, 3.0, 1.0]
    """
    matrix = affine[:3, :3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(matrix)) <= 1e-6 * np.prod(voxel_sizes(affine)):
        raise UnreadableFileError("does not say where its voxels lie, or says that they have no volume", _REWRITE)
    header = nib.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_qform(affine, _SCANNER, strip_shears=True)
    header.set_sform(affine, _SCANNER)
    if not np.allclose(header.get_qform(), affine, atol=1e-3):
        # a quaternion has no shear
        header["qform_code"] = 0
    return Grid(Path(path), shape, affine, affine.copy(), header)


def lps_to_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine (4, 4) to the left, back and head, as in DICOM and ITK, as one to the right, front and head.

    Example:
        >>> lps_to_ras(np.eye(4)).diagonal().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def corner_distance(one: NDArray, other: NDArray, shape: tuple[int, ...]) -> float:
    """Largest distance of a corner from the same corner of another grid, in voxels of the one.

    Args:
        one: from voxel to position, (n + 1, n + 1) for n axes, or more.
        other: the same of the other grid.
        shape: number of voxels along each axis of both.

    Example:
        >>> round(corner_distance(np.diag([2.0, 1, 1]), np.diag([2.2, 1, 1]), (11, 5)), 6)
        1.0
    """
    rank = len(shape)
    corners = np.zeros((len(one), 2**rank))
    corners[:rank] = np.stack(np.meshgrid(*([0.0, size - 1.0] for size in shape), indexing="ij")).reshape(rank, -1)
    corners[-1] = 1
    moved = np.linalg.solve(np.asarray(one, dtype=float), np.asarray(other, dtype=float) @ corners)
    return float(np.abs(moved - corners).max())


def image_like(grid: Grid, values: NDArray) -> nib.Nifti1Image:
    """New values on a grid, with the sform, qform, codes, pixdim and units of its file, unchanged.

    So every viewer puts them where it puts the file. What else the header says, such as a slope, is not kept.

    Args:
        grid: the grid of a volume.
        values: (X, Y, Z), or (X, Y, Z, C); they are stored in their own type.

    Returns:
        An image to be saved, NIfTI-2 if the file is that.

    Raises:
        ValueError: the grid is that of a picture.
    """
    given = grid.header
    if given is None:
        raise ValueError(f"{grid.path} is no volume, so there is no header to write.")
    header = type(given)(endianness="<")
    header.set_data_dtype(values.dtype)
    for field in (*_QFORM, *_SFORM, "xyzt_units"):
        header[field] = given[field]
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(values, None, header, dtype=values.dtype)
    image.header["pixdim"][:4] = given["pixdim"][:4]
    return image


def _warn_of_sizes(what: str) -> None:
    if not _warned:
        _warned.append(what)
        warnings.warn(
            f"{what}; the sform is taken, as the NIfTI standard has it, here and in other such files, so correct "
            f"their headers if it is wrong.",
            stacklevel=2,
        )


def _listed(sizes: NDArray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
