"""Isotonic regression and histogram binning against slow references."""

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from tests.calibrators.examples import drawn_labels, split, true_logits

from medcalib.calibrators import HistogramBinningCalibrator, IsotonicCalibrator, fit_calibrator
from medcalib.functional import bin_indices, bin_statistics, calibration_error


def binary_split(shape=(300, 300), distort=lambda logits: 2.5 * logits):
    true = true_logits(1, shape)
    return true, [(distort(true), drawn_labels(true, "sigmoid"))]


def test_isotonic_regression_is_that_of_all_voxels():
    """The fine bins are the only approximation: it is pooling adjacent violators voxel by voxel."""
    _, cases = binary_split()
    calibrator = IsotonicCalibrator(1, "sigmoid")
    fit_calibrator(calibrator, cases)
    logits, labels = (part.flatten().double().numpy() for part in cases[0])
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits, labels)
    grid = np.linspace(-9, 9, 500)
    mapped = calibrator(torch.from_numpy(grid).reshape(1, 1, -1)).sigmoid().flatten().numpy()
    difference = np.abs(mapped - reference.predict(grid))
    assert difference.mean() < 0.004
    assert difference.max() < 0.05


def test_isotonic_values_of_separate_logits_are_pooled_frequencies():
    """Five logits, far apart: each becomes its observed frequency, and the two that violate the order their mean."""
    levels = torch.tensor([-3.0, -1.0, 0.0, 1.5, 4.0])
    positives = torch.tensor([10, 300, 200, 600, 990])
    logits = levels.repeat_interleave(1000).reshape(1, 1, -1)
    labels = torch.cat([(torch.arange(1000) < count).float() for count in positives]).reshape(1, 1, -1)
    calibrator = IsotonicCalibrator(1, "sigmoid")
    report = fit_calibrator(calibrator, [(logits, labels)])
    mapped = calibrator(levels.reshape(1, 1, -1)).sigmoid().flatten()
    torch.testing.assert_close(mapped, torch.tensor([0.010, 0.250, 0.250, 0.600, 0.990]), rtol=0, atol=2e-3)
    assert report.nll_after < report.nll_before


@pytest.mark.parametrize("num_bins", [16, 1024])
def test_isotonic_is_monotone_and_bounded(num_bins):
    _, cases = binary_split((40, 40), distort=lambda logits: 3 * logits.sin() + logits)
    calibrator = IsotonicCalibrator(1, "sigmoid", num_bins=num_bins)
    fit_calibrator(calibrator, cases)
    grid = torch.linspace(-40, 40, 20_001, dtype=torch.float64).reshape(1, 1, -1)
    mapped = calibrator(grid).flatten()
    assert mapped.diff().min() > -1e-5
    assert mapped.isfinite().all()
    assert 0 < (mapped.diff().abs() < 1e-5).double().mean() < 1


def test_isotonic_recovers_a_distortion_that_no_scale_undoes():
    true, cases = binary_split(distort=lambda logits: logits.abs().sqrt() * logits.sign() * 4)
    calibrator = IsotonicCalibrator(1, "sigmoid")
    fit_calibrator(calibrator, cases)
    error = (calibrator(cases[0][0]).sigmoid() - true.sigmoid()).abs()
    assert error.mean() < 0.01
    assert (cases[0][0].sigmoid() - true.sigmoid()).abs().mean() > 0.05


def test_isotonic_probabilities_of_exclusive_classes_are_divided_by_their_sum():
    cases = split(2, shape=(80, 80))
    calibrator = IsotonicCalibrator(3)
    fit_calibrator(calibrator, cases)
    logits = cases[0].logits.double()
    apart = torch.cat(
        [
            _single(cases, index)(logits.log_softmax(1)[:, [index]] - torch.log1p(-logits.softmax(1)[:, [index]]))
            for index in range(3)
        ],
        1,
    ).sigmoid()
    torch.testing.assert_close(calibrator(logits).softmax(1), apart / apart.sum(1, keepdim=True), rtol=1e-3, atol=1e-4)


def _single(cases, index):
    """Isotonic regression of one class against the rest."""
    calibrator = IsotonicCalibrator(1, "sigmoid")
    binary = []
    for case in cases:
        probs = case.logits.double().softmax(1)[:, [index]]
        binary.append((probs.log() - torch.log1p(-probs), (case.labels == index).float()))
    fit_calibrator(calibrator, binary)
    return calibrator


def test_isotonic_of_two_classes_mirrors():
    """p0 + p1 = 1 holds before the division already, up to the bins."""
    cases = split(2, num_classes=2, shape=(80, 80))
    calibrator = IsotonicCalibrator(2)
    fit_calibrator(calibrator, cases)
    shift = calibrator.shift
    torch.testing.assert_close(shift[0], -shift[1].flip(0), rtol=0, atol=2e-2)


