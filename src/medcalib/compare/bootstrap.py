"""Bootstrap intervals of many numbers at once: cases, and seeds of trainings, are drawn anew."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

__all__ = ["BootstrapInterval", "CaseDraws", "bca_intervals", "bootstrap_interval", "seed_shares"]

Array = NDArray[np.float64]

_BLOCK = 1_000_000
_KEPT = 100_000_000
_SMALL = 4_000_000
# of the size of the draws; sums of the same values in another order differ by less
_ROUNDING = 1e-12


class BootstrapInterval(NamedTuple):
    """A mean over cases and the interval in which it lies.

    Attributes:
        estimate: mean of the cases; NaN without any.
        low: lower end of the interval; NaN with fewer than two cases.
        high: upper end of the interval; NaN with fewer than two cases.
        num_cases: number of cases that had a value.
    """

    estimate: float
    low: float
    high: float
    num_cases: int


class CaseDraws:
    """How often each case occurs in each draw of as many cases as there are, with replacement.

    Numbers of the same cases are drawn with the same weights, so that their differences are paired.

    Args:
        num_samples: number of draws.
        seed: fixes them.

    Example:
        >>> weights = np.concatenate(list(CaseDraws(1000).blocks(5)))
        >>> weights.shape, set(weights.sum(1).tolist())
        ((1000, 5), {5.0})
    """

    def __init__(self, num_samples: int = 9999, seed: int = 0) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self._kept: dict[int, list[NDArray[Any]]] = {}

    def blocks(self, num_cases: int) -> Iterator[Array]:
        """Weights (draw, case), in blocks of draws of a few megabytes."""
        if num_cases * self.num_samples > _KEPT:
            drawn: Iterable[NDArray[Any]] = self._make(num_cases)
        else:
            if num_cases not in self._kept:
                while self._kept and (sum(self._kept) + num_cases) * self.num_samples > _KEPT:
                    del self._kept[next(iter(self._kept))]
                kind = float if num_cases * self.num_samples <= _SMALL else np.uint8
                self._kept[num_cases] = [block.astype(kind) for block in self._make(num_cases)]
            drawn = self._kept[num_cases]
        for block in drawn:
            yield block.astype(float, copy=False)

    def _make(self, num_cases: int) -> Iterator[NDArray[np.uint8]]:
        rng = np.random.default_rng(self.seed)
        size = max(1, _BLOCK // num_cases)
        for start in range(0, self.num_samples, size):
            rows = min(size, self.num_samples - start)
            drawn = rng.integers(0, num_cases, (rows, num_cases)) + num_cases * np.arange(rows)[:, None]
            # of 255 cases none is drawn more often than that, and of more never in practice
            yield np.bincount(drawn.ravel(), minlength=rows * num_cases).reshape(rows, num_cases).astype(np.uint8)


def seed_shares(num_seeds: int, num_samples: int, seed: int, training: str) -> Array:
    """The share of each seed in each draw of seeds with replacement.

    Args:
        num_seeds: how many trainings of one kind there are; with one there is nothing to draw.
        num_samples: number of draws.
        seed: fixes them.
        training: what was trained; those of equal names get equal draws.

    Returns:
        Shares (draw, seed) that sum to 1.
    """
    if num_seeds == 1:
        return np.ones((num_samples, 1))
    rng = np.random.default_rng([seed, zlib.crc32(training.encode())])
    return rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), num_samples) / num_seeds


def bca_intervals(
    estimates: ArrayLike, draws: ArrayLike, jackknives: Sequence[ArrayLike], confidence: float = 0.95
) -> tuple[Array, Array]:
    r"""Bias-corrected and accelerated (BCa) intervals from draws and leave-one-out values.

    With :math:`z_0` the normal quantile of the share of draws below the estimate (ties count half), and
    :math:`U_{ij} = (n_i - 1)(\bar\theta_{i} - \theta_{i(-j)})` of the values that leave out one case, or one seed, of
    sample :math:`i`, the ends are the quantiles

    .. math::
        \Phi\left(z_0 + \frac{z_0 + z_\alpha}{1 - a (z_0 + z_\alpha)}\right), \quad
        a = \frac{\sum_{ij} U_{ij}^3 / n_i^3}{6 \left(\sum_{ij} U_{ij}^2 / n_i^2\right)^{3/2}}

    of the draws (Efron 1987, https://doi.org/10.1080/01621459.1987.10478410; for several samples as
    ``scipy.stats.bootstrap``).

    Args:
        estimates: numbers (number,).
        draws: their values in draws (number, draw); NaN in draws where a number does not exist, which are left out.
        jackknives: for each sample that is drawn, the values without one of its members, (number, member).
        confidence: share of intervals that hold the true value, in (0, 1).

    Returns:
        Lower and upper ends (number,). Where no draw changes a number, both are the number itself; where BCa is not
        defined, since leaving out any one changes nothing or all draws lie on one side, they are percentiles of the
        draws; NaN where there is no draw.

    Example:
        >>> values = np.array([1.0, 2.0, 4.0, 8.0])
        >>> weights = np.concatenate(list(CaseDraws(999).blocks(4)))
        >>> left_out = (values.sum() - values) / 3
        >>> low, high = bca_intervals([values.mean()], [weights @ values / 4], [left_out[None]])
        >>> bool(1 < low[0] < 3.75 < high[0] < 8)
        True
    """
    center, drawn = np.asarray(estimates, dtype=float), np.sort(np.asarray(draws, dtype=float), axis=1)
    known = np.isfinite(drawn)
    number = known.sum(1)
    with np.errstate(all="ignore"):
        largest = np.where(known, np.abs(drawn), 0).max(1, initial=0)
        slack = _ROUNDING * largest
        below = (drawn < (center - slack)[:, None]).sum(1)
        not_above = (drawn <= (center + slack)[:, None]).sum(1)
        bias = ndtri((below + not_above) / (2 * number))
        cubes, squares = np.zeros(len(center)), np.zeros(len(center))
        for values in jackknives:
            left_out = np.asarray(values, dtype=float)
            members = left_out.shape[1]
            mean = np.nansum(left_out, 1, keepdims=True) / np.isfinite(left_out).sum(1, keepdims=True)
            apart = (members - 1) * (mean - left_out)
            apart[np.abs(apart) <= members * slack[:, None]] = 0
            cubes += np.nansum(apart**3, 1) / max(members, 1) ** 3
            squares += np.nansum(apart**2, 1) / max(members, 1) ** 2
        acceleration = cubes / (6 * squares**1.5)
        ends = []
        for share in ((1 - confidence) / 2, (1 + confidence) / 2):
            z = bias + ndtri(share)
            moved = ndtr(bias + z / (1 - acceleration * z))
            ends.append(_quantiles(drawn, number, np.where(np.isfinite(moved), moved, share)))
        still = drawn[np.arange(len(center)), np.maximum(number - 1, 0)] - drawn[:, 0] <= 2 * slack
    low, high = (np.where(still, center, end) for end in ends)
    low[number == 0] = high[number == 0] = np.nan
    return low, high


def bootstrap_interval(
    values: ArrayLike, num_samples: int = 9999, confidence: float = 0.95, seed: int = 0
) -> BootstrapInterval:
    """Confidence interval of a mean by drawing cases anew, bias-corrected and accelerated (BCa).

    The interval says how much the mean depends on which cases were tested. It says nothing about other seeds of the
    training. For the difference of two methods on the same cases give the differences of their values.

    Args:
        values: one number a case, (case,). NaN where a case has none; such cases are left out before drawing.
        num_samples: how often cases are drawn.
        confidence: share of intervals that hold the true value, in (0, 1).
        seed: fixes the draws; equal arguments give equal intervals.

    Returns:
        The mean and its interval, in the unit of the values, as of :func:`bca_intervals`.

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
    if known.size < 2:
        return BootstrapInterval(float(known[0]) if known.size else np.nan, np.nan, np.nan, known.size)
    draws = np.concatenate([weights @ known for weights in CaseDraws(num_samples, seed).blocks(known.size)])
    left_out = (known.sum() - known) / (known.size - 1)
    low, high = bca_intervals([known.mean()], [draws / known.size], [left_out[None]], confidence)
    return BootstrapInterval(float(known.mean()), float(low[0]), float(high[0]), known.size)


def _quantiles(in_order: Array, number: NDArray[np.int_], shares: Array) -> Array:
    """A quantile of each row, between neighbours linearly; NaN stand last in a row, behind ``number`` values."""
    place = shares * np.maximum(number - 1, 0)
    lower = np.floor(place).astype(int)
    upper = np.minimum(lower + 1, np.maximum(number - 1, 0))
    rows = np.arange(len(in_order))
    return in_order[rows, lower] + (place - lower) * (in_order[rows, upper] - in_order[rows, lower])
