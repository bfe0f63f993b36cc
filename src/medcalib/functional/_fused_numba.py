"""Softmax, cross entropy, Dice sums and bin statistics of logits in one pass on CPU, the derivative in another."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.functional._binning_numba import LANES, _bin_left, _bin_right, _lower_centre, kernel_tables, padded
from medcalib.functional._numba_runtime import TILE, compiled, map_parts, split

__all__ = ["backward", "forward"]

_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)
_LOG2_E = np.float32(1 / math.log(2))
# ln 2 as a short number, whose products with small integers are exact, and the rest of it.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_LOWEST = np.float32(-87.0)
_C2, _C3, _C4, _C5, _C6, _C7 = (np.float32(1 / math.factorial(order)) for order in range(2, 8))


@compiled(reorder=False)
def _exp(x):  # noqa: ANN001, ANN202
    # A Taylor polynomial on [-ln2/2, ln2/2] is exact to 1e-8 and, unlike the library's exp, runs in vector registers.
    x = x if not x < _LOWEST else _LOWEST
    power = np.int32(x * _LOG2_E - _HALF)
    whole = np.float32(power)
    r = x - whole * _LN2_HIGH - whole * _LN2_LOW
    series = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * (_C6 + r * _C7))))))
    return series * np.int32((power + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled()
def _forward_part(  # noqa: ANN202
    logits,  # noqa: ANN001
    labels,  # noqa: ANN001
    top,  # noqa: ANN001
    inverse,  # noqa: ANN001
    boundaries,  # noqa: ANN001
    centres,  # noqa: ANN001
    steps,  # noqa: ANN001
    soft,  # noqa: ANN001
    right,  # noqa: ANN001
    b,  # noqa: ANN001
    start,  # noqa: ANN001
    stop,  # noqa: ANN001
):
    classes, num_bins = logits.shape[1], boundaries.shape[0] - 1
    bins = np.zeros((classes, num_bins + 1, LANES, 2))
    sums = np.zeros((classes, 5))
    probs = np.empty((classes, TILE), np.float32)
    total, truth = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    where, above = np.empty(TILE, np.uint32), np.empty(TILE)
    last = np.uint32(max(num_bins - 2, 0))
    valid = True
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        shift, scale = top[b, first : first + size], inverse[b, first : first + size]
        shift[:] = logits[b, 0, first : first + size]
        for c in range(1, classes):
            row = logits[b, c, first : first + size]
            for j in range(size):
                shift[j] = max(shift[j], row[j])
        total[:] = _ZERO
        for c in range(classes):
            row, prob = logits[b, c, first : first + size], probs[c]
            for j in range(size):
                value = _exp(row[j] - shift[j])
                prob[j] = value
                total[j] += value
        inside = 0
        for j in range(size):
            inside += np.int32(total[j] >= _HALF)
        valid = valid and inside == size
        for j in range(size):
            scale[j] = _ONE / total[j]
            total[j] = math.log(total[j])
        for c in range(classes):
            row, prob, hist = logits[b, c, first : first + size], probs[c], bins[c]
            present, power, square, overlap, log_true = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for j in range(size):
                p = prob[j] * scale[j]
                t = _ONE if labels[b, first + j] == c else _ZERO
                prob[j] = p
                truth[j] = t
                present += t
                power += p
                square += p * p
                overlap += p * t
            for j in range(size):
                log_true += (row[j] - shift[j]) - total[j] if truth[j] > _HALF else _ZERO
            sums[c, 0] += present
            sums[c, 1] += power
            sums[c, 2] += square
            sums[c, 3] += overlap
            sums[c, 4] += log_true
            if soft:
                for j in range(size):
                    where[j] = _lower_centre(prob[j], num_bins, last)
                    above[j] = min(max((prob[j] - centres[where[j]]) * steps[where[j]], 0.0), 1.0)
                for j in range(size):
                    k, lane, share, gap = where[j], np.uint32(j) % LANES, above[j], prob[j] - truth[j]
                    hist[k, lane, 0] += 1.0 - share
                    hist[k, lane, 1] += (1.0 - share) * gap
                    k += np.uint32(1)
                    hist[k, lane, 0] += share
                    hist[k, lane, 1] += share * gap
            else:
                if right:
                    for j in range(size):
                        where[j] = _bin_right(prob[j], num_bins, boundaries)
                else:
                    for j in range(size):
                        where[j] = _bin_left(prob[j], num_bins, boundaries)
                for j in range(size):
                    k, lane = where[j], np.uint32(j) % LANES
                    hist[k, lane, 0] += 1.0
                    hist[k, lane, 1] += prob[j] - truth[j]
    return bins, sums, valid


@compiled()
def _backward_part(  # noqa: ANN202
    logits,  # noqa: ANN001
    labels,  # noqa: ANN001
    top,  # noqa: ANN001
    inverse,  # noqa: ANN001
    boundaries,  # noqa: ANN001
    centres,  # noqa: ANN001
    steps,  # noqa: ANN001
    soft,  # noqa: ANN001
    right,  # noqa: ANN001
    grad_counts,  # noqa: ANN001
    grad_gaps,  # noqa: ANN001
    grad_sums,  # noqa: ANN001
    grad,  # noqa: ANN001
    b,  # noqa: ANN001
    start,  # noqa: ANN001
    stop,  # noqa: ANN001
):
    classes, num_bins = logits.shape[1], boundaries.shape[0] - 1
    probs, outer = np.empty((classes, TILE), np.float32), np.empty((classes, TILE), np.float32)
    mean, weight = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    last, one = np.uint32(max(num_bins - 2, 0)), np.uint32(1)
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        shift, scale = top[b, first : first + size], inverse[b, first : first + size]
        for j in range(size):
            weight[j] = grad_sums[b, labels[b, first + j], 4]
            mean[j] = weight[j]
        for c in range(classes):
            row, prob, out = logits[b, c, first : first + size], probs[c], outer[c]
            gaps, counts = grad_gaps[b, c], grad_counts[b, c]
            constant, linear, overlap = grad_sums[b, c, 1], _ONE * 2 * grad_sums[b, c, 2], grad_sums[b, c, 3]
            for j in range(size):
                prob[j] = _exp(row[j] - shift[j]) * scale[j]
            if soft:
                for j in range(size):
                    p, t = np.float64(prob[j]), 1.0 if labels[b, first + j] == c else 0.0
                    k = _lower_centre(p, num_bins, last)
                    above = min(max((p - centres[k]) * steps[k], 0.0), 1.0)
                    slope = gaps[k + one] - gaps[k]
                    moved = slope * (p - t) + counts[k + one] - counts[k]
                    speed = steps[k] if (p > centres[0]) and (p < centres[num_bins - 1]) else 0.0
                    out[j] = gaps[k] + above * slope + speed * moved
            elif right:
                for j in range(size):
                    out[j] = gaps[_bin_right(prob[j], num_bins, boundaries)]
            else:
                for j in range(size):
                    out[j] = gaps[_bin_left(prob[j], num_bins, boundaries)]
            for j in range(size):
                t = _ONE if labels[b, first + j] == c else _ZERO
                out[j] += constant + linear * prob[j] + overlap * t
                mean[j] += out[j] * prob[j]
        for c in range(classes):
            prob, out, target = probs[c], outer[c], grad[b, c, first : first + size]
            for j in range(size):
                hit = weight[j] if labels[b, first + j] == c else _ZERO
                target[j] = prob[j] * (out[j] - mean[j]) + hit


def forward(
    logits: Tensor, labels: Tensor, num_bins: int, *, soft: bool, right: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
    """Sum over contiguous float32 logits (B, C, N) and labels (B, N) within the classes.

    Returns:
        Per bin the count and the sum of softmax minus one-hot target, (B, C, bins, 2); per class the sums of target,
        softmax, squared softmax, softmax where the target is 1 and log-softmax where it is, (B, C, 5); the
        largest logit and the inverse of the softmax's denominator without it, (B, N) each; and
        whether no logit was NaN or plus infinity.
    """
    batch, classes, voxels = logits.shape
    x, y, tables = logits.numpy(), labels.numpy(), kernel_tables(num_bins)
    top, inverse = np.empty((batch, voxels), np.float32), np.empty((batch, voxels), np.float32)

    def part(b: int, start: int, stop: int) -> tuple[NDArray, NDArray, bool]:
        return _forward_part(x, y, top, inverse, *tables, soft, right, b, start, stop)

    parts = split(batch, voxels, x.size)
    bins, sums = np.zeros((batch, classes, num_bins, 2)), np.zeros((batch, classes, 5))
    valid = True
    for (b, _, _), (part_bins, part_sums, fine) in zip(parts, map_parts(part, parts, x.size), strict=True):
        bins[b] += part_bins[:, :-1].sum(2)
        sums[b] += part_sums
        valid &= fine
    return *(torch.from_numpy(array) for array in (bins, sums, top, inverse)), valid


def backward(
    logits: Tensor,
    labels: Tensor,
    top: Tensor,
    inverse: Tensor,
    grad_bins: Tensor,
    grad_sums: Tensor,
    *,
    soft: bool,
    right: bool = False,
) -> Tensor:
    """Return the gradient with respect to the logits, given those with respect to ``bins`` and ``sums`` of forward."""
    batch, _, voxels = logits.shape
    x, y, tables = logits.numpy(), labels.numpy(), kernel_tables(grad_bins.shape[2])
    shift, scale = top.numpy(), inverse.numpy()
    counts, gaps = padded(grad_bins[..., 0]), padded(grad_bins[..., 1])
    sums = grad_sums.float().contiguous().numpy()
    grad = np.empty_like(x)

    def part(b: int, start: int, stop: int) -> None:
        _backward_part(x, y, shift, scale, *tables, soft, right, counts, gaps, sums, grad, b, start, stop)

    map_parts(part, split(batch, voxels, x.size), x.size)
    return torch.from_numpy(grad)
