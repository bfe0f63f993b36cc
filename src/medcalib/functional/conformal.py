"""Promises that hold for a new case if it is exchangeable with the cases on which they were fitted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["adaptive_scores", "conformal_p_values", "conformal_quantile", "num_cases_needed"]


def num_cases_needed(alpha: float) -> int:
    """Smallest number of calibration cases that can promise an error of at most ``alpha``.

    Args:
        alpha: error that is allowed, in (0, 1).

    Returns:
        The smallest n with 1 / (n + 1) <= alpha.

    Raises:
        ValueError: ``alpha`` is not in (0, 1).

    Example:
        >>> num_cases_needed(0.1), num_cases_needed(0.05)
        (9, 19)
    """
    _check_share("alpha", alpha)
    return max(1, math.ceil(_rounded(1 / alpha)) - 1)


def conformal_quantile(scores: Tensor, alpha: float) -> float:
    """The number that the score of a new case exceeds with a probability of at most ``alpha``.

    It is the score of rank ceil((n + 1) (1 - alpha)) among n calibration cases (split conformal prediction; Lei et al.,
    Distribution-free predictive inference for regression, arXiv:1604.04173). If all scores differ, the new one exceeds
    it with a probability of at least alpha - 1 / (n + 1).

    Args:
        scores: scores of the calibration cases (n,), larger ones are worse; infinity is allowed.
        alpha: probability, in (0, 1).

    Returns:
        One of the scores.

    Raises:
        ValueError: scores are NaN or have another shape, or they are too few for ``alpha``.

    Example:
        >>> conformal_quantile(torch.arange(1.0, 20.0), alpha=0.1)
        18.0
    """
    _check_scores(scores)
    _check_number(len(scores), alpha)
    rank = math.ceil(_rounded((len(scores) + 1) * (1 - alpha)))
    return float(scores.double().sort().values[rank - 1])


def conformal_p_values(scores: Tensor, calibration_scores: Tensor) -> Tensor:
    """How unusual new cases are among calibration cases.

    The value of a case that is exchangeable with them is at most u with a probability of at most u, for every u in
    [0, 1] (Vovk et al., Algorithmic Learning in a Random World, 2005, doi:10.1007/b106715).

    Args:
        scores: scores of new cases (m,), larger ones are more unusual.
        calibration_scores: those of calibration cases (n,).

    Returns:
        (1 + number of calibration cases with a score as large or larger) / (n + 1) of every new case, (m,), float64.

    Raises:
        ValueError: scores are NaN, have another shape, or there are none of calibration cases.

    Example:
        >>> conformal_p_values(torch.tensor([0.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1.0000, 0.2500], dtype=torch.float64)
    """
    _check_scores(calibration_scores)
    if len(scores):
        _check_scores(scores)
    known = calibration_scores.double().sort().values
    smaller = torch.searchsorted(known, scores.double().contiguous(), right=False)
    return (1 + len(known) - smaller).double() / (len(known) + 1)


def adaptive_scores(
    probs: Tensor, penalty: float = 0.0, free_classes: int = 0, randomness: Tensor | None = None
) -> Tensor:
    """Scores of every class of whole images, whose `conformal_quantile` over true classes gives prediction sets.

    The score of a class is the sum of the probabilities of all classes that are at least as probable (APS; Romano et
    al., arXiv:2006.02544), plus a penalty for each class beyond the first ``free_classes`` in that order (RAPS;
    Angelopoulos et al., arXiv:2009.14193). A prediction set holds the classes whose score is not above the quantile,
    so it begins with the most probable class. Of classes of equal probability the one with the smaller index is first.

    Args:
        probs: probabilities of exclusive classes (B, C).
        penalty: what each further class adds, not negative.
        free_classes: number of classes without a penalty.
        randomness: numbers of [0, 1] (B,), the part of a class's own probability that is left out of its score; without
            them, sets are a little larger than they need to be.

    Returns:
        Scores (B, C), float64.

    Raises:
        ValueError: shapes or values are out of range.

    Example:
        >>> scores = adaptive_scores(torch.tensor([[0.5, 0.25, 0.25]]))
        >>> scores, scores <= 0.75
        (tensor([[0.5000, 0.7500, 1.0000]], dtype=torch.float64), tensor([[ True,  True, False]]))
    """
    if probs.ndim != 2 or not bool(((probs >= 0) & (probs <= 1)).all()):
        raise ValueError(f"probs must be probabilities (B, C), got shape {tuple(probs.shape)} or values out of [0, 1].")
    if penalty < 0 or free_classes < 0:
        raise ValueError(f"penalty and free_classes must not be negative, got {penalty} and {free_classes}.")
    ordered, order = probs.double().sort(dim=1, descending=True, stable=True)
    rank = torch.arange(1, probs.shape[1] + 1, device=probs.device)
    scores = ordered.cumsum(1) + penalty * (rank - free_classes).clamp(min=0)
    if randomness is not None:
        if randomness.shape != probs.shape[:1]:
            raise ValueError(f"randomness must have shape {tuple(probs.shape[:1])}, got {tuple(randomness.shape)}.")
        scores = scores - randomness.double()[:, None] * ordered
    return torch.empty_like(scores).scatter_(1, order, scores)


def _check_number(num_cases: int, alpha: float) -> None:
    if num_cases < (needed := num_cases_needed(alpha)):
        raise ValueError(f"an error of at most {alpha:g} needs {needed} calibration cases, there are {num_cases}.")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}.")


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 1 or len(scores) == 0 or scores.isnan().any():
        raise ValueError(f"scores must be numbers in one dimension, got shape {tuple(scores.shape)} or NaN.")


def _rounded(value: float) -> float:
    # 20 * (1 - 0.1) is 18, though floats say a little more
    return round(value, 9)
