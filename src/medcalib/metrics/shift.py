"""Whether new cases are like the calibration cases, as promises that were fitted on those suppose."""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

__all__ = ["ShiftTest", "case_shift_p_values", "shift_test"]

Array = NDArray[np.float64]

# values that should be equal differ by roundings
_TOLERANCE = 1e-9
_AT_ONCE = 1 << 22


class ShiftTest(NamedTuple):
    """What `shift_test` finds.

    Attributes:
        p_value: probability of a difference as large or larger if all cases are exchangeable.
        score: index of the score that differs most.
        larger: whether that score is larger in the new cases.
        smallest_p_value: that of the same cases if the most different ones of them were the new ones.

    Example:
        >>> shift_test([[9.0]], [[1.0], [2.0], [3.0]]).smallest_p_value
        0.5
    """

    p_value: float
    score: int
    larger: bool
    smallest_p_value: float


def shift_test(
    scores: ArrayLike, calibration_scores: ArrayLike, num_permutations: int = 9999, seed: int = 0
) -> ShiftTest:
    """Test whether new cases are exchangeable with calibration cases, by several scores of them at once.

    Of every score the sum of ranks is compared, as Wilcoxon, Mann and Whitney do. The largest difference of all scores
    is compared with the largest ones that there are if the cases change places, so that the p-value allows for having
    looked at several scores, however they depend on each other (Westfall and Young, Resampling-Based Multiple Testing,
    1993). It is exact: under exchangeability it is at most u with a probability of at most u. All exchanges are made
    where they are no more than ``num_permutations + 1``, drawn ones otherwise.

    p-values of single cases (`case_shift_p_values`) must not be joined to one of their folder as if they were
    independent: they share their calibration cases.

    Args:
        scores: of new cases (m, score); NaN, a score that a case has not, counts as the largest value.
        calibration_scores: the same scores of calibration cases (n, score).
        num_permutations: how many exchanges are drawn.
        seed: fixes which.

    Returns:
        The result of the test. It looks at both directions.

    Raises:
        ValueError: shapes do not fit, or there is no case or no score.

    Example:
        >>> known = np.arange(20.0)[:, None]
        >>> found = shift_test(known[:5] + 15.5, known)
        >>> found.p_value < 0.01, found.larger
        (True, True)
    """
    new, known = _checked(scores, calibration_scores)
    pooled = np.concatenate([new, known])
    ranks = rankdata(pooled, axis=0)
    ranks -= ranks.mean(0)
    spread = ranks.std(0)
    ranks /= np.where(spread > 0, spread, 1)
    sums = ranks[: len(new)].sum(0)
    number = int(np.abs(sums).argmax())
    found = np.abs(sums[number])

    num, size = len(pooled), min(len(new), len(known))
    ways = math.comb(num, size)
    if ways <= num_permutations + 1:
        chosen = np.array(list(combinations(range(num), size)))
        differences = _largest(ranks, chosen)
        p_value = (differences >= found - _TOLERANCE).mean()
        smallest = (differences >= differences.max() - _TOLERANCE).mean()
    else:
        as_large = 0
        generator = np.random.default_rng(seed)
        step = max(_AT_ONCE // (num * ranks.shape[1]), 1)
        for start in range(0, num_permutations, step):
            keys = generator.random((min(step, num_permutations - start), num))
            chosen = keys.argpartition(size - 1, axis=1)[:, :size]
            as_large += (_largest(ranks, chosen) >= found - _TOLERANCE).sum()
        p_value, smallest = (1 + as_large) / (1 + num_permutations), 1 / (1 + num_permutations)
    return ShiftTest(float(p_value), number, bool(sums[number] > 0), float(smallest))


def case_shift_p_values(scores: ArrayLike, calibration_scores: ArrayLike) -> Array:
    """How unusual each of the new cases is beside the calibration cases, by several scores at once.

    A case and the calibration cases, all alike, have their scores standardised; how unusual one of them is, is its
    largest distance from the mean. The value is the share of those that are at least as unusual as the new one (full
    conformal prediction; Vovk et al., Algorithmic Learning in a Random World, 2005, doi:10.1007/b106715). Under
    exchangeability it is at most u with a probability of at most u, for each new case; the values of several new cases
    depend on each other.

    Args:
        scores: of new cases (m, score); a case that lacks a score is as unusual as can be, together with calibration
            cases that lack one.
        calibration_scores: the same scores of calibration cases (n, score).

    Returns:
        A multiple of 1 / (n + 1) for each new case, (m,).

    Raises:
        ValueError: shapes do not fit, or there is no case or no score.

    Example:
        >>> case_shift_p_values([[9.0], [2.0]], [[1.0], [2.0], [3.0]])
        array([0.25, 1.  ])
    """
    new, known = _checked(scores, calibration_scores)
    return np.array([_case_p_value(np.concatenate([case[None], known])) for case in new])


def _case_p_value(pooled: Array) -> float:
    known = np.isfinite(pooled)
    numbers = np.maximum(known.sum(0), 1)
    values = np.where(known, pooled, 0)
    values = np.where(known, values - values.sum(0) / numbers, 0)
    spread = np.sqrt((values**2).sum(0) / numbers)
    values /= np.where(spread > 0, spread, 1)
    unusual = np.where(known, np.abs(values), np.inf).max(1)
    return float((unusual >= unusual[0] * (1 - _TOLERANCE)).mean())


def _largest(ranks: Array, chosen: NDArray[np.intp]) -> Array:
    return np.abs(ranks[chosen].sum(1)).max(1)


def _checked(scores: ArrayLike, calibration_scores: ArrayLike) -> tuple[Array, Array]:
    new, known = (np.asarray(values, dtype=np.float64) for values in (scores, calibration_scores))
    if new.ndim != 2 or known.ndim != 2 or new.shape[1:] != known.shape[1:] or 0 in (*new.shape, *known.shape):
        raise ValueError(
            f"scores and calibration_scores must be (case, score) with the same scores, got {new.shape} and "
            f"{known.shape}."
        )
    return tuple(np.where(np.isnan(values), np.inf, values) for values in (new, known))  # type: ignore[return-value]
