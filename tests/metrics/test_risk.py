import itertools

import numpy as np
import pytest

from medcalib.metrics import VoxelRiskCoverage, aurc, excess_aurc, risk_coverage


def cases(seed, count, ties=False):
    """Uncertainty and risk of some cases, related but not perfectly."""
    rng = np.random.default_rng(seed)
    risk = rng.uniform(0.0, 0.7, count)
    uncertainty = risk + rng.normal(0, 0.2, count)
    if ties:
        uncertainty, risk = np.round(uncertainty, 1), np.round(risk, 1)
    return uncertainty, risk


def orders(key):
    """Every order of the cases in which the key rises."""
    rising = [order for order in itertools.permutations(range(len(key))) if (np.diff(key[list(order)]) >= 0).all()]
    return [list(order) for order in rising]


@pytest.mark.parametrize("seed", range(6))
def test_risk_is_the_mean_over_all_orders_of_tied_cases(seed):
    rng = np.random.default_rng(seed)
    uncertainty, risk = rng.integers(0, 3, 6), rng.random(6)
    curves = [[risk[order[:k]].mean() for k in range(1, 7)] for order in orders(uncertainty)]
    curve = risk_coverage(uncertainty, risk)
    np.testing.assert_allclose(curve.risk, np.mean(curves, axis=0))
    np.testing.assert_allclose(curve.coverage, np.arange(1, 7) / 6)
    assert curve.aurc == pytest.approx(np.mean(curves))
    best = [np.sort(risk)[:k].mean() for k in range(1, 7)]
    np.testing.assert_allclose(curve.oracle, best)
    assert excess_aurc(uncertainty, risk) == pytest.approx(np.mean(curves) - np.mean(best))


def test_area_of_untied_cases_equals_a_loop():
    uncertainty, risk = cases(0, 40)
    risks = [value for _, value in sorted(zip(uncertainty, risk, strict=True))]
    expected = sum(sum(risks[:k]) / k for k in range(1, 41)) / 40
    assert aurc(uncertainty, risk) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_no_order_beats_the_oracle_and_none_is_worse_than_its_reverse(seed):
    uncertainty, risk = cases(seed, 25, ties=seed % 2 == 1)
    assert excess_aurc(risk, risk) == 0
    assert excess_aurc(np.exp(3 * risk), risk) == 0
    assert 0 < excess_aurc(uncertainty, risk) < excess_aurc(-risk, risk)
    assert aurc(np.zeros(25), risk) == pytest.approx(risk.mean())
    assert aurc(uncertainty, 2 * risk + 1) == pytest.approx(2 * aurc(uncertainty, risk) + 1)


def voxels(seed, shape=(40, 25), levels=None):
    rng = np.random.default_rng(seed)
    uncertainty = rng.beta(0.4, 1.5, shape) * 1.2
    if levels:
        # The middle of each bin, in the fourth root in which bins are equal.
        uncertainty = ((np.floor((uncertainty / 1.2) ** 0.25 * levels) + 0.5) / levels) ** 4 * 1.2
    return uncertainty, rng.random(shape) < 0.05 + 0.3 * uncertainty


@pytest.mark.parametrize("levels", [1, 7, 64])
def test_voxels_on_a_grid_equal_the_sorted_computation(levels):
    uncertainty, error = voxels(0, levels=levels)
    metric = VoxelRiskCoverage(1.2, num_bins=levels)
    metric.update(uncertainty, error)
    exact = risk_coverage(uncertainty.ravel(), error.ravel())
    assert metric.aurc() == pytest.approx(exact.aurc, rel=1e-12)
    assert metric.excess_aurc() == pytest.approx(exact.excess_aurc, rel=1e-12)
    curve = metric.curve()
    assert curve.count == error.size
    places = np.searchsorted(exact.coverage, curve.coverage - 1e-9)
    np.testing.assert_allclose(curve.risk, exact.risk[places])
    np.testing.assert_allclose(curve.oracle, exact.oracle[places], atol=1e-12)


def test_voxels_of_any_uncertainty_come_close_to_the_sorted_computation():
    uncertainty, error = voxels(1, (400, 50))
    metric = VoxelRiskCoverage(1.2)
    metric.update(uncertainty.astype(np.float32), error)
    exact = risk_coverage(uncertainty.ravel(), error.ravel())
    assert metric.aurc() == pytest.approx(exact.aurc, rel=1e-4)
    assert metric.curve().oracle_aurc == pytest.approx(exact.oracle_aurc, rel=1e-12)


def test_nearly_certain_voxels_are_told_apart():
    rng = np.random.default_rng(0)
    uncertainty = 10 ** rng.uniform(-8, -4, 20000)
    error = rng.random(20000) < 0.02 * uncertainty**0.25 / 0.1
    metric = VoxelRiskCoverage(np.log(4))
    metric.update(uncertainty, error)
    exact = aurc(uncertainty, error)
    assert exact < 0.7 * error.mean()
    assert metric.aurc() == pytest.approx(exact, rel=0.02)


def test_voxels_add_up_in_parts_and_over_masks():
    uncertainty, error = voxels(2, (6, 50))
    whole, parts, other = VoxelRiskCoverage(1.2), VoxelRiskCoverage(1.2), VoxelRiskCoverage(1.2)
    whole.update(uncertainty, error)
    mask = np.random.default_rng(0).integers(0, 2, error.shape)
    # Where the mask is zero anything may stand.
    parts.update(np.where(mask == 1, uncertainty, np.nan), np.where(mask == 1, error, 7), mask)
    other.update(uncertainty, error, 1 - mask)
    assert parts.curve().count == mask.sum()
    parts.merge(other)
    np.testing.assert_array_equal(parts.counts, whole.counts)
    np.testing.assert_array_equal(parts.errors, whole.errors)
    assert parts.aurc() == whole.aurc()


