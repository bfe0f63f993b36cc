"""Cross entropy, Dice sums and bin statistics of a softmax in one pass on CPU, their derivative in another."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.functional._binning_numba import LANES, _bin_left, _bin_right, _lower_centre, kernel_tables, padded
from medcalib.functional._numba_runtime import TILE, compiled, map_parts, split

__all__ = ["backward", "forward"]

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled()
def _forward_part(  # noqa: ANN202
    logits,  # noqa: ANN001
    probs,  # noqa: ANN001
    labels,  # noqa: ANN001
    boundaries,  # noqa: ANN001
    centres,  # noqa: ANN001
    steps,  # noqa: ANN001
    soft,  # noqa: ANN001
    right,  # noqa: ANN001
    b,  # noqa: ANN001
    start,  # noqa: ANN001
    stop,  # noqa: ANN001
):
    classes, num_bins = probs.shape[1], boundaries.shape[0] - 1
    bins = np.zeros((classes, num_bins + 1, LANES, 2))
    sums = np.zeros((classes, 5))
    truth, where, above = np.empty(TILE, np.float32), np.empty(TILE, np.uint32), np.empty(TILE)
    likeliest, log_likeliest = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    last = np.uint32(max(num_bins - 2, 0))
    valid = True
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        likeliest[:] = -_ONE
        for c in range(classes):
            row, prob = logits[b, c, first : first + size], probs[b, c, first : first + size]
            for j in range(size):
                higher = prob[j] > likeliest[j]
                likeliest[j] = prob[j] if higher else likeliest[j]
                log_likeliest[j] = row[j] if higher else log_likeliest[j]
        inside = 0
        for j in range(size):
            inside += np.int32(likeliest[j] > _ZERO)
        valid = valid and inside == size
        # The logarithm of the softmax's denominator; the largest probability is at least 1/C, where its log is exact.
        for j in range(size):
            log_likeliest[j] -= math.log(likeliest[j])
        for c in range(classes):
            row, prob, hist = logits[b, c, first : first + size], probs[b, c, first : first + size], bins[c]
            present, power, square, overlap, log_true = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for j in range(size):
                t = _ONE if labels[b, first + j] == c else _ZERO
                truth[j] = t
                present += t
                power += prob[j]
                square += prob[j] * prob[j]
                overlap += prob[j] * t
                log_true += row[j] - log_likeliest[j] if t > _ZERO else _ZERO
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
    probs,  # noqa: ANN001
    labels,  # noqa: ANN001
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
    classes, num_bins = probs.shape[1], boundaries.shape[0] - 1
    outer = np.empty((classes, TILE), np.float32)
    mean, weight = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    last, one = np.uint32(max(num_bins - 2, 0)), np.uint32(1)
    for first in range(start, stop, TILE):
        size = min(TILE, stop - first)
        for j in range(size):
            weight[j] = grad_sums[b, labels[b, first + j], 4]
            mean[j] = weight[j]
        for c in range(classes):
            prob, out = probs[b, c, first : first + size], outer[c]
            gaps, counts = grad_gaps[b, c], grad_counts[b, c]
            constant, linear, overlap = grad_sums[b, c, 1], _ONE * 2 * grad_sums[b, c, 2], grad_sums[b, c, 3]
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
            prob, out, target = probs[b, c, first : first + size], outer[c], grad[b, c, first : first + size]
            for j in range(size):
                hit = weight[j] if labels[b, first + j] == c else _ZERO
                target[j] = prob[j] * (out[j] - mean[j]) + hit


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
        return _forward_part(x, p, y, *tables, soft, right, b, start, stop)

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
        _backward_part(p, y, *tables, soft, right, counts, gaps, sums, grad, b, start, stop)

    map_parts(part, split(batch, voxels, p.size), p.size)
    return torch.from_numpy(grad)
