"""How right the predictions are that an uncertainty keeps, and those that it sets apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medcalib.metrics.risk import ranked_pairs

__all__ = ["Retention", "min_max", "retained_accuracy"]

Array = NDArray[np.float64]


class Retention(NamedTuple):
    """What `retained_accuracy` finds, all (threshold,).

    Attributes:
        threshold: of the uncertainty scaled to [0, 1].
        retained: part of the cases at or below it.
        accuracy: part of these that are right; NaN where there are none.
        referred_error: part of the cases at or above it that are wrong; NaN where there are none.

    Example:
        >>> retained_accuracy([0.1, 0.9, 0.3, 0.2], [True, False, True, True], thresholds=[0.5]).retained
        array([0.75])
    """

    threshold: Array
    retained: Array
    accuracy: Array
    referred_error: Array


def min_max(uncertainty: ArrayLike) -> Array:
    """Scale values so that the least becomes 0 and the largest 1; NaN where all are alike.

    Args:
        uncertainty: one number a case, (case,); NaN stays NaN.

    Example:
        >>> min_max([2.0, 4.0, 3.0])
        array([0. , 1. , 0.5])
    """
    values = np.asarray(uncertainty, dtype=np.float64)
    known = values[~np.isnan(values)]
    if not known.size or known.min() == known.max():
        return np.full(values.shape, np.nan)
    return (values - known.min()) / (known.max() - known.min())


def retained_accuracy(
    uncertainty: ArrayLike, correct: ArrayLike, thresholds: Sequence[float] = (0.3, 0.6, 0.9)
) -> Retention:
    """Accuracy of the cases whose uncertainty, scaled to [0, 1], is at most a threshold, and errors of the others.

    Where exactly the threshold lies depends on the least and the largest uncertainty of these very cases, so results of
    different datasets or methods are not at the same uncertainty (Ojha and Narendra, MIDL 2024); the area under the
    curve of `medcalib.metrics.risk_coverage` does not depend on it.

    Args:
        uncertainty: one number a case, (case,); a case where it is NaN is referred at every threshold.
        correct: whether the case is right, booleans or 0 and 1, (case,).
        thresholds: in [0, 1].

    Returns:
        The four numbers of each threshold, NaN where all known uncertainties are alike.

    Raises:
        ValueError: If shapes differ or a value is infinite.

    Example:
        >>> found = retained_accuracy([0.0, 0.1, 0.8, 1.0], [True, True, True, False], thresholds=[0.5])
        >>> [part.item() for part in found]
        [0.5, 0.5, 1.0, 0.5]
    """
    values, right = ranked_pairs(uncertainty, correct)
    known = np.isfinite(values)
    scaled = np.full(values.shape, np.inf)
    scaled[known] = min_max(values[known])
    limits = np.asarray(thresholds, dtype=np.float64)
    if np.isnan(scaled).any() or not known.any():
        nothing = np.full(limits.shape, np.nan)
        return Retention(limits, nothing, nothing, nothing)
    kept, referred = scaled <= limits[:, None], scaled >= limits[:, None]
    return Retention(limits, kept.mean(1), _mean_of(right, kept), _mean_of(1 - right, referred))


def _mean_of(values: Array, chosen: NDArray[np.bool_]) -> Array:
    count = chosen.sum(1)
    return (chosen * values).sum(1) / np.where(count > 0, count, np.nan)
