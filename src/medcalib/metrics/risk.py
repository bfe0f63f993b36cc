"""Risk and coverage: what goes wrong among the most certain cases or voxels.

A case without a risk does not count. One without an uncertainty counts as the most uncertain: a segmentation without
foreground has no foreground to average over, and is often the worst failure. Every result says how many there were.
Equal uncertainties leave the order open, so each of them gets its expected place: results never depend on the order of
the cases.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

__all__ = ["RiskCoverage", "VoxelRiskCoverage", "aurc", "excess_aurc", "ranked_pairs", "risk_coverage", "sums_at_ties"]

Array = NDArray[np.float64]

# voxels that are counted at a time
_VOXELS = 1 << 20


class RiskCoverage(NamedTuple):
    """Risk of what is kept when only the most certain part is.

    Attributes:
        coverage: part that is kept, ascending in (0, 1].
        risk: mean risk of that part, same shape.
        oracle: mean risk if the risk itself were the uncertainty, same shape.
        aurc: area under ``risk``.
        oracle_aurc: area under ``oracle``.
        count: how many cases or voxels counted.
        unknown: how many of them had no uncertainty and came last.

    Example:
        >>> curve = risk_coverage(uncertainty=[0.1, 0.9, 0.3, 0.2], risk=[0.1, 0.6, 0.2, 0.1])
        >>> round(curve.aurc, 4), curve.excess_aurc
        (0.1458, 0.0)
    """

    coverage: Array
    risk: Array
    oracle: Array
    aurc: float
    oracle_aurc: float
    count: int  # type: ignore[assignment]  # a tuple's method, which nobody needs here
    unknown: int = 0

    @property
    def excess_aurc(self) -> float:
        """E-AURC: what the area exceeds the oracle's by; 0 for a perfect order."""
        return self.aurc - self.oracle_aurc


def risk_coverage(uncertainty: ArrayLike, risk: ArrayLike) -> RiskCoverage:
    r"""Mean risk of the most certain cases, for every number of them.

    With the risks :math:`r_{(1)}, \dots, r_{(n)}` in the order of rising uncertainty:

    .. math::
        \mathrm{AURC} = \frac{1}{n} \sum_{k=1}^{n} \frac{1}{k} \sum_{i=1}^{k} r_{(i)}

    and the excess over the AURC of the order by risk itself, E-AURC (https://arxiv.org/abs/1805.08206).

    Args:
        uncertainty: one number a case, (case,); NaN comes after all numbers.
        risk: of any unit, such as 1 - Dice, (case,); cases where it is NaN are left out.

    Returns:
        The curve at 1, 2, ... cases, its area in the unit of the risk, and the oracle's; NaN areas without any case.

    Raises:
        ValueError: If shapes differ or a value is infinite.

    Example:
        >>> curve = risk_coverage([0.1, 0.5, 0.3], [0.0, 0.6, 0.3])
        >>> curve.risk.round(3).tolist(), round(curve.aurc, 3), round(curve.excess_aurc, 3)
        ([0.0, 0.15, 0.3], 0.15, 0.0)
    """
    uncertainty, risk = ranked_pairs(uncertainty, risk)
    count = len(risk)
    if count == 0:
        return RiskCoverage(risk, risk, risk, np.nan, np.nan, 0)
    kept = np.arange(1.0, count + 1)
    selected, oracle = (np.interp(kept, *sums_at_ties(key, risk)) / kept for key in (uncertainty, risk))
    unknown = int(np.isinf(uncertainty).sum())
    return RiskCoverage(kept / count, selected, oracle, float(selected.mean()), float(oracle.mean()), count, unknown)


def aurc(uncertainty: ArrayLike, risk: ArrayLike) -> float:
    """Area under the curve of :func:`risk_coverage`, in the unit of the risk; 0 is best.

    Args:
        uncertainty: one number a case, (case,); NaN comes after all numbers.
        risk: such as 1 - Dice, (case,); cases where it is NaN are left out.

    Returns:
        The area, NaN without any case.

    Raises:
        ValueError: If shapes differ or a value is infinite.

    Example:
        >>> round(aurc([0.1, 0.5, 0.3], [0.0, 0.3, 0.6]), 3)
        0.2
    """
    return risk_coverage(uncertainty, risk).aurc


