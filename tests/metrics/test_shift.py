"""Tests of exchangeability keep their level, equal SciPy's and slow searches, and see cases that are not alike."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import combine_pvalues, mannwhitneyu, permutation_test

from medcalib.functional import conformal_p_values
from medcalib.metrics import case_shift_p_values, shift_test


def correlated(random, cases, scores=4, shift=0.0):
    """Skewed scores that depend on each other, as uncertainties of cases do."""
    common = random.normal(size=(cases, 1)) + shift
    return np.exp(0.8 * common + 0.6 * random.normal(size=(cases, scores)))


@pytest.mark.parametrize(("new", "known"), [(1, 12), (4, 9), (7, 6)])
def test_one_score_has_the_exact_p_value_of_scipy(new, known):
    random = np.random.default_rng(0)
    one, other = random.normal(0.8, 1, new), random.normal(size=known)
    found = shift_test(one[:, None], other[:, None])
    expected = mannwhitneyu(one, other, method="exact").pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-12)
    assert found.larger == (np.median(one) > np.median(other))


def test_drawn_exchanges_come_near_to_all():
    random = np.random.default_rng(1)
    new, known = correlated(random, 5, shift=0.5), correlated(random, 10)
    exact = shift_test(new, known)
    drawn = shift_test(new, known, num_permutations=2500)
    assert math.comb(15, 5) > 2501
    assert abs(exact.p_value - drawn.p_value) < 4 * math.sqrt(exact.p_value / 2500)
    assert shift_test(new, known, num_permutations=2500) == drawn


def test_several_scores_have_the_p_value_of_scipy():
    random = np.random.default_rng(2)
    new, known = correlated(random, 3, 2, shift=1.0), correlated(random, 7, 2)

    def statistic(one, other, axis):
        pooled = np.concatenate([one, other], axis)
        ranks = pooled.argsort(axis).argsort(axis)
        return np.abs(np.take(ranks, range(3), axis).mean(axis) - 4.5)

    # cases are exchanged whole, so SciPy exchanges their numbers
    pooled = np.concatenate([new, known])

    def largest(one, other):
        order = np.concatenate([one, other]).astype(int)
        return statistic(pooled[order[:3]], pooled[order[3:]], 0).max()

    expected = permutation_test(
        (np.arange(3), np.arange(3, 10)), largest, vectorized=False, n_resamples=np.inf, alternative="greater"
    )
    assert shift_test(new, known).p_value == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize(("new", "known"), [(1, 19), (3, 12), (12, 20)])
def test_alarms_are_no_more_frequent_than_the_level_among_exchangeable_cases(new, known):
    random = np.random.default_rng(3)
    draws = 600
    values = []
    for seed in range(draws):
        cases = correlated(random, new + known)
        values.append(shift_test(cases[:new], cases[new:], num_permutations=199, seed=seed).p_value)
    for level in (0.05, 0.1, 0.5):
        rate = np.mean(np.array(values) <= level)
        assert rate <= level + 4 * math.sqrt(level * (1 - level) / draws)
        # and the test wastes little of its level
        assert rate >= level / 2 or new == 1


def test_a_shift_is_seen_and_named():
    random = np.random.default_rng(4)
    seen = []
    for _ in range(100):
        new, known = correlated(random, 10), correlated(random, 20)
        new[:, 2] += 3 * known[:, 2].std()
        found = shift_test(new, known, num_permutations=499)
        seen.append(found.p_value <= 0.05)
        if seen[-1]:
            assert (found.score, found.larger) == (2, True)
    assert np.mean(seen) > 0.9
    assert not shift_test(known * 0.1, known).larger


def test_joining_values_of_single_cases_would_alarm_too_often():
    """Why a folder has a test of its own: they share their calibration cases, so they are large or small together."""
    random = np.random.default_rng(5)
    joined = []
    for _ in range(200):
        cases = random.normal(size=(600, 1))
        joined.append(combine_pvalues(conformal_values(cases[:500], cases[500:]))[1] <= 0.05)
    assert np.mean(joined) > 0.1


def conformal_values(new, known):
    return conformal_p_values(torch.from_numpy(new[:, 0]), torch.from_numpy(known[:, 0])).numpy()


def test_how_unusual_a_case_is_beside_each_of_the_others():
    random = np.random.default_rng(6)
    new, known = correlated(random, 6, 3), correlated(random, 15, 3)
    for case, value in zip(new, case_shift_p_values(new, known), strict=True):
        pooled = np.vstack([case, known])
        distance = np.abs((pooled - pooled.mean(0)) / pooled.std(0)).max(1)
        assert value == pytest.approx(np.mean(distance >= distance[0] - 1e-9))


def test_values_of_cases_are_not_too_small_by_chance():
    random = np.random.default_rng(7)
    values = np.array([case_shift_p_values(c[:1], c[1:])[0] for c in (correlated(random, 25) for _ in range(2000))])
    for level in (0.04, 0.08, 0.2, 0.6):
        assert values.min() == pytest.approx(0.04)
        assert (values <= level + 1e-9).mean() <= level + 4 * math.sqrt(level * (1 - level) / 2000)


def test_order_and_scale_of_scores_do_not_matter():
    random = np.random.default_rng(8)
    new, known = correlated(random, 4), correlated(random, 9)
    found = shift_test(new, known)
    assert shift_test(new[::-1] * [1, 10, 0.1, 3], known[::-1] * [1, 10, 0.1, 3]).p_value == found.p_value
    # ranks do not change, however the scores are transformed
    assert shift_test(np.log(new), np.log(known)) == found
    values = case_shift_p_values(new, known)
    np.testing.assert_array_equal(case_shift_p_values(new * [1, 10, 0.1, 3], known[::-1] * [1, 10, 0.1, 3]), values)


def test_missing_and_constant_scores():
    known = np.arange(19.0)[:, None]
    assert case_shift_p_values([[np.nan]], known)[0] == 1 / 20
    assert shift_test([[np.nan]] * 3, known) == shift_test([[99.0]] * 3, known)
    alike = np.ones((8, 2))
    assert shift_test(alike[:3], alike).p_value == 1
    assert (case_shift_p_values(alike[:3], alike) == 1).all()
    lacking = np.where(np.arange(19)[:, None] < 10, np.nan, known)
    assert case_shift_p_values([[np.nan]], lacking)[0] == 11 / 20


def test_the_smallest_value_there_can_be():
    for new, known in ((1, 9), (2, 5), (3, 4)):
        pooled = np.arange(float(new + known))[:, None]
        values = []
        for chosen in combinations(range(new + known), new):
            rest = np.setdiff1d(np.arange(new + known), chosen)
            found = shift_test(pooled[list(chosen)], pooled[rest])
            values.append(found.p_value)
        # the largest and the smallest are equally different
        assert min(values) == found.smallest_p_value == pytest.approx(2 / len(values))


@pytest.mark.parametrize("call", [shift_test, case_shift_p_values])
@pytest.mark.parametrize(
    "shapes", [((3,), (4,)), ((3, 2), (4, 3)), ((0, 2), (4, 2)), ((3, 2), (0, 2)), ((3, 0), (4, 0))]
)
def test_wrong_shapes_are_named(call, shapes):
    with pytest.raises(ValueError, match="with the same scores"):
        call(*map(np.zeros, shapes))
