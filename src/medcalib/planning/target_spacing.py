"""The voxel size to which a dataset is resampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["sizes_at", "target_spacing"]

_ANISOTROPIC = 3.0
_PERCENTILE = 10
_DIGITS = 4


def target_spacing(spacings: ArrayLike, sizes: ArrayLike) -> tuple[list[float], str]:
    """The median voxel size, finer along one axis where the median case is strongly anisotropic, as nnU-Net does.

    An axis counts as such if its median spacing is over 3 times that of each other axis, and its median size less than
    a third of theirs. Its spacing is then the 10th percentile, so that the thin slices some cases have are not lost,
    but never less than that of the other axes.

    Reference: Isensee et al., nnU-Net, doi:10.1038/s41592-020-01008-z.

    Args:
        spacings: voxel size of every case in mm, (case, axis).
        sizes: voxels along each axis of every case, (case, axis).

    Returns:
        Spacing in mm by axis, and the reason.

    Example:
        >>> target_spacing([[1, 1, 1], [1, 1, 3], [2, 2, 2]], [[9, 9, 9]] * 3)[0]
        [1.0, 1.0, 2.0]
        >>> spacings = [[1, 1, 2]] + [[1, 1, 5]] * 9
        >>> target_spacing(spacings, [[300, 300, 30]] * 10)[0]
        [1.0, 1.0, 4.7]
    """
    spacings, sizes = np.asarray(spacings, dtype=float), np.asarray(sizes, dtype=float)
    target, size = np.median(spacings, axis=0), np.median(sizes, axis=0)
    worst = int(target.argmax())
    others = [axis for axis in range(len(target)) if axis != worst]
    reason = "the median of all cases"
    if target[worst] > _ANISOTROPIC * target[others].max() and size[worst] * _ANISOTROPIC < size[others].min():
        fine = float(np.percentile(spacings[:, worst], _PERCENTILE))
        target[worst] = max(fine, target[others].max())
        reason = (
            f"the median of all cases; along axis {worst}, which is coarser than the others by more than a factor "
            f"of 3, the {_PERCENTILE}th percentile"
        )
    return [round(float(value), _DIGITS) for value in target], reason


def sizes_at(spacing: ArrayLike, spacings: ArrayLike, sizes: ArrayLike) -> NDArray[np.int64]:
    """Voxels of every case along each axis after resampling, (case, axis).

    Example:
        >>> sizes_at([2.0, 1.0], [[1.0, 1.0]], [[9, 9]]).tolist()
        [[4, 9]]
    """
    resampled = np.asarray(sizes, dtype=float) * np.asarray(spacings, dtype=float) / np.asarray(spacing, dtype=float)
    return np.maximum(1, np.rint(resampled)).astype(np.int64)
