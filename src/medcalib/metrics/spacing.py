"""The voxel size of every case of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

__all__ = ["spacings"]


def spacings(y: Tensor, spacing: Sequence[float] | None = None) -> list[tuple[float, ...]]:
    """Voxel size in mm of each case along each spatial axis.

    Args:
        y: batch (B, C, ...).
        spacing: the same for all cases; taken from ``y``, which must be a ``MetaTensor`` then, when None.

    Raises:
        ValueError: If there is no spacing, or it has another length than there are axes, or is not above 0.

    Example:
        >>> import torch
        >>> spacings(MetaTensor(torch.zeros(1, 1, 4, 4), affine=torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0]))))
        [(0.5, 2.0)]
    """
    axes = y.ndim - 2
    if spacing is not None:
        per_case = [tuple(spacing)] * y.shape[0]
    elif isinstance(y, MetaTensor):
        # The affine of a 2D image still has three axes.
        per_case = [tuple(sizes)[:axes] for sizes in (y.pixdim if y.is_batch else [y.pixdim] * y.shape[0])]
    else:
        raise ValueError("a distance needs the spacing in mm: pass spacing, or y as a MetaTensor.")
    found = [tuple(float(size) for size in case) for case in per_case]
    for case in found:
        if len(case) != axes or not all(0 < size < np.inf for size in case):
            raise ValueError(f"spacing must hold {axes} voxel sizes above 0 mm, got {case}.")
    return found
