"""Tests of paired values: the same cases by two methods."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

__all__ = ["PairedTests", "PercentChange", "holm", "paired_tests", "percent_change"]

_ROUNDING = 1e-12
_NEAR_ZERO = 0.05


class PairedTests(NamedTuple):
    """Whether paired values differ, and how much.

    Attributes:
        p_t: two-sided p of the paired t-test; NaN with fewer than two cases, or where all differences are equal.
        p_wilcoxon: two-sided p of Wilcoxon's signed-rank test; NaN with fewer than two cases, 1 where no case differs.
        effect_size: Cohen's d for paired values, mean over standard deviation of the differences; NaN where that is 0.
    """

    p_t: float
    p_wilcoxon: float
    effect_size: float


class PercentChange(NamedTuple):
    """Differences in percent of the reference.

    Attributes:
        of_means: of the mean against the mean of the reference; NaN where that is 0.
        mean: mean over cases of the change of each; NaN where the reference is 0 in all cases.
        sd: standard deviation of the change over cases, divided by their number.
        near_zero: number of cases in which the reference is below a twentieth of its median, so that their percents
            outweigh those of the others; cases where it is 0 are left out of mean and sd.
    """

    of_means: float
    mean: float
    sd: float
    near_zero: int


def paired_tests(values: ArrayLike, reference: ArrayLike) -> PairedTests:
    """Test paired values.

    Args:
        values: of one method, (case,), without NaN.
        reference: of the reference on the same cases, (case,), without NaN.

    Returns:
        p-values and the effect size, positive where ``values`` are larger.

    Example:
        >>> [round(number, 4) for number in paired_tests([2.0, 3.0, 5.0, 4.5], [1.0, 2.5, 3.0, 4.0])]
        [0.0663, 0.125, 1.4142]
    """
    a, b = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    differences = a - b
    if len(a) < 2:
        return PairedTests(np.nan, np.nan, np.nan)
    slack = _ROUNDING * max(np.abs(a).max(), np.abs(b).max())
    if np.abs(differences).max() <= slack:
        return PairedTests(np.nan, 1.0, np.nan)
    with warnings.catch_warnings():
        # of ties, which SciPy's choice of the method takes into account
        warnings.simplefilter("ignore")
        p_wilcoxon = float(stats.wilcoxon(a, b).pvalue)
        if np.ptp(differences) <= 2 * slack:
            return PairedTests(np.nan, p_wilcoxon, np.nan)
        p_t = float(stats.ttest_rel(a, b).pvalue)
    return PairedTests(p_t, p_wilcoxon, float(differences.mean() / differences.std(ddof=1)))


def percent_change(values: ArrayLike, reference: ArrayLike) -> PercentChange:
    """How many percent of the reference the differences are.

    Args:
        values: of one method, (case,), without NaN.
        reference: of the reference on the same cases, (case,), without NaN.

    Returns:
        Percents of the size of the reference, negative where ``values`` are smaller, also where both are negative.

    Example:
        >>> percent_change([1.0, 3.0], [2.0, 4.0])
        PercentChange(of_means=-33.333333333333336, mean=-37.5, sd=12.5, near_zero=0)
    """
    a, b = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if not len(a):
        return PercentChange(np.nan, np.nan, np.nan, 0)
    some = b != 0
    changes = 100 * (a[some] - b[some]) / np.abs(b[some])
    of_means = 100 * (a.mean() - b.mean()) / abs(b.mean()) if b.mean() else np.nan
    near = int((np.abs(b) <= _NEAR_ZERO * np.median(np.abs(b))).sum()) if some.any() else len(b)
    if not changes.size:
        return PercentChange(float(of_means), np.nan, np.nan, near)
    return PercentChange(float(of_means), float(changes.mean()), float(changes.std()), near)


def holm(p_values: ArrayLike) -> np.ndarray:
    """p-values corrected for how many were looked at, by Holm's step-down procedure.

    Rejecting where the corrected p is at most 5 % leaves at most 5 % of families of tests with any false rejection
    (Holm 1979, https://www.jstor.org/stable/4615733).

    Args:
        p_values: p-values of one family of tests (test,). NaN where there was no test, which does not count.

    Returns:
        Corrected p-values (test,), in [0, 1].

    Example:
        >>> holm([0.01, 0.04, np.nan, 0.03]).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    stepped = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    corrected[order] = np.minimum(stepped, 1)
    return corrected
