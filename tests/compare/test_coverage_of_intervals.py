"""95 % intervals hold the truth in 95 % of made-up experiments."""

import numpy as np
import pytest

from medcalib.compare.bootstrap import CaseDraws
from medcalib.compare.drawn_values import Trainings, draw, means

REPEATS, SAMPLES = 1000, 599


def held(make, truth, num_cases):
    """Share of experiments whose interval of the difference holds the truth.

    Args:
        make: from random numbers to the values (seed, case) and the trainings of each of two methods.
        truth: the true difference.
        num_cases: number of cases.
    """
    rng, inside = np.random.default_rng(0), 0
    for repeat in range(REPEATS):
        draws = CaseDraws(SAMPLES, seed=repeat)
        one, other = (
            draw([means(seed[:, None]) for seed in values], num_cases, draws, trainings)
            for values, trainings in make(rng)
        )
        low, high = one.minus(other).intervals(0.95)
        inside += low[0] <= truth <= high[0]
    return inside / REPEATS


def one_seed(rng):
    """Skewed values, as errors are, of 100 cases that both methods find hard or easy."""
    shared = rng.gamma(4, 1, 100)
    base, soft = (shared * scale + rng.gamma(4, 0.5, 100) for scale in (1, 0.8))
    return (soft[None], Trainings("a", 1)), (base[None], Trainings("b", 1))


def other_seeds(rng):
    """Ten trainings of each method, of which each has its own luck."""
    shared = rng.normal(0, 5, 40)
    return tuple(
        (mean + rng.normal(0, 0.5, (10, 1)) + shared * tilt + rng.normal(0, 1, (10, 40)), Trainings(name, 10))
        for name, mean, tilt in (("a", 1.0, 1.1), ("b", 0.0, 0.9))
    )


def same_seeds(rng):
    """Ten trainings that both methods use, so that luck cancels."""
    shared, luck = rng.normal(0, 5, 40), rng.normal(0, 3, (10, 1))
    return tuple(
        (mean + luck * pull + shared * tilt + rng.normal(0, 0.5, (10, 40)), Trainings("a", 10))
        for mean, tilt, pull in ((1.0, 1.1, 1.02), (0.0, 0.9, 0.98))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "truth", "num_cases"), [(one_seed, -0.8, 100), (other_seeds, 1, 40), (same_seeds, 1, 40)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(make, truth, num_cases):
    assert 0.93 <= held(make, truth, num_cases) <= 0.97


@pytest.mark.slow
def test_trainings_that_are_the_same_would_be_drawn_too_wide_if_each_side_had_its_own():
    def apart(rng):
        (one, _), (other, _) = same_seeds(rng)
        return (one, Trainings("a", 10)), (other, Trainings("b", 10))

    assert held(apart, 1, 40) > 0.98
