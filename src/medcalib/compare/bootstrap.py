"""How far a number over cases could have turned out otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import DegenerateDataWarning, bootstrap

__all__ = ["BootstrapInterval", "bootstrap_interval"]


class BootstrapInterval(NamedTuple):
    """A number over cases and the interval in which it lies.

    Attributes:
        estimate: the statistic of the cases; NaN without any.
        low: lower end of the interval; NaN with fewer than two cases.
        high: upper end of the interval; NaN with fewer than two cases.
        num_cases: number of cases that had a value.
        method: how the ends were found: ``BCa``; ``percentile`` where that is not defined, since leaving out any one
            case changes nothing or all draws lie on one side of the estimate; ``none`` with fewer than two cases.
    """

    estimate: float
    low: float
    high: float
    num_cases: int
    method: str = "BCa"


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any] = np.mean,
    num_samples: int = 9999,
    confidence: float = 0.95,
    seed: int = 0,
) -> BootstrapInterval:
    """Confidence interval of a statistic by drawing cases anew, bias-corrected and accelerated (BCa).

    The interval says how much the number depends on which cases were tested (Efron 1987,
    https://doi.org/10.1080/01621459.1987.10478410, as ``scipy.stats.bootstrap``). It says nothing about other seeds of
    the training. For the difference of two methods on the same cases give the differences of their values.

    Args:
        values: one number a case, (case,). NaN where a case has none; such cases are left out before drawing.
        statistic: from values to a number; it may take ``axis``, which is faster.
        num_samples: how often cases are drawn.
        confidence: share of intervals that hold the true value, in (0, 1).
        seed: fixes the draws; equal arguments give equal intervals.

    Returns:
        The statistic and its interval, in the unit of the values. Where no draw changes the statistic, both ends are
        the statistic itself. Where BCa is not defined, the ends are percentiles of the draws, and ``method`` says so.

    Raises:
        ValueError: ``values`` has not one axis or holds an infinite value, ``num_samples`` is below 1 or ``confidence``
            not in (0, 1).

    Example:
        >>> interval = bootstrap_interval([0.91, 0.88, np.nan, 0.93, 0.86, 0.90])
        >>> round(interval.estimate, 3), interval.num_cases, interval.low < 0.896 < interval.high
        (0.896, 5, True)
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or np.isinf(array).any():
        raise ValueError(f"values must be one finite number a case, or NaN, got an array of shape {array.shape}.")
    if num_samples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"num_samples must be at least 1 and confidence in (0, 1), got {num_samples} and {confidence}."
        )
    known = array[~np.isnan(array)]
    if not known.size:
        return BootstrapInterval(np.nan, np.nan, np.nan, 0, "none")
    estimate = float(statistic(known))
    if known.size == 1:
        return BootstrapInterval(estimate, np.nan, np.nan, 1, "none")
    if np.ptp(known) == 0:
        return BootstrapInterval(estimate, estimate, estimate, known.size)
    with warnings.catch_warnings():
        # of 0 / 0 in the acceleration, for which percentiles stand in
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        drawn = bootstrap(
            (known,),
            statistic,
            n_resamples=num_samples,
            confidence_level=confidence,
            method="BCa",
            # a bound on the memory: values drawn at a time
            batch=max(1, 10_000_000 // known.size),
            random_state=np.random.default_rng(seed),
        )
    low, high = (float(end) for end in drawn.confidence_interval)
    if not np.isnan([low, high]).any():
        return BootstrapInterval(estimate, low, high, known.size)
    low, high = np.quantile(drawn.bootstrap_distribution, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return BootstrapInterval(estimate, low, high, known.size, "percentile")
