"""Bootstrap intervals against closed forms and against drawing by hand."""

import numpy as np
import pytest
from scipy import stats

from medcalib.compare import bca_intervals, bootstrap_interval
from medcalib.compare.bootstrap import CaseDraws, seed_shares


def test_mean_of_a_normal_sample_has_the_analytic_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.estimate == values.mean()
    assert interval.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        interval = bootstrap_interval(rng.exponential(size=40), num_samples=400, confidence=0.8, seed=seed)
        held += interval.low <= 1 <= interval.high
    # 0.8 of 200, three standard deviations and a little for the skewness
    assert 139 <= held <= 178


def test_bca_follows_its_definition():
    """Percentiles of the draws, moved by the bias and the acceleration (Efron 1987), written out."""
    values = np.random.default_rng(2).exponential(size=25)
    draws = np.array([np.random.default_rng(s).choice(values, 25).mean() for s in range(20000)])
    bias = stats.norm.ppf((draws < values.mean()).mean())
    left_out = np.array([np.delete(values, place).mean() for place in range(25)])
    apart = left_out.mean() - left_out
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    ends = []
    for quantile in (0.025, 0.975):
        z = bias + stats.norm.ppf(quantile)
        ends.append(np.quantile(draws, stats.norm.cdf(bias + z / (1 - acceleration * z))))
    interval = bootstrap_interval(values, num_samples=20000)
    width = ends[1] - ends[0]
    assert interval.low == pytest.approx(ends[0], abs=0.03 * width)
    assert interval.high == pytest.approx(ends[1], abs=0.03 * width)
    # a symmetric interval would fail
    assert (ends[1] - values.mean()) / (values.mean() - ends[0]) > 1.2


def test_cases_without_a_value_change_nothing():
    values = [0.9, 0.8, 0.7, 0.95, 0.6]
    interval = bootstrap_interval([np.nan, *values, np.nan])
    assert interval == bootstrap_interval(values)
    assert interval.num_cases == 5


def test_it_shifts_and_scales_with_the_values():
    values = np.random.default_rng(3).normal(size=12)
    base, moved = bootstrap_interval(values), bootstrap_interval(4 * values - 1)
    # a draw that equals the estimate may fall to either side
    np.testing.assert_allclose(moved[:3], 4 * np.array(base[:3]) - 1, atol=3e-3)


