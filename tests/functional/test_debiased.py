import numpy as np
import pytest
import torch

from medcalib.functional import (
    BinStatistics,
    bin_statistics,
    calibration_error,
    consistency_band,
    debiased_calibration_error,
    debiased_errors,
)


def drawn(seed, num_cases=30, num_voxels=400, bias=0.0, together=1, num_bins=10):
    """Statistics of cases whose labels are drawn from their probabilities, blocks of voxels all from one draw.

    Voxels of a block have one probability, so that those that stray do so together.
    """
    rng = np.random.default_rng(seed)
    p = np.repeat(rng.random((num_cases, num_voxels // together)), together, axis=1)
    y = np.repeat(rng.random((num_cases, num_voxels // together)), together, axis=1) < np.clip(p - bias, 0, 1)
    return bin_statistics(torch.from_numpy(p)[:, None], torch.from_numpy(y).double()[:, None], num_bins)


def by_loop(counts, sum_pred, sum_true, norm):
    """The published estimators; of l1 with many draws."""
    rng = np.random.default_rng(0)
    total, number = 0.0, sum(counts)
    for n, p, t in zip(counts, sum_pred, sum_true, strict=True):
        if n == 0 or (norm == "l2" and n == 1):
            continue
        gap, y = p / n - t / n, t / n
        if norm == "l2":
            total += n / number * (gap**2 - y * (1 - y) / (n - 1))
        else:
            strayed = np.abs(rng.normal(y, np.sqrt(y * (1 - y) / n), 20_000) - p / n).mean()
            total += n / number * (2 * abs(gap) - strayed)
    return total


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_equals_the_published_estimators(norm):
    statistics = drawn(0, num_cases=3, num_voxels=60, num_bins=20)
    found = debiased_calibration_error(statistics, norm)
    assert found.shape == (3, 1)
    for case in range(3):
        expected = by_loop(*(part[case, 0].tolist() for part in statistics), norm)
        assert found[case, 0].item() == pytest.approx(expected, abs=1e-3)


def test_equals_the_published_code():
    published = pytest.importorskip("calibration.utils")
    rng = np.random.default_rng(1)
    p = (rng.integers(0, 10, 500) + 0.5) / 10
    y = (rng.random(500) < p**1.2).astype(int)
    binned = [[(a, b) for a, b in zip(p, y, strict=True) if a == centre] for centre in np.unique(p)]
    statistics = bin_statistics(torch.from_numpy(p)[None, None], torch.from_numpy(y).double()[None, None], 10)
    squared = published.unbiased_square_ce(binned)
    assert debiased_calibration_error(statistics, "l2").item() == pytest.approx(squared, rel=1e-9)
    np.random.seed(0)  # noqa: NPY002  # from which the published code draws
    expected = published.normal_debiased_ce(binned, power=1, resamples=4000)
    assert debiased_calibration_error(statistics).item() == pytest.approx(expected, abs=1e-3)


def test_bins_of_single_voxels_say_nothing_of_the_squared_error():
    """A bin of two is there, too, in the first case."""
    counts = torch.tensor([[[1, 2]], [[1, 1]], [[0, 0]]])
    statistics = BinStatistics(counts, counts * 0.75, counts * torch.tensor([0.0, 1.0]))
    squared = debiased_calibration_error(statistics, "l2")[:, 0]
    assert squared[0].item() == pytest.approx(2 / 3 * 0.0625)
    assert squared[1:].isnan().all()
    one = BinStatistics(*(part[1:2] for part in statistics))
    found = debiased_errors(one, "voxel")
    assert found["rmsce_debiased"].isnan().all()
    assert found["rmsce"].item() == pytest.approx(((0.5625 + 0.0625) / 2) ** 0.5)


@pytest.mark.parametrize(("together", "unit"), [(1, "voxel"), (1, "case"), (40, "case")])
def test_right_probabilities_have_no_error_in_the_mean(together, unit):
    found = {norm: [] for norm in ("l1", "l2")}
    plain, squares = [], []
    for seed in range(100):
        statistics = drawn(seed, num_cases=20, num_voxels=200, together=together)
        pooled = statistics.pool()
        plain.append(calibration_error(pooled).item())
        gaps = ((pooled.sum_pred - pooled.sum_true) / pooled.counts).nan_to_num(0).square()
        squares.append((pooled.counts / pooled.counts.sum() * gaps).sum().item())
        for norm, values in found.items():
            values.append(debiased_calibration_error(pooled if unit == "voxel" else statistics, norm, unit).item())
    mean = {norm: np.mean(values) for norm, values in found.items()}
    error = {norm: np.std(values) / np.sqrt(len(values)) for norm, values in found.items()}
    assert np.min(plain) > 0
    assert abs(mean["l2"]) < 4 * error["l2"] + 0.05 * np.mean(squares)
    # of g ~ N(0, s), 2 E|g| - E|g + s Z| is 2 - sqrt(2) times E|g|
    assert mean["l1"] == pytest.approx((2 - np.sqrt(2)) * np.mean(plain), rel=0.12)


def test_voxels_that_stray_together_are_not_debiased_as_voxels():
    values, plain = [], []
    for seed in range(30):
        statistics = drawn(seed, num_cases=20, num_voxels=200, together=40)
        values.append(debiased_calibration_error(statistics.pool()).item())
        plain.append(calibration_error(statistics.pool()).item())
    assert np.mean(values) > 0.7 * np.mean(plain)


@pytest.mark.parametrize("unit", ["voxel", "case"])
def test_much_data_leave_the_plain_error(unit):
    statistics = drawn(0, num_cases=50, num_voxels=20_000, bias=0.1)
    pooled = statistics.pool()
    plain = calibration_error(pooled).item()
    assert plain > 0.08
    of_unit = pooled if unit == "voxel" else statistics
    assert debiased_calibration_error(of_unit, unit=unit).item() == pytest.approx(plain, rel=0.01)
    gap = (pooled.sum_pred - pooled.sum_true) / pooled.counts
    squared = (pooled.counts / pooled.counts.sum() * gap.square()).sum().item()
    assert debiased_calibration_error(of_unit, "l2", unit).item() == pytest.approx(squared, rel=0.02)


@pytest.mark.parametrize(("together", "unit"), [(1, "voxel"), (1, "case"), (40, "case")])
def test_bands_cover_the_stated_share(together, unit):
    inside = []
    for seed in range(60):
        statistics = drawn(seed, num_cases=20, num_voxels=400, together=together)
        pooled = statistics.pool()
        low, high = consistency_band(pooled if unit == "voxel" else statistics, 0.9, unit, num_draws=300, seed=seed)
        inside += ((low <= pooled.mean_true) & (pooled.mean_true <= high)).flatten().tolist()
    share, error = np.mean(inside), np.sqrt(0.9 * 0.1 / len(inside))
    assert abs(share - 0.9) < 4 * error + 0.01


def test_a_band_of_voxels_misses_what_strays_together():
    inside = []
    for seed in range(20):
        pooled = drawn(seed, num_cases=20, num_voxels=400, together=40).pool()
        low, high = consistency_band(pooled, 0.9, num_draws=100)
        inside += ((low <= pooled.mean_true) & (pooled.mean_true <= high)).flatten().tolist()
    assert np.mean(inside) < 0.6


def test_band_of_voxels_equals_resampling_voxel_by_voxel():
    rng = np.random.default_rng(0)
    p = rng.random(300) ** 2
    y = torch.zeros(1, 1, 300, dtype=torch.float64)
    statistics = bin_statistics(torch.from_numpy(p)[None, None], y, 5)
    frequencies = []
    for _ in range(4000):
        again = rng.choice(p, 300)
        labels = rng.random(300) < again
        place = np.minimum((again * 5).astype(int), 4)
        frequencies.append([labels[place == k].mean() for k in range(5)])
    low, high = consistency_band(statistics, 0.9, num_draws=4000)
    np.testing.assert_allclose(low[0, 0], np.percentile(frequencies, 5, axis=0), atol=0.015)
    np.testing.assert_allclose(high[0, 0], np.percentile(frequencies, 95, axis=0), atol=0.015)


@pytest.mark.parametrize("unit", ["voxel", "case"])
def test_bands_are_fixed_by_the_seed_and_nan_where_bins_are_empty(unit):
    statistics = bin_statistics(torch.full((3, 2, 9), 0.25), torch.zeros(3, 2, 9), 4)
    low, high = consistency_band(statistics, unit=unit)
    assert low.shape == high.shape == (3 if unit == "voxel" else 1, 2, 4)
    assert (low.isnan() == high.isnan()).all()
    np.testing.assert_array_equal(low.isnan()[0, 0], [False, True, True, True])
    known = ~low.isnan()
    assert (low[known] <= 0.25).all()
    assert (high[known] >= 0.25).all()
    again = consistency_band(statistics, unit=unit)
    torch.testing.assert_close(again, (low, high), equal_nan=True, rtol=0, atol=0)


def test_a_single_case_cannot_contradict():
    statistics = drawn(0, num_cases=1, bias=0.3)
    low, high = consistency_band(statistics, unit="case")
    assert ((low <= statistics.mean_true + 1e-12) & (statistics.mean_true <= high + 1e-12)).all()
    torch.testing.assert_close(
        debiased_calibration_error(statistics, unit="case"), debiased_calibration_error(statistics)
    )


def test_no_voxels_are_nan():
    statistics = BinStatistics(*torch.zeros(3, 2, 1, 5, dtype=torch.float64))
    assert debiased_calibration_error(statistics).isnan().all()
    assert debiased_calibration_error(statistics, "l2", "case").isnan().all()


def test_wrong_arguments_are_named():
    statistics = drawn(0, num_cases=1)
    with pytest.raises(ValueError, match='norm must be "l1" or "l2", got 1'):
        debiased_calibration_error(statistics, 1)
    for call in (debiased_calibration_error, consistency_band):
        with pytest.raises(ValueError, match="unit must be"):
            call(statistics, unit="voxels")
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        consistency_band(statistics, 95)
    with pytest.raises(ValueError, match="num_draws"):
        consistency_band(statistics, num_draws=0)
