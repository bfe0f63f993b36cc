"""Thresholds of probabilities that keep a risk below a level, from the losses of calibration cases."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medcalib.functional.inputs import plain

__all__ = [
    "binomial_p_values",
    "controlled_index",
    "fixed_sequence",
    "hoeffding_bentkus_p_values",
    "num_cases_to_reject",
    "set_losses",
    "set_thresholds",
]


def set_thresholds(step: float = 0.05, largest: float = 14.0) -> Tensor:
    """Thresholds of probabilities, ascending: 0, and then evenly spaced log-odds.

    Args:
        step: between neighbours, in log-odds.
        largest: log-odds of the last one; the first after 0 is minus this.

    Returns:
        (T,), float32, so that probabilities are compared with them alike wherever they are used.

    Example:
        >>> set_thresholds(step=14.0)
        tensor([0.0000e+00, 8.3153e-07, 5.0000e-01, 1.0000e+00])
    """
    steps = round(2 * largest / step)
    log_odds = torch.linspace(-largest, largest, steps + 1, dtype=torch.float64)
    # near 1 not all of them are different numbers
    return torch.cat([torch.zeros(1), log_odds.sigmoid().float().unique()])


def set_losses(probs: Tensor, target: Tensor, thresholds: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How much of each class is missed, and how much is wrongly taken, by the sets of voxels above thresholds.

    Args:
        probs: probabilities of one case (C, ...).
        target: whether a voxel is of a class, (C, ...), 0 or 1.
        thresholds: ascending (T,), as of `set_thresholds`; a set holds the voxels with probs >= threshold.
        mask: (1, ...); voxels where it is zero do not count.

    Returns:
        Share of the class's voxels that are not in the set, (C, T), float64, never falling from left to right, NaN for
        a class that the case does not have; and share of the set's voxels that are not of the class, (C, T), 0 for an
        empty set.

    Raises:
        ValueError: shapes do not fit or thresholds do not ascend.

    Example:
        >>> missed, wrong = set_losses(
        ...     torch.tensor([[0.9, 0.6, 0.4, 0.1]]), torch.tensor([[1, 0, 1, 0]]), torch.tensor([0.0, 0.3, 0.8])
        ... )
        >>> missed.tolist(), wrong[:, ::2].tolist()
        ([[0.0, 0.0, 0.5]], [[0.5, 0.0]])
    """
    if probs.shape != target.shape or (mask is not None and mask.shape != (1, *probs.shape[1:])):
        raise ValueError(f"probs {tuple(probs.shape)}, target {tuple(target.shape)} and mask do not fit together.")
    if thresholds.ndim != 1 or not bool((thresholds.diff() > 0).all()):
        raise ValueError("thresholds must ascend in one dimension.")
    counts = mask is None or plain(mask).flatten() != 0
    missed, wrong = [], []
    for values, true in zip(plain(probs).flatten(1), plain(target).flatten(1), strict=True):
        if mask is not None:
            values, true = values[counts], true[counts]
        number = torch.bucketize(values, thresholds.to(values), right=True)
        all_, own = (_above(number[chosen], len(thresholds)) for chosen in (slice(None), true != 0))
        size = (true != 0).sum()
        missed.append(1 - own / size if size else torch.full_like(own, math.nan))
        wrong.append(1 - own / all_.clamp(min=1) - (all_ == 0).double())
    return torch.stack(missed), torch.stack(wrong)


def _above(number: Tensor, num_thresholds: int) -> Tensor:
    """Of so many thresholds, how many voxels reach each, where every voxel says how many thresholds it reaches."""
    counts = torch.bincount(number, minlength=num_thresholds + 1)
    return counts.flip(0).cumsum(0).flip(0)[1:].double()


def controlled_index(losses: Tensor, alpha: float, bound: float = 1.0) -> int:
    """The last threshold that keeps the expected loss of a new case at ``alpha`` or less: conformal risk control.

    That is the largest k with (sum of the n losses + bound) / (n + 1) <= alpha (Angelopoulos et al., arXiv:2208.02814).
    The expectation is over calibration cases and the new one, which must be exchangeable. Where losses grow in small
    steps, the expected loss is not below alpha - 2 bound / (n + 1).

    Args:
        losses: of calibration cases and thresholds (n, T), in [0, bound], never falling along thresholds.
        alpha: expected loss that is allowed, in (0, bound).
        bound: the largest loss that a case can have.

    Returns:
        Index of the threshold.

    Raises:
        ValueError: losses are out of range or fall, or the cases are too few for ``alpha``.

    Example:
        >>> controlled_index(torch.tensor([[0.0, 0.1, 0.5]]).expand(19, 3), alpha=0.15)
        1
    """
    if losses.ndim != 2 or not bool(((losses >= 0) & (losses <= bound)).all()):
        raise ValueError(f"losses must have shape (cases, thresholds) and lie between 0 and {bound:g}.")
    if bool((losses.diff(dim=1) < -1e-12).any()):
        raise ValueError("losses must not fall along thresholds.")
    if not 0 < alpha < bound:
        raise ValueError(f"alpha must lie between 0 and {bound:g}, got {alpha}.")
    risk = (losses.double().sum(0) + bound) / (len(losses) + 1)
    allowed = int((risk <= alpha + 1e-12).sum())
    if not allowed:
        raise ValueError(
            f"no threshold keeps the risk at {alpha:g}: {len(losses)} cases have a risk of at least {risk[0]:.3g}."
        )
    return allowed - 1


