"""Numbers that are computed once over all cases, as functions of how often each case counts."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from medcalib.compare.drawn_values import Statistic
from medcalib.compare.image_scores import class_probabilities
from medcalib.functional import CALIBRATION_ERRORS, BinStatistics
from medcalib.functional.calibration_errors import EMPTY_WEIGHT

__all__ = ["POOLED_ERRORS", "calibration_errors", "decision_scores", "roc_areas"]

POOLED_ERRORS = (*CALIBRATION_ERRORS, "rmsce")
"""Calibration errors that are drawn. Debiased ones are not, since a case drawn twice has no chance of its own."""

Array = NDArray[np.float64]
_BLOCK = 300_000


def calibration_errors(statistics: BinStatistics, ignore_empty: bool = True) -> Statistic:
    """Calibration errors of pooled bins, as ``medcalib.functional.every_calibration_error``.

    Args:
        statistics: bin statistics (case, class, bin).
        ignore_empty: whether a class that no drawn case has is NaN.

    Returns:
        From weights (draw, case) to numbers (draw, 4 x (class + 1)): ECE of each class and their mean without NaN, then
        likewise ACE, MCE and the root of the mean squared gap, in the order of `POOLED_ERRORS`.
    """
    counts, sum_pred, sum_true = (part.double().numpy() for part in statistics)
    num_cases, num_classes, num_bins = counts.shape
    flat = counts.reshape(num_cases, -1), (sum_pred - sum_true).reshape(num_cases, -1)
    target = sum_true.sum(-1)

    def errors(weights: Array) -> Array:
        number, gap = ((weights @ part).reshape(-1, num_classes, num_bins) for part in flat)
        gap = np.abs(gap)
        filled = number >= EMPTY_WEIGHT
        with np.errstate(invalid="ignore", divide="ignore"):
            of_bins = np.where(filled, gap / number, 0)
            some = filled.sum(-1)
            found = {
                "ece": gap.sum(-1) / number.sum(-1),
                "ace": of_bins.sum(-1) / some,
                "mce": np.where(some > 0, of_bins.max(-1), np.nan),
                "rmsce": np.sqrt((number * of_bins**2).sum(-1) / number.sum(-1)),
            }
        absent = (weights @ target == 0) & ignore_empty
        return np.concatenate([_with_mean(np.where(absent, np.nan, found[name])) for name in POOLED_ERRORS], 1)

    return errors


def roc_areas(statistics: BinStatistics) -> Statistic:
    """Area under the ROC curve of each class against all others, and their mean without NaN.

    Args:
        statistics: bin statistics of classified images (image, class, bin).

    Returns:
        From weights (draw, image) to numbers (draw, class + 1); NaN where every drawn image, or none, has the class.
    """
    probabilities, labels = class_probabilities(statistics)
    # as they were predicted: the areas of a bundle are computed from numbers of that precision
    given, of_image = probabilities.float().numpy(), labels[:, 0].numpy()

    of_classes = []
    for place in range(given.shape[1]):
        has = of_image == place
        order = np.argsort(given[:, place], kind="stable")
        own, rest = order[has[order]], order[~has[order]]
        # of the others, those below count whole and those of the same value half
        below = [np.searchsorted(given[rest, place], given[own, place], side) for side in ("left", "right")]
        of_classes.append((own, rest, *below))

    def areas(weights: Array) -> Array:
        size = max(1, _BLOCK // weights.shape[1])
        parts = [of_block(weights[start : start + size]) for start in range(0, len(weights), size)]
        return _with_mean(np.concatenate(parts))

    def of_block(weights: Array) -> Array:
        # cases first, so that they are put in order by whole rows
        of_cases = np.ascontiguousarray(weights.T)
        found = np.full((len(weights), len(of_classes)), np.nan)
        for place, (own, rest, first, last) in enumerate(of_classes):
            others = np.concatenate([np.zeros((1, len(weights))), np.cumsum(of_cases[rest], 0)])
            positive = of_cases[own]
            won = np.einsum("ij,ij->j", positive, others[first] + others[last]) / 2
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, place] = won / (positive.sum(0) * others[-1])
        return found

    return areas


def decision_scores(statistics: BinStatistics) -> Statistic:
    """Sensitivity of each class and their mean, and specificity of each and their mean, of the most probable class.

    Args:
        statistics: bin statistics of classified images (image, class, bin).

    Returns:
        From weights (draw, image) to numbers (draw, 2 x (class + 1)); NaN where no drawn image has the class.
    """
    probabilities, labels = class_probabilities(statistics)
    classes = np.arange(probabilities.shape[1])
    has = (labels.numpy() == classes).astype(float)
    given = (probabilities.float().argmax(1, keepdim=True).numpy() == classes).astype(float)

    def scores(weights: Array) -> Array:
        number = weights @ has
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity = weights @ (has * given) / number
            specificity = weights @ ((1 - has) * (1 - given)) / (weights.sum(1, keepdims=True) - number)
        parts = [np.where(number == 0, np.nan, part) for part in (sensitivity, specificity)]
        return np.concatenate([_with_mean(part) for part in parts], 1)

    return scores


def _with_mean(values: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw in which no class has a value
        return np.concatenate([values, np.nanmean(values, 1, keepdims=True)], 1)
