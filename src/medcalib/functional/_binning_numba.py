"""Bin statistics and their derivative on CPU: one pass over the volume, one part of it per core."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.functional import _kernels_numba
from medcalib.functional._binning_torch import bin_centres
from medcalib.functional._bins import bin_boundaries
from medcalib.functional._numba_runtime import map_parts, split
from medcalib.functional.inputs import ROUNDING

__all__ = ["backward", "forward", "kernel_tables", "padded"]


@cache
def kernel_tables(num_bins: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return what the kernels look up: bin boundaries with the outermost at infinity, centres, inverse distances."""
    boundaries = bin_boundaries(num_bins).numpy()
    boundaries[0], boundaries[-1] = -np.inf, np.inf
    centres, steps = bin_centres(num_bins)
    return boundaries, centres.numpy(), steps.numpy()


def padded(table: Tensor) -> NDArray:
    """Return a table (B, C, bins) with the last bin repeated, so that the bin above it needs no branch."""
    return torch.cat([table, table[..., -1:]], -1).numpy()


def _arrays(probs: Tensor, y: Tensor, use_labels: bool) -> tuple[NDArray, NDArray, NDArray, bool]:
    if use_labels:
        return probs.contiguous().numpy(), y.contiguous().numpy(), np.empty((0, 0, 0), np.float32), True
    if y.dtype == torch.bool:
        y = y.view(torch.uint8)
    elif not y.is_floating_point():
        y = y.to(torch.uint8)
    elif y.dtype != torch.float64:
        y = y.float()
    return probs.contiguous().numpy(), np.empty((0, 0), np.uint8), y.contiguous().numpy(), False


def forward(
    probs: Tensor,
    y: Tensor,
    num_bins: int,
    mask: Tensor | None = None,
    *,
    use_labels: bool,
    soft: bool,
    right: bool = False,
    first_class: int = 0,
) -> tuple[Tensor, bool]:
    """Bin float32 or float64 probabilities, arguments as in the plain torch version.

    Returns:
        Counts, sums of predictions and of targets stacked last, (B, C, bins, 3), float64, and whether all
        probabilities that count lie in [0, 1].
    """
    batch, classes, voxels = probs.shape
    arrays, tables = _arrays(probs, y, use_labels), kernel_tables(num_bins)
    use_mask = mask is not None
    mask_array = np.empty((0, 0), np.bool_) if mask is None else mask.contiguous().numpy()

    def part(b: int, start: int, stop: int) -> tuple[NDArray, bool]:
        return _kernels_numba.bin_forward(
            *arrays, mask_array, use_mask, *tables, soft, right, first_class, np.float32(ROUNDING), b, start, stop
        )

    parts = split(batch, voxels, probs.numel())
    sums = np.zeros((batch, classes, num_bins, 3))
    valid = True
    for (b, _, _), (bins, fine) in zip(parts, map_parts(part, parts, probs.numel()), strict=True):
        sums[b] += bins[:, :-2, :, :3].sum(2)
        valid &= fine
    return torch.from_numpy(sums), valid


def backward(
    probs: Tensor,
    y: Tensor,
    grad_counts: Tensor,
    grad_gaps: Tensor,
    *,
    use_labels: bool,
    soft: bool,
    right: bool = False,
    first_class: int = 0,
) -> Tensor:
    """Return the gradient with respect to ``probs``, arguments as in the plain torch version."""
    batch, _, voxels = probs.shape
    arrays, tables = _arrays(probs, y, use_labels), kernel_tables(grad_gaps.shape[-1])
    counts, gaps = padded(grad_counts), padded(grad_gaps)
    grad = np.empty_like(arrays[0])

    def part(b: int, start: int, stop: int) -> None:
        _kernels_numba.bin_backward(*arrays, *tables, soft, right, first_class, counts, gaps, grad, b, start, stop)

    map_parts(part, split(batch, voxels, probs.numel()), probs.numel())
    return torch.from_numpy(grad)
