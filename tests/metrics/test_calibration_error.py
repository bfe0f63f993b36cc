import monai.metrics
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric
from netcal.metrics import ECE
from torchmetrics.functional.classification import binary_calibration_error

from medcalib.functional import bin_statistics, calibration_error
from medcalib.metrics import (
    BinStatisticsMetric,
    BrierScoreMetric,
    CalibrationErrorMetric,
    NegativeLogLikelihoodMetric,
)

METRICS = [
    CalibrationErrorMetric,
    lambda **kwargs: CalibrationErrorMetric(calibration_reduction=["average", "maximum", "signed"], **kwargs),
    NegativeLogLikelihoodMetric,
    BrierScoreMetric,
    lambda **kwargs: BrierScoreMetric(decompose=True, **kwargs),
]


def random_batch(batch=3, classes=4, size=(6, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    y_pred = torch.randn(batch, classes, *size, generator=generator).softmax(1)
    return y_pred, torch.randint(classes, (batch, 1, *size), generator=generator)


def one_hot(y, classes):
    return torch.cat([y == c for c in range(classes)], 1).float()


def flat(values):
    """Every number that a metric can give, as one tensor."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, torch.Tensor):
        values = [values]
    return torch.cat([value.double().flatten() for value in values])


@pytest.mark.parametrize("calibration_reduction", ["expected", "average", "maximum"])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("metric_reduction", ["mean", "mean_batch", "none", "sum_channel"])
def test_equals_monai(calibration_reduction, include_background, metric_reduction):
    arguments = {
        "num_bins": 15,
        "include_background": include_background,
        "calibration_reduction": calibration_reduction,
        "metric_reduction": metric_reduction,
        "get_not_nans": True,
    }
    theirs = monai.metrics.CalibrationErrorMetric(**arguments)
    ours = CalibrationErrorMetric(**arguments, ignore_empty=False)
    for seed in range(3):
        y_pred, y = random_batch(seed=seed)
        torch.testing.assert_close(ours(y_pred, y), theirs(y_pred, one_hot(y, 4)).double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.get_buffer(), theirs.get_buffer().double(), rtol=1e-5, atol=1e-6)
    for our, their in zip(ours.aggregate(), theirs.aggregate(), strict=True):
        torch.testing.assert_close(our.double(), their.double(), rtol=1e-5, atol=1e-6)


def test_expected_error_equals_netcal_and_torchmetrics():
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(1, 1, 4000, generator=generator) * 0.98 + 0.01
    y = (torch.rand(1, 1, 4000, generator=generator) < p**2).long()
    ours = CalibrationErrorMetric(num_bins=10)(p, y).item()
    assert ours == pytest.approx(ECE(10, detection=True).measure(p.flatten().numpy(), y.flatten().numpy()), abs=1e-6)
    assert ours == pytest.approx(binary_calibration_error(p.flatten(), y.flatten(), n_bins=10).item(), abs=1e-6)


def test_labels_drawn_from_the_prediction_have_no_gap():
    generator = torch.Generator().manual_seed(2)
    p = torch.rand(1, 1, 200_000, generator=generator)
    y = torch.bernoulli(p, generator=generator)
    metric = CalibrationErrorMetric(calibration_reduction=["expected", "average", "maximum", "signed"])
    metric(p, y)
    # The gap of a bin of n voxels has a standard deviation below 0.5 / sqrt(n).
    assert {name: value.item() for name, value in metric.aggregate().items()} == pytest.approx(
        {"ece": 0, "ace": 0, "mce": 0, "gap": 0}, abs=5 * 0.5 / np.sqrt(10_000)
    )


def test_signed_gap_is_positive_for_over_confidence():
    metric = CalibrationErrorMetric(calibration_reduction="signed")
    assert metric(torch.full((1, 1, 4), 0.8), torch.tensor([[[1, 0, 1, 0]]])).item() == pytest.approx(0.3)


def test_several_reductions_equal_one_after_the_other():
    y_pred, y = random_batch()
    names = {"expected": "ece", "average": "ace", "maximum": "mce", "signed": "gap"}
    together = CalibrationErrorMetric(calibration_reduction=list(names))
    together(y_pred, y)
    for name, short in names.items():
        alone = CalibrationErrorMetric(calibration_reduction=name)
        alone(y_pred, y)
        torch.testing.assert_close(together.aggregate()[short], alone.aggregate(), rtol=0, atol=0)


@pytest.mark.parametrize("build", [*METRICS, BinStatisticsMetric])
@pytest.mark.parametrize("include_background", [True, False])
def test_batch_list_and_single_cases_agree(build, include_background):
    y_pred, y = random_batch()
    batch, items, singles = (build(include_background=include_background) for _ in range(3))
    batch(y_pred, y)
    items(list(y_pred), list(y))
    for index in range(3):
        singles(y_pred[index : index + 1], y[index : index + 1])
    expected = batch.get_buffer()
    for other in (items, singles):
        torch.testing.assert_close(flat(other.get_buffer()), flat(expected), rtol=0, atol=0, equal_nan=True)
    assert isinstance(batch, CumulativeIterationMetric)


@pytest.mark.parametrize("build", METRICS)
def test_labels_equal_one_hot_target(build):
    y_pred, y = random_batch()
    labels, target = build(), build()
    torch.testing.assert_close(flat(labels(y_pred, y)), flat(target(y_pred, one_hot(y, 4))), equal_nan=True)


@pytest.mark.parametrize("build", METRICS)
def test_mask_equals_cutting_the_voxels_out(build):
    y_pred, y = random_batch(size=(40,))
    mask = torch.arange(40).expand(3, 1, 40) < 25
    wanted = flat(build()(y_pred[..., :25], y[..., :25]))
    torch.testing.assert_close(flat(build()(y_pred, y, mask=mask)), wanted, equal_nan=True)
    torch.testing.assert_close(
        flat(build()(list(y_pred), list(y), mask=list(mask.float()))), wanted, rtol=1e-12, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("build", METRICS)
def test_class_permutation_permutes_the_values(build):
    y_pred, y = random_batch()
    order = torch.tensor([2, 0, 3, 1])
    place = order.argsort()
    plain, permuted = build(), build()
    plain(y_pred, y)
    permuted(y_pred[:, order], place[y])
    buffers = [m.get_buffer() if isinstance(m.get_buffer(), list) else [m.get_buffer()] for m in (plain, permuted)]
    for ours, theirs in zip(*buffers, strict=True):
        torch.testing.assert_close(theirs, ours[:, order], rtol=1e-12, atol=0)


@pytest.mark.parametrize("build", METRICS)
@pytest.mark.parametrize("use_labels", [True, False])
def test_absent_classes_are_nan_by_option(build, use_labels):
    y_pred, y = random_batch(batch=2)
    y[0][y[0] == 2] = 1
    y = y if use_labels else one_hot(y, 4)
    for ignore_empty in (True, False):
        metric = build(ignore_empty=ignore_empty)
        metric(y_pred, y)
        values = metric.get_buffer()
        for value in values if isinstance(values, list) else [values]:
            expected = torch.zeros(2, 4, dtype=torch.bool)
            expected[0, 2] = ignore_empty
            torch.testing.assert_close(value.isnan(), expected)


@pytest.mark.parametrize("build", METRICS)
@pytest.mark.parametrize("use_labels", [True, False])
def test_class_outside_the_mask_is_absent(build, use_labels):
    y_pred, y = random_batch(size=(40,))
    y[..., 20:] = 3
    y[..., :20] = y[..., :20].clamp(max=2)
    mask = torch.arange(40).expand(3, 1, 40) < 20
    metric = build()
    metric(y_pred, y if use_labels else one_hot(y, 4), mask=mask)
    values = metric.get_buffer()
    for value in values if isinstance(values, list) else [values]:
        assert value[:, 3].isnan().all()
        assert not value[:, :3].isnan().any()


@pytest.mark.parametrize("build", METRICS)
def test_single_class_is_never_taken_for_background(build):
    y_pred, y = torch.rand(2, 1, 30), torch.randint(2, (2, 1, 30))
    first, second = build(include_background=False), build(include_background=True)
    torch.testing.assert_close(flat(first(y_pred, y)), flat(second(y_pred, y)), rtol=0, atol=0)


def test_statistics_are_kept_per_case_and_pooled():
    metric = BinStatisticsMetric(num_bins=7, include_background=False)
    batches = [random_batch(seed=seed) for seed in range(2)]
    for y_pred, y in batches:
        metric(y_pred, y)
    y_pred, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = bin_statistics(y_pred, y, num_bins=7)
    for ours, wanted in zip(metric.aggregate(), expected, strict=True):
        torch.testing.assert_close(ours, wanted[:, 1:], rtol=0, atol=0)
    pooled = metric.aggregate(pooled=True)
    assert pooled.counts.dtype == torch.int64
    for ours, wanted in zip(pooled, expected, strict=True):
        torch.testing.assert_close(ours, wanted[:, 1:].sum(0, keepdim=True), rtol=1e-12, atol=0)
    assert calibration_error(pooled).shape == (1, 3)


def test_soft_bins_can_be_chosen():
    y_pred, y = random_batch()
    soft = bin_statistics(y_pred, y, soft=True)
    torch.testing.assert_close(CalibrationErrorMetric(soft=True)(y_pred, y), calibration_error(soft))
    torch.testing.assert_close(BinStatisticsMetric(soft=True)(y_pred, y)[0], soft.counts)


def test_reset_forgets():
    metric = CalibrationErrorMetric()
    y_pred, y = random_batch()
    metric(y_pred, y)
    before = metric.aggregate()
    metric.reset()
    with pytest.raises(ValueError, match="CalibrationErrorMetric has seen no case yet"):
        metric.aggregate()
    metric(y_pred, y)
    torch.testing.assert_close(metric.aggregate(), before, rtol=0, atol=0)


@pytest.mark.parametrize("build", [*METRICS, BinStatisticsMetric])
def test_wrong_values_name_the_case(build):
    y_pred, y = random_batch()
    y_pred[1, 2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        build()(y_pred, y)
    with pytest.raises(ValueError, match=r"^case 1 of the batch: .*NaN"):
        build()(list(y_pred), list(y))
    named = [MetaTensor(p, meta={"filename_or_obj": f"patient_{i}.nii.gz"}) for i, p in enumerate(y_pred)]
    with pytest.raises(ValueError, match=r"^patient_1.nii.gz: .*NaN"):
        build()(named, list(y))


@pytest.mark.parametrize("build", [*METRICS, BinStatisticsMetric])
def test_missing_truth_is_named(build):
    y_pred, y = random_batch()
    for prediction in (y_pred, list(y_pred)):
        with pytest.raises(ValueError, match="needs the ground truth y"):
            build()(prediction)
    with pytest.raises(ValueError, match="differ in length: 3, 2 and 3"):
        build()(list(y_pred), list(y)[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_bins": 0}, "num_bins must be at least 1, got 0"),
        ({"calibration_reduction": "mean"}, "one or more of expected, average, maximum, signed, got 'mean'"),
        ({"calibration_reduction": []}, r"got \[\]"),
        ({"boundary_width": 0.0}, "boundary_width must be above 0 mm, got 0.0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CalibrationErrorMetric(**arguments)