def hoeffding_bentkus_p_values(losses: Tensor, alpha: float) -> Tensor:
    """p-values of the hypotheses that the expected loss is above ``alpha``, for losses in [0, 1].

    The smaller of Hoeffding's and Bentkus's bound (Bates et al., arXiv:2101.02703), as learn-then-test uses them
    (Angelopoulos et al., arXiv:2110.01052).

    Args:
        losses: of calibration cases and thresholds (n, T), in [0, 1].
        alpha: expected loss, in (0, 1).

    Returns:
        (T,), float64.

    Raises:
        ValueError: there are no cases, losses are out of range, or ``alpha`` is.

    Example:
        >>> hoeffding_bentkus_p_values(torch.zeros(22, 1), alpha=0.1).item() < 0.1
        True
    """
    if losses.ndim != 2 or len(losses) == 0 or not bool(((losses >= 0) & (losses <= 1)).all()):
        raise ValueError("losses must have shape (cases, thresholds), with one case at least, and lie in [0, 1].")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}.")
    number, mean = len(losses), losses.double().mean(0)
    below = mean.clamp(max=alpha)
    divergence = torch.special.xlogy(below, below / alpha) + torch.special.xlogy(1 - below, (1 - below) / (1 - alpha))
    hoeffding = (-number * divergence).exp()
    # a sum that should be a whole number may lie a little above it
    counts = (losses.double().sum(0) - 1e-9).ceil().clamp(0, number)
    bentkus = math.e * binomial_p_values(counts, torch.full_like(counts, number), alpha)
    return torch.minimum(hoeffding, bentkus).clamp(max=1.0)


def binomial_p_values(counts: Tensor, totals: Tensor, share: float) -> Tensor:
    """Probability of so few events or fewer, if each of so many cases has one with this probability.

    It is the exact p-value of the hypothesis that the probability of an event is above ``share``.

    Args:
        counts: numbers of events (T,).
        totals: numbers of cases (T,); 1 is returned where there are none.
        share: probability, in (0, 1).

    Returns:
        (T,), float64.

    Raises:
        ValueError: a count is negative or larger than its total.

    Example:
        >>> binomial_p_values(torch.tensor([0.0]), torch.tensor([59.0]), 0.05)
        tensor([0.0485], dtype=torch.float64)
    """
    if bool(((counts < 0) | (counts > totals)).any()):
        raise ValueError("counts must lie between 0 and totals.")
    result = torch.ones(counts.shape, dtype=torch.float64)
    for total in totals.unique().tolist():
        events = torch.arange(total + 1, dtype=torch.float64)
        chances = torch.distributions.Binomial(total, torch.tensor(share, dtype=torch.float64)).log_prob(events)
        of_total = totals == total
        result[of_total] = chances.exp().cumsum(0)[counts[of_total].long()].clamp(max=1.0)
    return result


def num_cases_to_reject(share: float, delta: float) -> int:
    """Smallest number of cases that can show that an event is not more probable than ``share``.

    Args:
        share: probability, in (0, 1).
        delta: probability of an error, in (0, 1).

    Returns:
        The smallest n with (1 - share) ** n <= delta, for which n cases without an event are enough.

    Raises:
        ValueError: an argument is not in (0, 1).

    Example:
        >>> num_cases_to_reject(0.05, delta=0.05), num_cases_to_reject(0.1, delta=0.05)
        (59, 29)
    """
    if not 0 < share < 1 or not 0 < delta < 1:
        raise ValueError(f"share and delta must lie between 0 and 1, got {share} and {delta}.")
    return max(1, math.ceil(round(math.log(delta) / math.log1p(-share), 9)))


def fixed_sequence(p_values: Tensor, delta: float) -> int | None:
    """Index of the last hypothesis that is rejected when they are tested in order until one is not.

    All hypotheses up to it are false with a probability of at least 1 - delta, if their order was fixed before the data
    of the tests were seen (fixed-sequence testing; Angelopoulos et al., arXiv:2110.01052).

    Args:
        p_values: in the order of the tests, (T,).
        delta: probability of an error, in (0, 1).

    Returns:
        The index, or None if the first hypothesis is not rejected.

    Raises:
        ValueError: ``delta`` is not in (0, 1).

    Example:
        >>> fixed_sequence(torch.tensor([0.01, 0.04, 0.2, 0.01]), delta=0.05)
        1
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, got {delta}.")
    rejected = int((p_values <= delta).cumprod(0).sum())
    return rejected - 1 if rejected else None