def excess_aurc(uncertainty: ArrayLike, risk: ArrayLike) -> float:
    """What the area under the curve of :func:`risk_coverage` exceeds that of a perfect order by; 0 is best.

    Args:
        uncertainty: one number a case, (case,); NaN comes after all numbers.
        risk: such as 1 - Dice, (case,); cases where it is NaN are left out.

    Returns:
        The excess, NaN without any case.

    Raises:
        ValueError: If shapes differ or a value is infinite.

    Example:
        >>> round(excess_aurc([0.1, 0.5, 0.3], [0.0, 0.3, 0.6]), 3)
        0.05
    """
    return risk_coverage(uncertainty, risk).excess_aurc


class VoxelRiskCoverage:
    r"""Risk and coverage over voxels, where the risk of a voxel is 1 if it is wrong and 0 otherwise.

    Uncertainties are sorted into bins, so memory does not grow with the number of voxels. The bins are equal in the
    fourth root of the uncertainty: most voxels of a volume are nearly certain, and equal bins would throw them into
    one. Inside a bin the order is taken as unknown, with its expected value as in :func:`risk_coverage`: a bin of m
    voxels, e of them wrong, after n less uncertain ones, s of them wrong, adds

    .. math::
        \sum_{j=1}^{m} \frac{s + j e / m}{n + j} = e + \left(s - \frac{e n}{m}\right) (H_{n+m} - H_n)

    to N times the AURC, with the harmonic numbers H.

    Args:
        max_uncertainty: upper end of the last bin, such as the logarithm of the number of classes for an entropy.
        num_bins: number of bins on [0, ``max_uncertainty``].

    Raises:
        ValueError: If ``max_uncertainty`` is not above 0 or ``num_bins`` below 1.

    Example:
        >>> metric = VoxelRiskCoverage(max_uncertainty=1.0)
        >>> metric.update(np.array([0.1, 0.2, 0.8]), np.array([False, False, True]))
        >>> metric.update(np.array([0.5, 0.9]), np.array([True, False]))
        >>> round(metric.aurc(), 4), round(metric.excess_aurc(), 4)
        (0.2467, 0.1167)
    """

    def __init__(self, max_uncertainty: float, num_bins: int = 4096) -> None:
        if not 0 < max_uncertainty < np.inf:
            raise ValueError(f"max_uncertainty must be above 0 and finite, got {max_uncertainty}.")
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
        self.max_uncertainty = float(max_uncertainty)
        self.num_bins = num_bins
        self.counts = np.zeros(num_bins, dtype=np.int64)
        self.errors = np.zeros(num_bins, dtype=np.int64)

    def update(self, uncertainty: ArrayLike, error: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Count the voxels of a case.

        Args:
            uncertainty: in [0, ``max_uncertainty``], any shape.
            error: whether a voxel is wrong, booleans or 0 and 1, same shape.
            mask: voxels where it is zero do not count, same shape.

        Raises:
            ValueError: If shapes differ, or a voxel that counts has another value.
        """
        values, wrong = np.asarray(uncertainty), np.asarray(error)
        inside = np.broadcast_to(True, wrong.shape) if mask is None else np.asarray(mask)
        if not values.shape == wrong.shape == inside.shape:
            raise ValueError(
                f"uncertainty, error and mask differ in shape: {values.shape}, {wrong.shape} and {inside.shape}."
            )
        values, wrong, inside = np.atleast_1d(values), np.atleast_1d(wrong), np.atleast_1d(inside)
        counts, errors = np.zeros_like(self.counts), np.zeros_like(self.errors)
        # few at a time, or what is computed on the way would take several times the memory of the map
        planes = max(_VOXELS * len(wrong) // max(wrong.size, 1), 1)
        for start in range(0, len(wrong), planes):
            part = slice(start, start + planes)
            chosen = inside[part] != 0
            self._count(values[part][chosen], wrong[part][chosen], counts, errors)
        self.counts += counts
        self.errors += errors

    def _count(self, uncertainty: NDArray, error: NDArray, counts: NDArray, errors: NDArray) -> None:
        if uncertainty.size == 0:
            return
        low, high = uncertainty.min(), uncertainty.max()
        # Rounding of float32 may carry an entropy a little past either end.
        slack = 1e-5 * self.max_uncertainty
        if not (low >= -slack and high <= self.max_uncertainty + slack):
            raise ValueError(
                f"uncertainty must lie in [0, {self.max_uncertainty:g}], got values from {low:g} to {high:g}."
            )
        wrong = error != 0
        if not (wrong == error).all():
            raise ValueError("error must be 0 or 1 at every voxel.")
        position = np.sqrt(np.sqrt(uncertainty.clip(0, None) / self.max_uncertainty))
        bins = (position * self.num_bins).astype(np.int64).clip(None, self.num_bins - 1)
        counts += np.bincount(bins, minlength=self.num_bins)
        errors += np.bincount(bins[wrong], minlength=self.num_bins)

    def merge(self, other: VoxelRiskCoverage) -> None:
        """Add the voxels that another one has counted.

        Raises:
            ValueError: If its bins are others.
        """
        if (self.max_uncertainty, self.num_bins) != (other.max_uncertainty, other.num_bins):
            raise ValueError("only risk and coverage over the same bins can be merged.")
        self.counts += other.counts
        self.errors += other.errors

    def curve(self) -> RiskCoverage:
        """The curve at the upper end of every bin that holds a voxel; NaN areas if none does."""
        filled = self.counts > 0
        counts, errors = self.counts[filled].astype(float), self.errors[filled].astype(float)
        total = int(self.counts.sum())
        if total == 0:
            return RiskCoverage(counts, counts, counts, np.nan, np.nan, 0)
        right = float(total - self.errors.sum())
        kept = np.cumsum(counts)
        oracle = np.maximum(kept - right, 0.0) / kept
        oracle_area = _harmonic_area(np.array([right, total - right]), np.array([0.0, total - right])) / total
        return RiskCoverage(
            kept / total, np.cumsum(errors) / kept, oracle, _harmonic_area(counts, errors) / total, oracle_area, total
        )

    def aurc(self) -> float:
        """Area under the curve, in [0, 1]; NaN without any voxel."""
        return self.curve().aurc

    def excess_aurc(self) -> float:
        """What the area exceeds that of a perfect order by; NaN without any voxel."""
        return self.curve().excess_aurc


def ranked_pairs(uncertainty: ArrayLike, value: ArrayLike) -> tuple[Array, Array]:
    """Both as float64, without the cases that have no value; an unknown uncertainty is infinite.

    Args:
        uncertainty: one number a case, (case,); NaN where unknown.
        value: such as a risk or a quality, (case,); NaN where unknown.

    Raises:
        ValueError: If shapes differ or a value is infinite.

    Example:
        >>> ranked_pairs([0.5, np.nan, 0.25], [0.0, 1.0, np.nan])
        (array([0.5, inf]), array([0., 1.]))
    """
    uncertainty, value = np.asarray(uncertainty, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if uncertainty.ndim != 1 or uncertainty.shape != value.shape:
        raise ValueError(f"expected one number a case on both sides, got shapes {uncertainty.shape} and {value.shape}.")
    if np.isinf(uncertainty).any() or np.isinf(value).any():
        raise ValueError("an infinite value has no place in a curve: leave the case out or set it to NaN.")
    known = ~np.isnan(value)
    return np.where(np.isnan(uncertainty), np.inf, uncertainty)[known], value[known]


def sums_at_ties(key: Array, values: Array) -> tuple[Array, Array]:
    """Number of values, and their sum, up to the end of each run of equal keys, ascending, with (0, 0) before.

    Over all orders of equal keys the expected sum is a straight line between two such ends.
    """
    order = np.lexsort((values, key))
    key, sums = key[order], np.cumsum(values[order])
    ends = np.flatnonzero(np.append(key[1:] != key[:-1], True)[: len(key)])
    return np.append(0.0, ends + 1.0), np.append(0.0, sums[ends])


def _harmonic_area(counts: Array, errors: Array) -> float:
    """Sum over voxels of the mean error up to them, for groups in which the order is unknown."""
    counts, errors = counts[counts > 0], errors[counts > 0]
    before, wrong_before = np.cumsum(counts) - counts, np.cumsum(errors) - errors
    harmonics = digamma(before + counts + 1) - digamma(before + 1)
    return float((errors + (wrong_before - errors / counts * before) * harmonics).sum())
