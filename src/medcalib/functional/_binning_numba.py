"""Bin statistics and their derivative on CPU: one pass over the volume, one part of it per core."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.functional._binning_torch import bin_boundaries, bin_centres
from medcalib.functional._inputs import ROUNDING
from medcalib.functional._numba_runtime import TILE, compiled, map_parts, split

__all__ = ["backward", "forward", "kernel_tables", "padded"]

# Consecutive voxels add to separate copies of the bins: neighbours mostly fall into one bin, and a sum that waits for
# the one before it would cost several times as much.
LANES = np.uint32(4)
_ONE, _ZERO = np.float32(1), np.float32(0)
_ROUNDING = np.float32(ROUNDING)


@compiled(inline="always")
def _bin_left(p, num_bins, boundaries):  # noqa: ANN001, ANN202
    # The product is off by at most one bin; the float32 boundaries decide. The outermost are infinite, so that no
    # comparison needs a branch.
    value = np.float32(p)
    guess = np.uint32(min(max(np.int32(value * np.float32(num_bins)), np.int32(0)), np.int32(num_bins - 1)))
    return guess - np.uint32(value <= boundaries[guess]) + np.uint32(value > boundaries[guess + np.uint32(1)])


@compiled(inline="always")
def _bin_right(p, num_bins, boundaries):  # noqa: ANN001, ANN202
    value = np.float32(p)
    guess = np.uint32(min(max(np.int32(value * np.float32(num_bins)), np.int32(0)), np.int32(num_bins - 1)))
    return guess - np.uint32(value < boundaries[guess]) + np.uint32(value >= boundaries[guess + np.uint32(1)])


@compiled(inline="always")
def _lower_centre(p, num_bins, last):  # noqa: ANN001, ANN202
    position = min(max(np.float64(p) * num_bins - 0.5, 0.0), np.float64(last))
    return np.uint32(np.int32(position))


@compiled()
def _fill_truth(labels, dense, use_labels, b, c, first_class, start, size, truth):  # noqa: ANN001, ANN202
    if use_labels:
        wanted = c + first_class
        for j in range(size):
            truth[j] = _ONE if labels[b, start + j] == wanted else _ZERO
    else:
        for j in range(size):
            truth[j] = dense[b, c, start + j]


@compiled()
def _forward_part(  # noqa: ANN202
    probs,  # noqa: ANN001
    labels,  # noqa: ANN001
    dense,  # noqa: ANN001
    use_labels,  # noqa: ANN001
    mask,  # noqa: ANN001
    use_mask,  # noqa: ANN001
    boundaries,  # noqa: ANN001
    centres,  # noqa: ANN001
    steps,  # noqa: ANN001
    soft,  # noqa: ANN001
    right,  # noqa: ANN001
    first_class,  # noqa: ANN001
    rounding,  # noqa: ANN001
    b,  # noqa: ANN001
    start,  # noqa: ANN001
    stop,  # noqa: ANN001
):
    classes, num_bins = probs.shape[1], boundaries.shape[0] - 1
    # The two bins past the last one take what the mask leaves out.
    bins = np.zeros((classes, num_bins + 2, LANES, 4))
    truth, where, above = np.empty(TILE, np.float32), np.empty(TILE, np.uint32), np.empty(TILE)
    low, high = -rounding, _ONE + rounding
    last = np.uint32(max(num_bins - 2, 0))
    valid = True
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for c in range(classes):
            row = probs[b, c, first : first + size]
            hist = bins[c]
            inside = 0
            for j in range(size):
                inside += np.int32(row[j] >= low) & np.int32(row[j] <= high)
            if inside < size:
                for j in range(size):
                    if not (row[j] >= low and row[j] <= high) and not (use_mask and mask[b, first + j] == 0):
                        valid = False
            _fill_truth(labels, dense, use_labels, b, c, first_class, first, size, truth)
            if soft:
                for j in range(size):
                    where[j] = _lower_centre(row[j], num_bins, last)
                    above[j] = min(max((row[j] - centres[where[j]]) * steps[where[j]], 0.0), 1.0)
            elif right:
                for j in range(size):
                    where[j] = _bin_right(row[j], num_bins, boundaries)
            else:
                for j in range(size):
                    where[j] = _bin_left(row[j], num_bins, boundaries)
            if use_mask:
                for j in range(size):
                    where[j] = where[j] if mask[b, first + j] else np.uint32(num_bins)
            if soft:
                for j in range(size):
                    k, lane, weight = where[j], np.uint32(j) % LANES, 1.0 - above[j]
                    hist[k, lane, 0] += weight
                    hist[k, lane, 1] += weight * row[j]
                    hist[k, lane, 2] += weight * truth[j]
                    k += np.uint32(1)
                    hist[k, lane, 0] += above[j]
                    hist[k, lane, 1] += above[j] * row[j]
                    hist[k, lane, 2] += above[j] * truth[j]
            else:
                for j in range(size):
                    k, lane = where[j], np.uint32(j) % LANES
                    hist[k, lane, 0] += 1.0
                    hist[k, lane, 1] += row[j]
                    hist[k, lane, 2] += truth[j]
    return bins, valid


@compiled()
def _backward_part(  # noqa: ANN202
    probs,  # noqa: ANN001
    labels,  # noqa: ANN001
    dense,  # noqa: ANN001
    use_labels,  # noqa: ANN001
    boundaries,  # noqa: ANN001
    centres,  # noqa: ANN001
    steps,  # noqa: ANN001
    soft,  # noqa: ANN001
    right,  # noqa: ANN001
    first_class,  # noqa: ANN001
    grad_counts,  # noqa: ANN001
    grad_gaps,  # noqa: ANN001
    grad,  # noqa: ANN001
    b,  # noqa: ANN001
    start,  # noqa: ANN001
    stop,  # noqa: ANN001
):
    classes, num_bins = probs.shape[1], boundaries.shape[0] - 1
    truth = np.empty(TILE, np.float32)
    last, one = np.uint32(max(num_bins - 2, 0)), np.uint32(1)
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for c in range(classes):
            row, out = probs[b, c, first : first + size], grad[b, c, first : first + size]
            gaps, counts = grad_gaps[b, c], grad_counts[b, c]
            if soft:
                _fill_truth(labels, dense, use_labels, b, c, first_class, first, size, truth)
                for j in range(size):
                    p = np.float64(row[j])
                    k = _lower_centre(p, num_bins, last)
                    above = min(max((p - centres[k]) * steps[k], 0.0), 1.0)
                    slope = gaps[k + one] - gaps[k]
                    moved = slope * (p - truth[j]) + counts[k + one] - counts[k]
                    speed = steps[k] if (p > centres[0]) and (p < centres[num_bins - 1]) else 0.0
                    out[j] = gaps[k] + above * slope + speed * moved
            elif right:
                for j in range(size):
                    out[j] = gaps[_bin_right(row[j], num_bins, boundaries)]
            else:
                for j in range(size):
                    out[j] = gaps[_bin_left(row[j], num_bins, boundaries)]


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
    mask_array = mask.contiguous().numpy() if use_mask else np.empty((0, 0), np.bool_)

    def part(b: int, start: int, stop: int) -> tuple[NDArray, bool]:
        return _forward_part(
            *arrays, mask_array, use_mask, *tables, soft, right, first_class, _ROUNDING, b, start, stop
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
        _backward_part(*arrays, *tables, soft, right, first_class, counts, gaps, grad, b, start, stop)

    map_parts(part, split(batch, voxels, probs.numel()), probs.numel())
    return torch.from_numpy(grad)
