"""Laws and oracles of the calibration errors."""

import netcal.metrics
import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from torchmetrics.functional.classification import binary_calibration_error

from medcalib.functional import (
    BinStatistics,
    bin_statistics,
    brier_decomposition,
    brier_score,
    calibration_error,
    calibration_gap,
    mean_calibration_gap,
)
from medcalib.losses import SoftL1ACELoss

REDUCTIONS = ["expected", "average", "maximum"]


def binary_example(voxels=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(1, 1, voxels, generator=generator)
    return probs, (torch.rand(1, 1, voxels, generator=generator) < probs**2).float()


@pytest.mark.parametrize("soft", [False, True])
def test_labels_drawn_from_the_predictions_are_calibrated(soft):
    generator = torch.Generator().manual_seed(0)
    probs = (2 * torch.randn(1, 3, 200_000, generator=generator)).softmax(1)
    labels = torch.multinomial(probs[0].T, 1, generator=generator).T[None]
    statistics = bin_statistics(probs, labels, soft=soft)
    # A bin's gap is a mean of n_k independent draws of variance at most 1/4.
    sampling = (0.5 * statistics.counts.double().sqrt()).sum(-1) / statistics.counts.sum(-1)
    assert bool((calibration_error(statistics) < sampling).all())
    assert bool((calibration_error(statistics) > 0).all())
    wrong = bin_statistics(probs.square() / probs.square().sum(1, keepdim=True), labels, soft=soft)
    assert bool((calibration_error(wrong) > 5 * sampling).all())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equals_monai(reduction):
    generator = torch.Generator().manual_seed(1)
    probs = (3 * torch.randn(2, 3, 500, generator=generator)).softmax(1)
    labels = torch.randint(0, 3, (2, 1, 500), generator=generator)
    one_hot = (labels == torch.arange(3)[:, None]).float()
    metric = CalibrationErrorMetric(num_bins=20, calibration_reduction=reduction, metric_reduction="none")
    wanted = metric(probs, one_hot)
    torch.testing.assert_close(calibration_error(bin_statistics(probs, labels), reduction).float(), wanted)


@pytest.mark.parametrize(("reduction", "norm"), [("expected", "l1"), ("maximum", "max")])
def test_equals_torchmetrics(reduction, norm):
    probs, y = binary_example()
    # The same equal bins, but for values on a boundary.
    wanted = binary_calibration_error(probs.flatten(), y.flatten().long(), n_bins=20, norm=norm)
    mine = calibration_error(bin_statistics(probs, y, num_bins=20), reduction)
    assert mine.item() == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.parametrize(("reduction", "name"), zip(REDUCTIONS, ["ECE", "ACE", "MCE"], strict=True))
def test_equals_netcal(reduction, name):
    probs, y = binary_example()
    wanted = getattr(netcal.metrics, name)(20).measure(probs.flatten().numpy().astype(np.float64), y.flatten().numpy())
    mine = calibration_error(bin_statistics(probs, y, num_bins=20), reduction)
    assert mine.item() == pytest.approx(wanted, abs=1e-5)


def test_empty_bins_and_classes():
    probs = torch.tensor([[[0.95, 0.95], [0.05, 0.05]]])
    statistics = bin_statistics(probs, torch.tensor([[[0, 0]]]), num_bins=10)
    assert calibration_gap(statistics)[0, 0, :9].isnan().all()
    assert calibration_error(statistics, "average")[0].tolist() == pytest.approx([0.05, 0.05])
    nothing = bin_statistics(probs, torch.tensor([[[0, 0]]]), mask=torch.zeros(1, 1, 2))
    for reduction in REDUCTIONS:
        assert calibration_error(nothing, reduction).isnan().all()
    assert mean_calibration_gap(nothing).isnan().all()
    assert all(term.isnan().all() for term in brier_decomposition(nothing))


def test_pooled_calibrated_cases_have_no_gap():
    # Means weighted by cases instead of voxels would give 0.02 here.
    counts = torch.tensor([[[10000]], [[1]]])
    sums = counts * torch.tensor([0.901, 0.949], dtype=torch.float64)[:, None, None]
    pooled = BinStatistics(counts, sums, sums.clone()).pool()
    assert calibration_error(pooled).item() == 0


def test_gaps_are_signed():
    over = bin_statistics(torch.full((1, 1, 10), 0.9), torch.tensor([[[1.0] * 5 + [0.0] * 5]]))
    assert mean_calibration_gap(over).item() == pytest.approx(0.4)
    assert mean_calibration_gap(bin_statistics(torch.full((1, 1, 10), 0.1), torch.ones(1, 1, 10))).item() < 0


def test_unknown_reduction():
    with pytest.raises(ValueError, match="expected"):
        calibration_error(bin_statistics(*binary_example()), "mean")


def test_decomposition_adds_up_to_the_brier_score():
    # With one probability in each bin nothing is lost by binning.
    generator = torch.Generator().manual_seed(3)
    probs = (torch.randint(0, 20, (1, 1, 3000), generator=generator) + 0.5) / 20
    y = (torch.rand(1, 1, 3000, generator=generator) < probs.sqrt()).float()
    reliability, resolution, uncertainty = brier_decomposition(bin_statistics(probs, y, num_bins=20))
    assert (reliability - resolution + uncertainty).item() == pytest.approx(brier_score(probs, y).item(), abs=1e-7)
    assert uncertainty.item() == pytest.approx(y.double().var(correction=0).item())


def test_a_bin_of_vanishing_weight_is_empty():
    """999 voxels at 0.5 and one a hair above: the next bin gets 5e-6 of a voxel, which is no bin."""
    probs = torch.full((1, 1, 1000), 0.5)
    probs[..., -1] += 1e-6
    truth = (torch.arange(1000) < 499).float().reshape(1, 1, 1000)
    soft = bin_statistics(probs, truth, num_bins=5, soft=True)
    assert 0 < soft.counts[0, 0, 3] < 1e-5
    for reduction in REDUCTIONS:
        assert calibration_error(soft, reduction).item() == pytest.approx(0.001, rel=1e-4)
    assert calibration_error(soft, "average", empty_weight=0).item() == pytest.approx(0.2505, rel=1e-3)
    assert calibration_gap(soft).isnan()[0, 0].tolist() == [True, True, False, True, True]
    assert calibration_gap(soft, empty_weight=0)[0, 0, 3].item() == pytest.approx(0.5, rel=1e-4)


def test_soft_errors_are_those_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(2, 3, 50, generator=generator).pow(6)
    truth = (torch.rand(2, 3, 50, generator=generator) < probs).float()
    for empty_weight in (0.01, 0.5):
        loss = SoftL1ACELoss(num_bins=15, reduction="none", ignore_empty_classes=False, empty_weight=empty_weight)
        errors = calibration_error(bin_statistics(probs, truth, 15, soft=True), "average", empty_weight)
        torch.testing.assert_close(errors, loss(probs, truth)[..., 0].double(), rtol=1e-5, atol=1e-6)


def test_a_single_voxel_fills_a_hard_bin():
    hard = bin_statistics(torch.tensor([[[0.1, 0.9]]]), torch.tensor([[[0.0, 0.0]]]), num_bins=2)
    assert calibration_error(hard, "average").item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="empty_weight must be in .0, 1., got 2"):
        calibration_error(hard, "average", empty_weight=2)
