import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medcalib.functional import every_calibration_error
from medcalib.metrics import BinStatisticsMetric, BoundaryStatisticsMetric

SIZES = [((30,), (0.5,)), ((9, 8), (1.0, 0.7)), ((6, 5, 7), (2.0, 1.0, 0.5))]


def prediction(seed, shape, num_classes=3, batch=2):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(num_classes, (batch, 1, *shape), generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.7] = 0
    return torch.randn(batch, num_classes, *shape, generator=generator).softmax(1), y


def by_loop(y_pred, truth, band_mm, spacing, num_bins):
    """Sums over the bins of one class of one case."""
    voxels = list(itertools.product(*(range(n) for n in truth.shape)))
    sums = np.zeros((3, num_bins))
    for a in voxels:
        others = [np.linalg.norm(np.subtract(a, b) * np.array(spacing)) for b in voxels if truth[a] != truth[b]]
        if others and min(others) <= band_mm + 1e-9:
            place = min(max(int(np.ceil(y_pred[a] * num_bins)) - 1, 0), num_bins - 1)
            sums[:, place] += 1, y_pred[a], truth[a]
    return sums


@pytest.mark.parametrize(("shape", "spacing"), SIZES)
@pytest.mark.parametrize("band_mm", [1.0, 2.1])
def test_equals_a_loop_over_voxels(shape, spacing, band_mm):
    y_pred, y = prediction(0, shape, batch=1)
    found = BoundaryStatisticsMetric(band_mm, num_bins=4)(y_pred, y, spacing=spacing)
    for label in range(3):
        expected = by_loop(y_pred[0, label].numpy(), (y[0, 0] == label).numpy(), band_mm, spacing, 4)
        for part, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(part[0, label], wanted, rtol=1e-5)


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize(("shape", "spacing"), SIZES)
def test_an_infinite_band_gives_the_plain_errors(shape, spacing, include_background):
    y_pred, y = prediction(1, shape)
    y[0][y[0] == 2] = 0
    band = BoundaryStatisticsMetric(np.inf, 5, include_background)(y_pred, y, spacing=spacing)
    plain = BinStatisticsMetric(5, include_background)(y_pred, y)
    plain = type(band)(*plain)
    for name, errors in every_calibration_error(band).items():
        torch.testing.assert_close(errors, every_calibration_error(plain)[name], equal_nan=True)
    assert every_calibration_error(band)["ece"][0, -1].isnan()
    # nor is there anything to pool
    assert band.counts[0, -1].sum() == 0


def test_a_batch_equals_its_cases_and_lists_and_pooling_adds_up():
    y_pred, y = prediction(2, (9, 8), batch=3)
    metric = BoundaryStatisticsMetric(1.5, 4, include_background=False)
    whole = metric(y_pred, y, spacing=[1.0, 0.7])
    parts = [metric(y_pred[i : i + 1], y[i : i + 1], spacing=[1.0, 0.7]) for i in range(3)]
    metric.reset()
    affine = torch.diag(torch.tensor([1.0, 0.7, 1.0, 1.0]))
    metric(list(y_pred), [MetaTensor(one, affine=affine) for one in y])
    for part, single, listed in zip(whole, zip(*parts, strict=True), metric.aggregate(), strict=True):
        torch.testing.assert_close(torch.cat(single), part)
        torch.testing.assert_close(listed, part)
        assert part.shape == (3, 2, 4)
    torch.testing.assert_close(metric.aggregate(pooled=True).counts, whole[0].sum(0, keepdim=True))


def test_voxels_outside_do_not_count_and_are_not_looked_at():
    y_pred, y = torch.full((1, 2, 40), 0.5), torch.zeros(1, 1, 40, dtype=torch.long)
    y[..., 10:12] = 1
    metric = BoundaryStatisticsMetric(2.0, 4)
    before = metric(y_pred, y, spacing=[1.0])
    far = y_pred.clone()
    far[..., :8], far[..., 14:] = 0.9, float("nan")
    after = metric(far, y, spacing=[1.0])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other)
    assert before[0].sum(-1).tolist() == [[6, 6]]
    longer = torch.nn.functional.pad(y_pred, (30, 30), value=0.01), torch.nn.functional.pad(y, (30, 30))
    for one, other in zip(before, metric(*longer, spacing=[1.0]), strict=True):
        torch.testing.assert_close(one, other)
    mask = (torch.arange(40) < 11)[None, None]
    assert metric(y_pred, y, mask=mask, spacing=[1.0])[0].sum(-1).tolist() == [[3, 3]]


def test_each_class_has_the_band_of_its_own_boundary():
    """The boundary between two other classes is none of this class."""
    y = torch.tensor([0] * 8 + [1] * 4 + [2] * 4 + [3] * 4)[None, None]
    found = BoundaryStatisticsMetric(1.0, 4)(torch.full((1, 4, 20), 0.25), y, spacing=[1.0])
    assert found.counts.sum(-1).tolist() == [[2, 4, 4, 2]]
    channels = torch.stack([y[0, 0] == label for label in range(4)])[None].float()
    again = BoundaryStatisticsMetric(1.0, 4)(torch.full((1, 4, 20), 0.25), channels, spacing=[1.0])
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one, other)


def test_wrong_input_is_named():
    y_pred, y = prediction(0, (5,))
    with pytest.raises(ValueError, match="band_mm must be above 0 mm, got 0"):
        BoundaryStatisticsMetric(0)
    with pytest.raises(ValueError, match="needs the spacing"):
        BoundaryStatisticsMetric(1.0)(y_pred, y)
    with pytest.raises(ValueError, match="needs the ground truth"):
        BoundaryStatisticsMetric(1.0)(y_pred)