def test_more_confidence_is_wider():
    values = np.random.default_rng(4).exponential(size=30)
    narrow, wide = (bootstrap_interval(values, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_arguments_give_equal_intervals_and_seeds_matter():
    values = np.random.default_rng(5).normal(size=15)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


def test_with_too_few_cases_there_is_no_interval():
    nothing = bootstrap_interval([np.nan, np.nan])
    assert np.isnan(nothing[:3]).all()
    assert nothing.num_cases == 0
    single = bootstrap_interval([0.5])
    assert (single.estimate, single.num_cases) == (0.5, 1)
    assert np.isnan([single.low, single.high]).all()


@pytest.mark.filterwarnings("error")
def test_constant_values_have_an_interval_of_no_width():
    assert bootstrap_interval([0.25] * 6) == (0.25, 0.25, 0.25, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [[1.0, 2.0]]}, "one finite number a case"),
        ({"values": [1.0, np.inf]}, "one finite number a case"),
        ({"values": [1.0, 2.0], "confidence": 1.0}, r"confidence in \(0, 1\)"),
        ({"values": [1.0, 2.0], "num_samples": 0}, "num_samples must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


def left_out(values, statistic=np.mean):
    return np.array([[statistic(np.delete(values, place)) for place in range(len(values))]])


@pytest.mark.parametrize("number", [3, 10, 57])
def test_the_ends_are_those_of_scipy_with_the_same_draws(number):
    values = np.random.default_rng(number).gamma(1.5, size=number)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="BCa", rng=np.random.default_rng(11)
    ).confidence_interval
    found = bootstrap_interval(values, num_samples=2000, seed=11)
    np.testing.assert_allclose(found[1:3], expected, rtol=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_of_two_samples_they_are_those_of_scipy(confidence):
    """Cases and seeds are two samples; here with a statistic that is no mean."""
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=12), rng.exponential(size=7)

    def statistic(x, y, axis=-1):
        return np.std(x, axis=axis) - np.mean(y, axis=axis)

    scipys = stats.bootstrap((a, b), statistic, n_resamples=1500, confidence_level=confidence, rng=rng)
    jackknives = [left_out(a, lambda x: statistic(x, b)), left_out(b, lambda y: statistic(a, y))]
    low, high = bca_intervals([statistic(a, b)], scipys.bootstrap_distribution[None], jackknives, confidence)
    np.testing.assert_allclose([low[0], high[0]], scipys.confidence_interval, rtol=1e-10)


def test_many_numbers_are_as_one_by_one():
    rng = np.random.default_rng(3)
    values = rng.gamma(2, size=(4, 15))
    draws = np.concatenate([weights @ values.T / 15 for weights in CaseDraws(500).blocks(15)]).T
    jackknife = np.concatenate([left_out(row) for row in values])
    low, high = bca_intervals(values.mean(1), draws, [jackknife])
    for place, row in enumerate(values):
        np.testing.assert_allclose([low[place], high[place]], bootstrap_interval(row, 500)[1:3])


@pytest.mark.filterwarnings("error")
def test_without_a_bca_the_ends_are_percentiles():
    draws = np.random.default_rng(0).normal(5, 1, (2, 999))
    # nothing changes if one is left out; and all draws lie on one side
    low, high = bca_intervals([5.0, 100.0], draws, [np.array([[5.0] * 8, np.arange(8.0)])])
    expected = np.quantile(draws, [0.025, 0.975], axis=1)
    assert high[1] == pytest.approx(expected[1, 1])
    assert low[1] == pytest.approx(expected[0, 1])
    middle = np.quantile(draws[0], [0.025, 0.975])
    np.testing.assert_allclose([low[0], high[0]], middle, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_draws_in_which_a_number_does_not_exist_are_left_out():
    draws = np.random.default_rng(1).normal(size=(1, 400))
    jackknife = [np.random.default_rng(2).normal(size=(1, 9))]
    with_gaps = np.insert(draws, [3, 50, 399], np.nan, axis=1)
    np.testing.assert_array_equal(bca_intervals([0.1], with_gaps, jackknife), bca_intervals([0.1], draws, jackknife))
    assert np.isnan(bca_intervals([0.1], [[np.nan, np.nan]], jackknife)).all()


class TestDraws:
    def test_weights_count_cases(self):
        weights = np.concatenate(list(CaseDraws(3000, seed=4).blocks(20)))
        assert weights.shape == (3000, 20)
        assert set(weights.sum(1)) == {20}
        # each of 20 draws takes a case with probability 1 / 20
        np.testing.assert_allclose(weights.mean(0), 1, atol=5 * np.sqrt(0.95 / 3000))
        np.testing.assert_allclose(weights.var(0), 0.95, atol=0.15)

    def test_they_are_the_same_every_time_and_in_blocks(self, monkeypatch):
        one = CaseDraws(50, seed=1)
        first = np.concatenate(list(one.blocks(30)))
        assert len(list(one.blocks(30))) == 1
        monkeypatch.setattr("medcalib.compare.bootstrap._KEPT", 100)
        monkeypatch.setattr("medcalib.compare.bootstrap._BLOCK", 600)
        blocks = list(CaseDraws(50, seed=1).blocks(30))
        assert [len(block) for block in blocks] == [20, 20, 10]
        np.testing.assert_array_equal(np.concatenate(blocks), first)

    def test_little_is_kept(self, monkeypatch):
        monkeypatch.setattr("medcalib.compare.bootstrap._KEPT", 1000)
        draws = CaseDraws(50)
        for number in (5, 10, 15, 20):
            assert sum(len(block) for block in draws.blocks(number)) == 50
        assert list(draws._kept) == [20]

    def test_seeds_are_drawn_by_training(self):
        one, again, other = (seed_shares(4, 2000, 0, training) for training in ("a", "a", "b"))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()
        np.testing.assert_allclose(one.sum(1), 1)
        # 4 draws, each share in quarters
        assert set(np.unique(4 * one)) == {0, 1, 2, 3, 4}
        np.testing.assert_allclose(one.mean(0), 0.25, atol=0.03)
        assert seed_shares(1, 3, 0, "a").tolist() == [[1], [1], [1]]
