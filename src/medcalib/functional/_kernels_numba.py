"""The compiled kernels of the CPU, all in one file, since numba's disk cache asks only whether a kernel's file changed.

Each takes one batch element's voxels ``start`` to ``stop`` of contiguous arrays, and the tables of ``kernel_tables``.
"""

from __future__ import annotations

import math

import numpy as np

from medcalib.functional._numba_runtime import compiled

# Voxels taken at a time: what a kernel works on stays in the first-level cache.
TILE = 256
# Consecutive voxels add to separate copies of the bins: neighbours mostly fall into one bin, and a sum that waits for
# the one before it would cost several times as much.
LANES = np.uint32(4)
_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled(inline="always")
def _index(position, last):  # noqa: ANN001, ANN202
    # Written so that NaN ends at 0: turning it into an integer has no defined result, and the index reads memory.
    position = position if position > 0 else last - last
    position = position if position < last else last
    return np.uint32(np.int32(position))


@compiled()
def _fill_hard_bins(row, size, num_bins, boundaries, right, where):  # noqa: ANN001, ANN202
    # Away from the boundaries the product alone tells the bin, in vector registers. Near them, where its rounding
    # matters, the float32 boundaries decide; the outermost are infinite.
    width, top, margin = np.float32(num_bins), np.float32(num_bins - 1), np.float32(4e-7 * num_bins)
    near = 0
    for j in range(size):
        position = np.float32(row[j]) * width
        bin_ = _index(position, top)
        rest = position - np.float32(bin_)
        where[j] = bin_
        near += np.int32((rest < margin) & (position > margin)) + np.int32((rest > _ONE - margin) & (position < top))
    if near == 0:
        return
    for j in range(size):
        value, bin_ = np.float32(row[j]), where[j]
        if right:
            down, up = value < boundaries[bin_], value >= boundaries[bin_ + np.uint32(1)]
        else:
            down, up = value <= boundaries[bin_], value > boundaries[bin_ + np.uint32(1)]
        where[j] = bin_ - np.uint32(down and bin_ > 0) + np.uint32(up)


@compiled(inline="always")
def _lower_centre(p, num_bins, last):  # noqa: ANN001, ANN202
    return _index(np.float64(p) * num_bins - 0.5, np.float64(last))


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
def bin_forward(  # noqa: ANN202
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
            else:
                _fill_hard_bins(row, size, num_bins, boundaries, right, where)
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
def bin_backward(  # noqa: ANN202
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
    truth, where = np.empty(TILE, np.float32), np.empty(TILE, np.uint32)
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
            else:
                _fill_hard_bins(row, size, num_bins, boundaries, right, where)
                for j in range(size):
                    out[j] = gaps[where[j]]


@compiled()
def softmax_forward(  # noqa: ANN202
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
                truth[j] = _ONE if labels[b, first + j] == c else _ZERO
            # A loop that adds must not store: it would be vectorised only where arrays, as far as the compiler can
            # tell, do not overlap, so that the order of the sum would depend on where in memory they happen to lie.
            for j in range(size):
                t = truth[j]
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
                _fill_hard_bins(prob, size, num_bins, boundaries, right, where)
                for j in range(size):
                    k, lane = where[j], np.uint32(j) % LANES
                    hist[k, lane, 0] += 1.0
                    hist[k, lane, 1] += prob[j] - truth[j]
    return bins, sums, valid


@compiled()
def softmax_backward(  # noqa: ANN202
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
    mean, weight, where = np.empty(TILE, np.float32), np.empty(TILE, np.float32), np.empty(TILE, np.uint32)
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
            else:
                _fill_hard_bins(prob, size, num_bins, boundaries, right, where)
                for j in range(size):
                    out[j] = gaps[where[j]]
            for j in range(size):
                t = _ONE if labels[b, first + j] == c else _ZERO
                out[j] += constant + linear * prob[j] + overlap * t
                mean[j] += out[j] * prob[j]
        for c in range(classes):
            prob, out, target = probs[b, c, first : first + size], outer[c], grad[b, c, first : first + size]
            for j in range(size):
                hit = weight[j] if labels[b, first + j] == c else _ZERO
                target[j] = prob[j] * (out[j] - mean[j]) + hit
