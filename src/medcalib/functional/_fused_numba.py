"""Cross entropy, Dice sums and bin statistics of a softmax in one pass on CPU, their derivative in another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.functional import _kernels_numba
from medcalib.functional._binning_numba import kernel_tables, padded
from medcalib.functional._numba_runtime import map_parts, split

__all__ = ["backward", "forward"]


def forward(
    logits: Tensor, probs: Tensor, labels: Tensor, num_bins: int, *, soft: bool, right: bool = False
) -> tuple[Tensor, Tensor, bool]:
    """Sum over contiguous float32 logits and their softmax (B, C, N) and labels (B, N) within the classes.

    Returns:
        Per bin the count and the sum of softmax minus one-hot target, (B, C, bins, 2); per class the sums of target,
        softmax, squared softmax, softmax where the target is 1 and log-softmax where it is, (B, C, 5); and whether the
        softmax is a probability everywhere.
    """
    batch, classes, voxels = probs.shape
    x, p, y, tables = logits.numpy(), probs.numpy(), labels.numpy(), kernel_tables(num_bins)

    def part(b: int, start: int, stop: int) -> tuple[NDArray, NDArray, bool]:
        return _kernels_numba.softmax_forward(x, p, y, *tables, soft, right, b, start, stop)

    parts = split(batch, voxels, p.size)
    bins, sums = np.zeros((batch, classes, num_bins, 2)), np.zeros((batch, classes, 5))
    valid = True
    for (b, _, _), (part_bins, part_sums, fine) in zip(parts, map_parts(part, parts, p.size), strict=True):
        bins[b] += part_bins[:, :-1].sum(2)
        sums[b] += part_sums
        valid &= fine
    return torch.from_numpy(bins), torch.from_numpy(sums), valid


def backward(
    probs: Tensor, labels: Tensor, grad_bins: Tensor, grad_sums: Tensor, *, soft: bool, right: bool = False
) -> Tensor:
    """Return the gradient with respect to the logits, given those with respect to ``bins`` and ``sums`` of forward."""
    batch, _, voxels = probs.shape
    p, y, tables = probs.numpy(), labels.numpy(), kernel_tables(grad_bins.shape[2])
    counts, gaps = padded(grad_bins[..., 0]), padded(grad_bins[..., 1])
    sums = grad_sums.float().contiguous().numpy()
    grad = np.empty_like(p)

    def part(b: int, start: int, stop: int) -> None:
        _kernels_numba.softmax_backward(p, y, *tables, soft, right, counts, gaps, sums, grad, b, start, stop)

    map_parts(part, split(batch, voxels, p.size), p.size)
    return torch.from_numpy(grad)
