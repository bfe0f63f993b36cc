"""Bootstrap intervals against closed forms and against drawing by hand."""

import numpy as np
import pytest
from scipy import stats

from medcalib.compare import bootstrap_interval


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
