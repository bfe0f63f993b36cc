"""How well an uncertainty finds poor cases.

Everything takes *uncertainties*, where a high value is suspicious; negate a confidence. A case without a quality does
not count. One without an uncertainty is the most suspicious, and flagged first: a segmentation without foreground has
no foreground to average over, and is often the worst failure; only a correlation, which needs both numbers, leaves it
out. Every result says how many there were. Equal uncertainties leave the order open, so each of them gets its expected
place: results never depend on the order of the cases.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from medcalib.metrics.risk import Array, ranked_pairs, sums_at_ties

__all__ = [
    "FlaggingCurve",
    "FlaggingThreshold",
    "ScoreCorrelation",
    "flagging_curve",
    "flagging_threshold",
    "score_correlation",
]

FIVE_PERCENT = 0.05


class ScoreCorrelation(NamedTuple):
    """Spearman's rank correlation.

    Attributes:
        correlation: in [-1, 1].
        p_value: probability of a correlation at least as far from 0 if there were none.
        num_cases: how many cases counted.
        left_out: how many cases lacked one of the two numbers.

    Example:
        >>> score_correlation([0.1, 0.9, 0.3, 0.2], [0.9, 0.4, 0.8, 0.85]).correlation
        -1.0
    """

    correlation: float
    p_value: float
    num_cases: int
    left_out: int = 0


class FlaggingCurve(NamedTuple):
    """Poor cases that remain when the most uncertain cases are flagged.

    Attributes:
        fraction: part of the cases that is flagged, from 0 to 1.
        remaining: poor cases that were not flagged, divided by all cases, same shape.
        ideal: ``remaining`` if the quality itself were the uncertainty, same shape.
        poor: part of all cases that is poor, where every curve begins.
        area: area under ``remaining``; ``random_area`` if the uncertainty knows nothing, more if it misleads.
        random_area: area under the straight line from (0, ``poor``) to (1, 0), expected of random flags.
        ideal_area: area under ``ideal``, that of a triangle with two sides of length ``poor``.
        flagged_at_5_percent: smallest part to flag so that at most 5 % of all cases are poor and not flagged.
        num_cases: how many cases counted.
        unknown: how many of them had no uncertainty and were flagged first.

    Example:
        >>> curve = flagging_curve([0.1, 0.9, 0.3, 0.2], [0.9, 0.4, 0.8, 0.9], threshold=0.6)
        >>> curve.poor, curve.flagged_at_5_percent
        (0.25, 0.2)
    """

    fraction: Array
    remaining: Array
    ideal: Array
    poor: float
    area: float
    random_area: float
    ideal_area: float
    flagged_at_5_percent: float
    num_cases: int
    unknown: int = 0


class FlaggingThreshold(NamedTuple):
    """Rule for use: flag a case whose uncertainty is above the threshold, or unknown.

    Attributes:
        threshold: in the unit of the uncertainty; minus infinity if the uncertainty of all cases is unknown.
        flagged: part of the cases that the rule flags.
        poor_left: poor cases that it does not flag, divided by all cases.
        num_cases: how many cases counted.
        unknown: how many of them had no uncertainty.

    Example:
        >>> flagging_threshold([0.1, 0.9, 0.3, 0.2], [0.9, 0.4, 0.8, 0.9], poor_below=0.6)
        FlaggingThreshold(threshold=0.3, flagged=0.25, poor_left=0.0, num_cases=4, unknown=0)
    """

    threshold: float
    flagged: float
    poor_left: float
    num_cases: int
    unknown: int = 0


def score_correlation(scores: ArrayLike, quality: ArrayLike) -> ScoreCorrelation:
    """Spearman's rank correlation of a score with the quality of the segmentations.

    Args:
        scores: one number a case, (case,); NaN where unknown.
        quality: such as Dice, for which a good uncertainty is near -1, or a distance in mm, near 1; (case,); NaN where
            unknown.

    Returns:
        The correlation and its p value, NaN for fewer than three pairs or if either side is constant; over how many
        cases, and how many were left out.

    Raises:
        ValueError: If shapes differ or a value is infinite.

    Example:
        >>> round(score_correlation([0.1, 0.2, 0.3, 0.9], [0.9, 0.8, 0.85, 0.2]).correlation, 3)
        -0.8
    """
    total = np.size(scores)
    scores, quality = ranked_pairs(scores, quality)
    scores, quality = scores[np.isfinite(scores)], quality[np.isfinite(scores)]
    counts = len(scores), total - len(scores)
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(quality) == 0:
        return ScoreCorrelation(np.nan, np.nan, *counts)
    result = spearmanr(scores, quality)
    return ScoreCorrelation(float(result.statistic), float(result.pvalue), *counts)


def flagging_curve(uncertainty: ArrayLike, quality: ArrayLike, threshold: float, num_points: int = 50) -> FlaggingCurve:
    """Poor cases that a reviewer of the most uncertain cases would not see (https://arxiv.org/abs/2203.08878).

    Between two numbers of flagged cases the curve is a straight line. Areas are those of trapezoids between its points.

    Args:
        uncertainty: one number a case, (case,); cases where it is NaN are flagged first.
        quality: such as Dice, (case,); higher is better. Cases where it is NaN are left out.
        threshold: a case whose quality is below it is poor.
        num_points: points of the curve, at equal distances from 0 to 1.

    Returns:
        The curve, with the random and the ideal one; all NaN without any case.

    Raises:
        ValueError: If shapes differ, a value is infinite, ``threshold`` is NaN or ``num_points`` is below 2.

    Example:
        >>> curve = flagging_curve([0.9, 0.1, 0.5, 0.3], [0.2, 0.9, 0.8, 0.4], threshold=0.5, num_points=5)
        >>> curve.remaining.tolist(), curve.ideal.tolist(), curve.area
        ([0.5, 0.25, 0.25, 0.0, 0.0], [0.5, 0.25, 0.0, 0.0, 0.0], 0.1875)
    """
    if num_points < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}.")
    uncertainty, poor = _poor_cases(uncertainty, quality, threshold)
    fraction = np.linspace(0.0, 1.0, num_points)
    count = len(poor)
    if count == 0:
        nothing = np.full(num_points, np.nan)
        return FlaggingCurve(fraction, nothing, nothing, np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    flagged, found = sums_at_ties(-uncertainty, poor)
    flagged, left = flagged / count, (found[-1] - found) / count
    share = float(left[0])
    remaining = np.interp(fraction, flagged, left)
    ideal = np.maximum(share - fraction, 0.0)
    return FlaggingCurve(
        fraction=fraction,
        remaining=remaining,
        ideal=ideal,
        poor=share,
        area=float(np.trapezoid(remaining, fraction)),
        random_area=share / 2,
        ideal_area=float(np.trapezoid(ideal, fraction)),
        flagged_at_5_percent=_first_at_most(FIVE_PERCENT, flagged, left),
        num_cases=count,
        unknown=int(np.isinf(uncertainty).sum()),
    )


def flagging_threshold(
    uncertainty: ArrayLike, quality: ArrayLike, poor_below: float, max_poor: float = FIVE_PERCENT
) -> FlaggingThreshold:
    """Uncertainty above which a case is flagged, so that few poor cases pass on the cases given.

    It is the uncertainty of the last case that passes: the largest one if nothing has to be flagged, and the number
    just below the smallest one if everything has to be. A case without an uncertainty never passes. It promises nothing
    for cases that differ from these.

    Args:
        uncertainty: one number a case, (case,), such as those of the calibration split; NaN where unknown.
        quality: such as Dice, (case,); higher is better. Cases where it is NaN are left out.
        poor_below: a case whose quality is below it is poor.
        max_poor: how many poor cases may pass, divided by all cases.

    Returns:
        The threshold that flags the fewest cases, and what it does to these cases; NaN without any case.

    Raises:
        ValueError: If shapes differ, a value is infinite, ``poor_below`` is NaN or ``max_poor`` is outside [0, 1].

    Example:
        >>> flagging_threshold([0.9, 0.1, 0.5, 0.3], [0.2, 0.9, 0.8, 0.7], poor_below=0.5)
        FlaggingThreshold(threshold=0.5, flagged=0.25, poor_left=0.0, num_cases=4, unknown=0)
    """
    if not 0 <= max_poor <= 1:
        raise ValueError(f"max_poor must lie in [0, 1], got {max_poor}.")
    uncertainty, poor = _poor_cases(uncertainty, quality, poor_below)
    count = len(poor)
    if count == 0:
        return FlaggingThreshold(np.nan, np.nan, np.nan, 0)
    known = np.isfinite(uncertainty)
    passing, poor_passing = sums_at_ties(uncertainty[known], poor[known])
    last = np.flatnonzero(poor_passing / count <= max_poor)[-1]
    thresholds = np.unique(uncertainty[known])
    if last > 0:
        threshold = thresholds[last - 1]
    else:
        threshold = np.nextafter(thresholds[0], -np.inf) if len(thresholds) else -np.inf
    return FlaggingThreshold(
        threshold=float(threshold),
        flagged=float((count - passing[last]) / count),
        poor_left=float(poor_passing[last] / count),
        num_cases=count,
        unknown=int(count - known.sum()),
    )


def _poor_cases(uncertainty: ArrayLike, quality: ArrayLike, threshold: float) -> tuple[Array, Array]:
    """Uncertainties, infinite where unknown, and 1 for a poor case or 0 for another."""
    if np.isnan(threshold):
        raise ValueError("the quality below which a case is poor must be a number, got NaN.")
    uncertainty, quality = ranked_pairs(uncertainty, quality)
    return uncertainty, (quality < threshold).astype(np.float64)


def _first_at_most(level: float, x: Array, y: Array) -> float:
    """Where the falling line through the points first reaches the level."""
    after = int(np.argmax(y <= level))
    if after == 0:
        return float(x[0])
    before = after - 1
    return float(x[before] + (x[after] - x[before]) * (y[before] - level) / (y[before] - y[after]))
