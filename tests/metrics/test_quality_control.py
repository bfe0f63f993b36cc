import itertools
import json

import numpy as np
import pytest

from medcalib.metrics import flagging_curve, flagging_threshold, score_correlation


def cases(seed, count, ties=False):
    """Uncertainty and quality of some cases, related but not perfectly."""
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.3, 1.0, count)
    uncertainty = 1 - quality + rng.normal(0, 0.2, count)
    if ties:
        uncertainty, quality = np.round(uncertainty, 1), np.round(quality, 1)
    return uncertainty, quality


def orders(key):
    """Every order of the cases in which the key rises."""
    rising = [order for order in itertools.permutations(range(len(key))) if (np.diff(key[list(order)]) >= 0).all()]
    return [list(order) for order in rising]


def mean_ranks(values):
    return [sum(other < value for other in values) + sum(other == value for other in values) / 2 for value in values]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_correlation_is_that_of_the_ranks(seed, ties):
    uncertainty, quality = cases(seed, 30, ties)
    result = score_correlation(uncertainty, quality)
    assert result.correlation == pytest.approx(np.corrcoef(mean_ranks(uncertainty), mean_ranks(quality))[0, 1])
    assert result.correlation < -0.3
    assert result.p_value < 0.1
    assert result.num_cases == 30


def test_p_value_of_unrelated_scores_is_uniform():
    rng = np.random.default_rng(0)
    values = [score_correlation(*rng.random((2, 20))).p_value for _ in range(400)]
    assert np.mean(np.less(values, 0.5)) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.less(values, 0.1)) == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize(
    ("uncertainty", "quality"),
    [([0.1, 0.2], [0.9, 0.8]), ([0.5] * 4, [0.1, 0.2, 0.3, 0.4]), ([0.1, 0.2, 0.3], [1.0] * 3), ([], [])],
)
def test_correlation_of_too_little_is_nan(uncertainty, quality):
    result = score_correlation(uncertainty, quality)
    assert np.isnan([result.correlation, result.p_value]).all()
    assert result.num_cases == len(quality)


@pytest.mark.parametrize("seed", range(6))
def test_flagging_is_the_mean_over_all_orders_of_tied_cases(seed):
    rng = np.random.default_rng(seed)
    uncertainty, quality = rng.integers(0, 3, 6).astype(float), rng.random(6)
    remaining = [[(quality[order[k:]] < 0.5).sum() / 6 for k in range(7)] for order in orders(-uncertainty)]
    curve = flagging_curve(uncertainty, quality, 0.5, num_points=7)
    np.testing.assert_allclose(curve.fraction, np.arange(7) / 6)
    np.testing.assert_allclose(curve.remaining, np.mean(remaining, axis=0), atol=1e-12)
    ideal = flagging_curve(-quality, quality, 0.5, num_points=7)
    np.testing.assert_allclose(curve.ideal, ideal.remaining, atol=1e-12)
    assert curve.ideal_area == pytest.approx(ideal.area)


def test_flagging_between_numbers_of_cases_is_linear():
    uncertainty, quality = cases(0, 37)
    coarse = flagging_curve(uncertainty, quality, 0.6, num_points=38)
    fine = flagging_curve(uncertainty, quality, 0.6, num_points=1001)
    np.testing.assert_allclose(np.interp(fine.fraction, coarse.fraction, coarse.remaining), fine.remaining, atol=1e-12)
    assert fine.area == pytest.approx(coarse.area, abs=1e-4)


def test_random_flags_follow_the_straight_line():
    _, quality = cases(0, 40)
    rng = np.random.default_rng(1)
    curves = [flagging_curve(rng.random(40), quality, 0.6) for _ in range(600)]
    line = curves[0].poor * (1 - curves[0].fraction)
    np.testing.assert_allclose(np.mean([curve.remaining for curve in curves], axis=0), line, atol=0.01)
    assert np.mean([curve.area for curve in curves]) == pytest.approx(curves[0].random_area, abs=0.005)
    constant = flagging_curve(np.ones(40), quality, 0.6)
    np.testing.assert_allclose(constant.remaining, line, atol=1e-12)
    assert constant.flagged_at_5_percent == pytest.approx(1 - 0.05 / constant.poor)


