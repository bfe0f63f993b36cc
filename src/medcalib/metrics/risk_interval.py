"""The mean loss of cases, and an interval that holds the expected loss of a new case however losses are distributed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, logsumexp

__all__ = ["MeanRisk", "mean_risk"]

Array = NDArray[np.float64]

# number of bets whose capitals are averaged; more of them hardly change an interval
NUM_BETS = 64
SMALLEST = 1e-12


class MeanRisk(NamedTuple):
    """What `mean_risk` finds.

    Attributes:
        mean: of the losses; NaN without any.
        low: lower end of the interval.
        high: upper end.
        num_cases: how many losses there are.
        interval: ``"Clopper-Pearson"`` or ``"betting"``.

    Example:
        >>> mean_risk([0, 1, 0, 0], binary=True).num_cases
        4
    """

    mean: float
    low: float
    high: float
    num_cases: int
    interval: str


def mean_risk(losses: ArrayLike, binary: bool = False, confidence: float = 0.95) -> MeanRisk:
    r"""Mean loss of independent cases, with an interval for the expected loss of which the coverage is proven.

    Of losses that are 0 or 1 by their nature it is the interval of Clopper and Pearson (doi:10.1093/biomet/26.4.404).
    Of others in [0, 1] it holds every expectation :math:`m` against which none of two players would have won much: the
    mean over :math:`c` of :math:`\prod_i (1 + c (x_i / m - 1))`, and the same of :math:`1 - x_i` and :math:`1 - m`, is
    below :math:`2 / (1 - \text{confidence})` (Waudby-Smith and Ramdas, Estimating means of bounded random variables by
    betting, arXiv:2010.09686), with :math:`c` in [0, 1] as of Jeffreys's prior. It is wider than a bootstrap of
    the same cases, since a rare large loss may not be among them yet, and does not depend on the order of the cases.

    Args:
        losses: one number a case in [0, 1], (case,); NaN is left out.
        binary: whether a loss can only be 0 or 1.
        confidence: probability with which the interval holds the expected loss, at least.

    Returns:
        Mean and interval; all NaN without a case.

    Raises:
        ValueError: a loss is out of range, or ``confidence`` is.

    Example:
        >>> [round(value, 3) for value in mean_risk([0.0] * 39 + [1.0], binary=True)[:3]]
        [0.025, 0.001, 0.132]
        >>> [round(value, 3) for value in mean_risk([0.05, 0.1] * 20)[:3]]
        [0.075, 0.063, 0.183]
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"losses must be one number a case, got shape {values.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    values = np.sort(values[~np.isnan(values)])
    if values.size and not (values[0] >= 0 and values[-1] <= 1):
        raise ValueError(f"losses must lie between 0 and 1, got {values[0]:g} to {values[-1]:g}.")
    if binary and not np.isin(values, (0, 1)).all():
        raise ValueError("losses must be 0 or 1 where they are said to be binary.")
    name = "Clopper-Pearson" if binary else "betting"
    if not values.size:
        return MeanRisk(np.nan, np.nan, np.nan, 0, name)
    error = (1 - confidence) / 2
    bound: Callable[[Array, float], float] = _binomial_bound if binary else _betting_bound
    low, high = bound(values, error), 1 - bound(1 - values[::-1], error)
    return MeanRisk(float(values.mean()), low, high, values.size, name)


def _binomial_bound(values: Array, error: float) -> float:
    """The lower bound of a share."""
    events = values.sum()
    return float(betaincinv(events, values.size - events + 1, error)) if events else 0.0


def _betting_bound(values: Array, error: float) -> float:
    """The lower bound of an expectation."""
    bets = np.sin((np.arange(NUM_BETS) + 0.5) * np.pi / 2 / NUM_BETS) ** 2
    distinct, counts = np.unique(values, return_counts=True)
    wanted, mean = np.log(NUM_BETS / error), float(values.mean())

    def excess(expectation: float) -> float:
        return float(logsumexp(counts @ np.log1p(bets * (distinct[:, None] / expectation - 1))) - wanted)

    # the capital falls as the expectation grows, from infinity, and no more than the stake is left at the mean
    if mean < SMALLEST or excess(SMALLEST) <= 0:
        return 0.0
    return float(brentq(excess, SMALLEST, mean, xtol=1e-12))