def test_voxels_beyond_single_precision_are_counted():
    metric = VoxelRiskCoverage(1.0, num_bins=2)
    metric.update(np.repeat([0.01, 0.8], [48, 16]), np.repeat([0, 1, 0], [40, 16, 8]))
    for _ in range(26):
        metric.merge(metric)
    metric.update([0.01], [False])
    curve = metric.curve()
    assert curve.count == 64 * 2**26 + 1
    # So many voxels are a continuum: bins 48 and 16 wide with 8 errors each.
    area = 8 + 8 + (8 - 48 * 8 / 16) * np.log(64 / 48)
    assert curve.aurc == pytest.approx(area / 64, rel=1e-7)
    assert curve.oracle_aurc == pytest.approx((16 - 48 * np.log(64 / 48)) / 64, rel=1e-7)


def test_voxels_a_little_past_the_ends_belong_to_the_outer_bins():
    metric = VoxelRiskCoverage(np.log(3), num_bins=4)
    metric.update(np.array([-1e-7, np.log(3) + 1e-6], dtype=np.float32), [False, True])
    np.testing.assert_array_equal(metric.counts, [1, 0, 0, 1])


def test_no_voxels_give_nan():
    metric = VoxelRiskCoverage(1.0)
    metric.update(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2)))
    assert np.isnan([metric.aurc(), metric.excess_aurc()]).all()


def test_order_of_cases_never_matters():
    uncertainty, risk = cases(0, 40, ties=True)
    expected = risk_coverage(uncertainty, risk)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(40)
        for ours, theirs in zip(risk_coverage(uncertainty[order], risk[order]), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_cases_without_risk_are_left_out_and_those_without_uncertainty_come_last():
    uncertainty, risk = cases(0, 12)
    broken, known = (uncertainty.copy(), risk.copy()), uncertainty.copy()
    broken[0][[2, 4]] = np.nan
    known[[2, 4]] = uncertainty.max() + 1
    broken[1][7] = np.nan
    kept = np.delete(np.arange(12), 7)
    ours, expected = risk_coverage(*broken), risk_coverage(known[kept], risk[kept])
    for one, other in zip(ours[:6], expected[:6], strict=True):
        np.testing.assert_array_equal(one, other)
    assert (ours.count, ours.unknown, expected.unknown) == (11, 2, 0)


def test_a_failure_without_uncertainty_is_the_best_hint_there_is():
    # an empty prediction has no foreground over which to average, and a Dice of 0
    uncertainty, dice = [0.1, np.nan, 0.2, 0.3], np.array([0.9, 0.0, 0.85, 0.8])
    assert excess_aurc(uncertainty, 1 - dice) == pytest.approx(0)
    assert aurc(uncertainty, 1 - dice) > aurc([0.1, 0.2, 0.3], [0.1, 0.15, 0.2])


def test_without_any_pair_the_areas_are_nan():
    nothing = np.full(3, np.nan)
    assert np.isnan([aurc(nothing, nothing), excess_aurc(nothing, nothing)]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: aurc([1.0, 2.0], [1.0]), r"got shapes \(2,\) and \(1,\)"),
        (lambda: aurc([[1.0]], [[1.0]]), "one number a case"),
        (lambda: aurc([1.0, np.inf], [1.0, 0.0]), "infinite"),
        (lambda: VoxelRiskCoverage(0.0), "max_uncertainty must be above 0"),
        (lambda: VoxelRiskCoverage(1.0, num_bins=0), "num_bins must be at least 1"),
        (lambda: VoxelRiskCoverage(1.0).update([0.5], [True, False]), "differ in shape"),
        (lambda: VoxelRiskCoverage(1.0).update([0.5], [True], [True, False]), "differ in shape"),
        (
            lambda: VoxelRiskCoverage(1.0).update([0.5, 1.1], [0, 1]),
            r"must lie in \[0, 1\], got values from 0.5 to 1.1",
        ),
        (lambda: VoxelRiskCoverage(1.0).update([0.5, -0.1], [0, 1]), "got values from -0.1"),
        (lambda: VoxelRiskCoverage(1.0).update([0.5, np.nan], [0, 1]), "got values from nan"),
        (lambda: VoxelRiskCoverage(1.0).update([0.5, 0.5], [0, 0.5]), "error must be 0 or 1"),
        (lambda: VoxelRiskCoverage(1.0).merge(VoxelRiskCoverage(1.0, 8)), "same bins"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_voxels_are_counted_in_parts_as_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    uncertainty, error, mask = rng.random((13, 5, 7)), rng.random((13, 5, 7)) < 0.3, rng.random((13, 5, 7)) < 0.8
    whole, parts = VoxelRiskCoverage(1.0), VoxelRiskCoverage(1.0)
    whole.update(uncertainty, error, mask)
    monkeypatch.setattr("medcalib.metrics.risk._VOXELS", 100)
    parts.update(uncertainty, error, mask)
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(whole.errors, parts.errors)
    wrong = np.where(np.arange(13) == 12, 2.0, 0.5)[:, None, None] + np.zeros((13, 5, 7))
    before = parts.counts.copy()
    with pytest.raises(ValueError, match="must lie in"):
        parts.update(wrong, error)
    np.testing.assert_array_equal(parts.counts, before)