def test_histogram_binning_reads_off_frequencies():
    cases = split(2, num_classes=2, activation="sigmoid", shape=(50, 50))
    calibrator = HistogramBinningCalibrator(2, "sigmoid", num_bins=10)
    fit_calibrator(calibrator, cases)
    probs = torch.cat([case.logits for case in cases]).sigmoid().double().numpy()
    labels = torch.cat([case.labels for case in cases]).numpy()
    mapped = torch.cat([calibrator(case.logits) for case in cases]).sigmoid().double().numpy()
    for c in range(2):
        place = np.clip(np.ceil(probs[:, c] * 10) - 1, 0, 9)
        for k in range(10):
            inside = place == k
            frequency = (labels[:, c][inside].sum() + probs[:, c][inside].mean()) / (inside.sum() + 1)
            np.testing.assert_allclose(mapped[:, c][inside], frequency, rtol=1e-4)


def test_histogram_binning_has_no_error_on_its_own_bins():
    cases = split(2, num_classes=1, activation="sigmoid", shape=(100, 100))
    report = fit_calibrator(HistogramBinningCalibrator(1, "sigmoid"), cases)
    assert report.ece_before > 0.05
    assert report.ece_after < 1e-3


def test_an_empty_bin_keeps_its_centre():
    logits = torch.tensor([-2.0, 2.0]).repeat(50).reshape(1, 1, -1)
    labels = (torch.arange(100) % 5 > 1).float().reshape(1, 1, -1)
    calibrator = HistogramBinningCalibrator(1, "sigmoid", num_bins=10)
    fit_calibrator(calibrator, [(logits, labels)])
    assert calibrator(torch.zeros(1, 1, 1) - 1e-3).sigmoid().item() == pytest.approx(0.45, abs=1e-4)


def test_a_probability_on_a_boundary_is_looked_up_where_it_was_counted():
    logits = torch.zeros(1, 1, 100)
    labels = (torch.arange(100) % 10 < 2).float().reshape(1, 1, -1)
    calibrator = HistogramBinningCalibrator(1, "sigmoid", num_bins=10)
    fit_calibrator(calibrator, [(logits, labels)])
    assert calibrator(logits[..., :1]).sigmoid().item() == pytest.approx(20.5 / 101, rel=1e-5)


@pytest.mark.parametrize("cls", [IsotonicCalibrator, HistogramBinningCalibrator])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_absent_class_keeps_its_probabilities(cls, activation):
    cases = split(activation=activation)
    present = torch.tensor([1, 1, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    cases = [
        case._replace(
            labels=case.labels * present
            if activation == "sigmoid"
            else case.labels.where(case.labels != 2, case.labels.new_zeros(()))
        )
        for case in cases
    ]
    calibrator = cls(3, activation)
    with pytest.warns(UserWarning, match="lacks class"):
        fit_calibrator(calibrator, cases)
    logits = cases[0].logits
    kept = torch.isclose(calibrator(logits)[:, 2] - logits[:, 2], torch.zeros(()), atol=1e-5)
    assert kept.all()
    assert not torch.isclose(calibrator(logits)[:, 1] - logits[:, 1], torch.zeros(()), atol=1e-5).all()


@pytest.mark.parametrize("cls", [IsotonicCalibrator, HistogramBinningCalibrator])
def test_extreme_logits_stay_finite(cls):
    calibrator = cls(3)
    fit_calibrator(calibrator, split())
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [-1e4, -1e4, -1e4], [300.0, 299.0, -300.0]])
    calibrated = calibrator(logits)
    assert calibrated.isfinite().all()
    assert calibrated.softmax(1).sum(1).allclose(torch.ones(4))


def test_the_calibration_error_falls_on_other_cases():
    cases, others = split(4, shape=(80, 80)), split(6, shape=(80, 80))[4:]
    for cls in (IsotonicCalibrator, HistogramBinningCalibrator):
        calibrator = cls(3)
        fit_calibrator(calibrator, cases)
        errors = []
        for function in (lambda logits: logits, calibrator):
            parts = [bin_statistics(function(case.logits).softmax(1), case.labels) for case in others]
            errors.append(calibration_error(parts[0].merge(parts[1]).pool()).mean().item())
        assert errors[1] < 0.4 * errors[0]


@pytest.mark.parametrize("num_bins", [10, 20, 15])
def test_a_probability_lies_in_one_bin_when_fitted_and_when_used(num_bins):
    """0.10000001 lies in the second of 20 bins, whose boundary lies a little above 0.1 in float32, not in the third."""
    boundaries = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
    near = boundaries.logit().float()
    steps = torch.arange(-60, 61) * torch.finfo(torch.float32).eps
    logits = (near[:, None] * (1 + steps)).reshape(-1, 1, 1)
    probs = logits.sigmoid()
    binned = bin_statistics(probs, torch.zeros_like(probs), num_bins).counts[:, 0].argmax(1)
    calibrator = HistogramBinningCalibrator(1, "sigmoid", num_bins)
    calibrator.log_odds.copy_(torch.arange(num_bins))
    calibrator.identity.fill_(False)
    assert calibrator.calibrate(logits).flatten().tolist() == binned.tolist()
    assert bin_indices(torch.tensor([0.10000001]), 20).item() == 1
