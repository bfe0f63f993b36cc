"""Numbers over cases as functions of how often each case counts, and their values in draws of cases and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medcalib.compare.bootstrap import CaseDraws, bca_intervals, seed_shares

__all__ = ["CASES", "Drawn", "Statistic", "Trainings", "apart", "draw", "means", "undrawn"]

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""From weights (draw, case) to numbers (draw, number)."""

CASES = "cases"
_LEFT_OUT_BLOCK = 4_000_000
# sums of the same values differ by less, whatever their order
_ROUNDING = 1e-12


class Trainings(NamedTuple):
    """Which trainings the seeds of a method are.

    Attributes:
        name: two methods that use the same trainings have the same name, so that their seeds are drawn together.
        number: how many there are.
    """

    name: str
    number: int


class Drawn(NamedTuple):
    """Numbers, and their values in draws.

    Attributes:
        estimates: (number,).
        draws: (number, draw).
        left_out: values without each case, and without each training, (number, member) by what is drawn.
        of_trainings: values of each training, (number, training); of differences (number, 0).
    """

    estimates: Array
    draws: Array
    left_out: Mapping[str, Array]
    of_trainings: Array

    def take(self, places: Sequence[int]) -> Drawn:
        """Some of the numbers."""
        chosen = list(places)
        left_out = {name: values[chosen] for name, values in self.left_out.items()}
        return Drawn(self.estimates[chosen], self.draws[chosen], left_out, self.of_trainings[chosen])

    def minus(self, other: Drawn) -> Drawn:
        """Differences, of numbers that were drawn with the same cases, and of equal trainings with the same seeds."""
        left_out = {}
        for name in {**self.left_out, **other.left_out}:
            mine = self.left_out.get(name, self.estimates[:, None])
            left_out[name] = apart(mine, other.left_out.get(name, other.estimates[:, None]))
        differences = apart(self.estimates, other.estimates)
        return Drawn(differences, apart(self.draws, other.draws), left_out, np.empty((len(differences), 0)))

    def percent_of(self, other: Drawn) -> Drawn:
        """Differences in percent of the size of others, drawn as in `minus`; NaN where the other is 0."""
        left_out = {}
        for name in {**self.left_out, **other.left_out}:
            mine = self.left_out.get(name, self.estimates[:, None])
            left_out[name] = _percent(mine, other.left_out.get(name, other.estimates[:, None]))
        changes = _percent(self.estimates, other.estimates)
        return Drawn(changes, _percent(self.draws, other.draws), left_out, np.empty((len(changes), 0)))

    def intervals(self, confidence: float) -> tuple[Array, Array]:
        """Lower and upper ends of the BCa intervals, (number,)."""
        return bca_intervals(self.estimates, self.draws, list(self.left_out.values()), confidence)


def draw(statistics: Sequence[Statistic], num_cases: int, cases: CaseDraws, trainings: Trainings) -> Drawn:
    """Draw cases and trainings.

    Args:
        statistics: for each training, numbers as a function of how often each case counts.
        num_cases: number of cases.
        cases: the draws.
        trainings: which trainings these are.

    Returns:
        Means over the trainings. With fewer than two cases there is one draw, of NaN.
    """
    every = np.array([statistic(np.ones((1, num_cases)))[0] for statistic in statistics])
    estimates, number = every.mean(0), len(statistics)
    if num_cases < 2:
        return undrawn(every)
    shares = seed_shares(number, cases.num_samples, cases.seed, trainings.name)
    draws, start = np.empty((len(estimates), cases.num_samples)), 0
    for weights in cases.blocks(num_cases):
        end = start + len(weights)
        draws[:, start:end] = sum(
            (shares[start:end, place, None] * statistic(weights)).T for place, statistic in enumerate(statistics)
        )
        start = end
    left_out = {CASES: np.mean([_without_each(statistic, num_cases) for statistic in statistics], 0)}
    if number > 1:
        left_out[trainings.name] = ((every.sum(0) - every) / (number - 1)).T
    return Drawn(estimates, draws, left_out, every.T)


def apart(values: Array, others: Array) -> Array:
    """Differences; 0 where they are but rounding, so that equal values tie."""
    differences = values - others
    return np.where(np.abs(differences) <= _ROUNDING * np.abs(values), 0, differences)


def _percent(values: Array, others: Array) -> Array:
    differences, sizes = apart(values, others), np.abs(others)
    return np.where(sizes > 0, 100 * differences / np.where(sizes > 0, sizes, 1), np.nan)


def undrawn(every: Array) -> Drawn:
    """Numbers of which no draw is known.

    Args:
        every: of each training, (training, number).
    """
    nothing = np.full((every.shape[1], 1), np.nan)
    return Drawn(every.mean(0), nothing, {CASES: nothing}, every.T)


def means(values: Array) -> Statistic:
    """Means over cases.

    Args:
        values: (case, number).
    """
    # as many cases are drawn each time
    return lambda weights: weights @ values / weights[0].sum()


def _without_each(statistic: Statistic, num_cases: int) -> Array:
    size = max(1, _LEFT_OUT_BLOCK // num_cases)
    blocks = []
    for start in range(0, num_cases, size):
        places = np.arange(start, min(start + size, num_cases))
        weights = np.ones((len(places), num_cases))
        weights[np.arange(len(places)), places] = 0
        blocks.append(statistic(weights))
    return np.concatenate(blocks).T
