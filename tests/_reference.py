"""Slow oracles in NumPy: the definitions written out as loops, in float64, sharing nothing with the package."""

import numpy as np


def one_hot(labels, num_classes):
    """Label map (B, 1, N) to (B, C, N)."""
    return (labels[:, 0][:, None] == np.arange(num_classes)[None, :, None]).astype(np.float64)


def bin_shares(p, num_bins, soft):
    """(bin, weight) pairs that one probability contributes to."""
    if not soft:
        edges = np.linspace(0, 1, num_bins + 1)
        for k in range(num_bins):
            if p <= edges[k + 1]:
                return [(k, 1.0)]
        return [(num_bins - 1, 1.0)]
    centres = (np.arange(num_bins) + 0.5) / num_bins
    if p <= centres[0]:
        return [(0, 1.0)]
    if p >= centres[-1]:
        return [(num_bins - 1, 1.0)]
    k = int(np.searchsorted(centres, p)) - 1
    weight = (p - centres[k]) / (centres[k + 1] - centres[k])
    return [(k, 1 - weight), (k + 1, weight)]


def bin_statistics(p, y, num_bins, soft=False, mask=None):
    """Counts, sums of prediction, sums of target of (B, C, N) arrays."""
    counts = np.zeros((*p.shape[:2], num_bins))
    sum_pred, sum_true = counts.copy(), counts.copy()
    for b, c, i in np.ndindex(p.shape):
        if mask is not None and not mask[b, 0, i]:
            continue
        for k, weight in bin_shares(float(p[b, c, i]), num_bins, soft):
            counts[b, c, k] += weight
            sum_pred[b, c, k] += weight * p[b, c, i]
            sum_true[b, c, k] += weight * y[b, c, i]
    return counts, sum_pred, sum_true


def l1_ace(p, y, num_bins, soft=False, ignore_empty_classes=True, empty_weight=0.01):
    """mL1-ACE of each image and class, (B, C)."""
    counts, sum_pred, sum_true = bin_statistics(p, y, num_bins, soft)
    values = np.zeros(p.shape[:2])
    for b, c in np.ndindex(values.shape):
        if ignore_empty_classes and y[b, c].sum() == 0:
            continue
        gaps = [
            abs(sum_pred[b, c, k] - sum_true[b, c, k]) / counts[b, c, k]
            for k in range(num_bins)
            if (counts[b, c, k] >= empty_weight if soft else counts[b, c, k] > 0)
        ]
        values[b, c] = np.mean(gaps)
    return values


def softmax(x):
    """Softmax over axis 1."""
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