@pytest.mark.parametrize("seed", range(4))
def test_flagging_lies_between_the_ideal_and_its_reverse(seed):
    uncertainty, quality = cases(seed, 33, ties=seed % 2 == 1)
    ideal, curve, reverse = (flagging_curve(key, quality, 0.6) for key in (-quality, uncertainty, quality))
    assert ideal.poor == (quality < 0.6).mean()
    assert (ideal.remaining <= curve.remaining + 1e-12).all()
    assert (curve.remaining <= reverse.remaining + 1e-12).all()
    assert curve.ideal_area <= curve.area < curve.random_area < reverse.area
    assert ideal.area == pytest.approx(ideal.ideal_area)
    assert ideal.ideal_area == pytest.approx(ideal.poor**2 / 2, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_five_percent_is_where_a_dense_curve_crosses_it(seed):
    uncertainty, quality = cases(seed, 45, ties=seed % 2 == 1)
    curve = flagging_curve(uncertainty, quality, 0.7, num_points=20001)
    first = curve.fraction[np.flatnonzero(curve.remaining <= 0.05 + 1e-12)[0]]
    assert curve.flagged_at_5_percent == pytest.approx(first, abs=1e-4)
    assert 0 < curve.flagged_at_5_percent < 1


def test_nothing_need_be_flagged_when_few_are_poor():
    uncertainty, quality = cases(0, 20)
    quality[:] = 0.9
    quality[3] = 0.1
    assert flagging_curve(uncertainty, quality, 0.5).flagged_at_5_percent == 0
    assert flagging_curve(uncertainty, quality, 0.0).poor == 0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("max_poor", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_threshold_flags_the_fewest_cases(seed, max_poor, ties):
    uncertainty, quality = cases(seed, 21, ties)
    rule = flagging_threshold(uncertainty, quality, poor_below=0.6, max_poor=max_poor)
    flags = uncertainty > rule.threshold
    assert rule.flagged == pytest.approx(flags.mean())
    assert rule.poor_left == pytest.approx(((quality < 0.6) & ~flags).mean())
    assert rule.poor_left <= max_poor
    others = [uncertainty > threshold for threshold in (*uncertainty, -np.inf)]
    assert rule.flagged == min(other.mean() for other in others if ((quality < 0.6) & ~other).mean() <= max_poor)


def test_threshold_is_the_maximum_if_nothing_need_be_flagged():
    uncertainty, quality = cases(0, 20)
    assert flagging_threshold(uncertainty, quality, poor_below=0.0) == (uncertainty.max(), 0.0, 0.0, 20, 0)


def test_threshold_is_below_the_minimum_if_everything_must_be_flagged():
    uncertainty, quality = cases(0, 10)
    rule = flagging_threshold(uncertainty, quality, poor_below=2.0)
    assert (rule.flagged, rule.poor_left) == (1.0, 0.0)
    assert (uncertainty > rule.threshold).all()


@pytest.mark.parametrize("poor_below", [0.0, 0.6, 2.0])
def test_threshold_survives_json(poor_below):
    rule = flagging_threshold(*cases(0, 15), poor_below=poor_below)
    assert tuple(json.loads(json.dumps(rule, allow_nan=False))) == rule


def results(uncertainty, quality):
    return [
        score_correlation(uncertainty, quality),
        *flagging_curve(uncertainty, quality, 0.6),
        *flagging_threshold(uncertainty, quality, 0.6),
    ]


def test_order_of_cases_never_matters():
    uncertainty, quality = cases(0, 40, ties=True)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(40)
        for ours, expected in zip(
            results(uncertainty[order], quality[order]), results(uncertainty, quality), strict=True
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-15)


def test_cases_without_quality_are_left_out_and_those_without_uncertainty_are_flagged_first():
    uncertainty, quality = cases(0, 12)
    broken, known = (uncertainty.copy(), quality.copy()), uncertainty.copy()
    broken[0][[2, 4]] = np.nan
    known[[2, 4]] = uncertainty.max() + 1
    broken[1][7] = np.nan
    kept = np.delete(np.arange(12), 7)
    ours, expected = flagging_curve(*broken, 0.6), flagging_curve(known[kept], quality[kept], 0.6)
    for one, other in zip(ours[:-1], expected[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
    rule = flagging_threshold(*broken, 0.6)
    assert (ours.num_cases, ours.unknown, rule.num_cases, rule.unknown) == (11, 2, 11, 2)


def test_correlation_leaves_cases_without_a_value_out_and_counts_them():
    uncertainty, quality = cases(0, 12)
    broken = uncertainty.copy(), quality.copy()
    broken[0][2], broken[1][7] = np.nan, np.nan
    kept = np.delete(np.arange(12), [2, 7])
    assert score_correlation(*broken) == (*score_correlation(uncertainty[kept], quality[kept])[:2], 10, 2)


@pytest.mark.parametrize("max_poor", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("poor_below", [0.0, 0.6, 2.0])
def test_a_case_without_uncertainty_is_always_flagged(max_poor, poor_below):
    uncertainty, quality = cases(1, 21)
    uncertainty[[3, 8]] = np.nan
    rule = flagging_threshold(uncertainty, quality, poor_below, max_poor)
    flags = np.isnan(uncertainty) | (uncertainty > rule.threshold)
    assert np.isfinite(rule.threshold)
    assert rule.flagged == pytest.approx(flags.mean())
    assert rule.poor_left == pytest.approx(((quality < poor_below) & ~flags).mean())
    assert rule.poor_left <= max_poor
    if poor_below == 0.0:
        assert rule.flagged == pytest.approx(2 / 21)


def test_everything_is_flagged_if_no_case_has_an_uncertainty():
    rule = flagging_threshold([np.nan] * 3, [0.9, 0.8, 0.1], poor_below=0.5, max_poor=1.0)
    assert rule == (-np.inf, 1.0, 0.0, 3, 3)


def test_without_any_pair_everything_is_nan():
    nothing = np.full(3, np.nan)
    curve = flagging_curve(nothing, nothing, 0.6)
    assert np.isnan([*curve.remaining, *curve.ideal, curve.poor, curve.area, curve.flagged_at_5_percent]).all()
    assert np.isnan(flagging_threshold(nothing, nothing, 0.6).threshold)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_correlation([1, 2, 3], [1, 2]), r"got shapes \(3,\) and \(2,\)"),
        (lambda: flagging_curve([[1.0]], [[1.0]], 0.5), "one number a case"),
        (lambda: flagging_threshold([1.0, np.inf], [1.0, 0.0], 0.5), "infinite"),
        (lambda: flagging_curve([1.0], [1.0], 0.5, num_points=1), "num_points must be at least 2"),
        (lambda: flagging_curve([1.0], [1.0], np.nan), "got NaN"),
        (lambda: flagging_threshold([1.0], [1.0], 0.5, max_poor=1.1), r"max_poor must lie in \[0, 1\]"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
