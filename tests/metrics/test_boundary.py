import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medcalib.metrics import BinStatisticsMetric, CalibrationErrorMetric, boundary, boundary_band


def band_by_loop(labels, width, spacing):
    labels = labels.numpy()
    voxels = list(itertools.product(*(range(n) for n in labels.shape)))
    band = np.zeros(labels.shape, dtype=bool)
    for a in voxels:
        distances = [np.linalg.norm((np.subtract(a, b)) * spacing) for b in voxels if labels[a] != labels[b]]
        band[a] = bool(distances) and min(distances) <= width + 1e-9
    return torch.from_numpy(band)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [1.0, 1.5, 4.0])
@pytest.mark.parametrize(("size", "spacing"), [((20,), (1.0,)), ((9, 8), (1.0, 0.7)), ((6, 5, 4), (2.0, 1.0, 0.5))])
def test_equals_distances_between_all_voxels(seed, width, size, spacing):
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(size, generator=generator) < 0.08).long() * torch.randint(1, 4, size, generator=generator)
    band = boundary_band(labels[None, None], width, spacing)
    torch.testing.assert_close(band[0, 0], band_by_loop(labels, width, np.array(spacing)))


def test_single_label_has_no_boundary():
    assert not boundary_band(torch.full((2, 1, 5, 5), 3), 2.0, [1.0, 1.0]).any()


def test_label_numbers_do_not_matter():
    labels = torch.randint(3, (1, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    other = torch.tensor([7, -2, 0])[labels]
    torch.testing.assert_close(boundary_band(labels, 1.0, [1.0, 1.0]), boundary_band(other, 1.0, [1.0, 1.0]))


def test_bands_of_channels_are_united():
    labels = torch.randint(2, (1, 2, 30), generator=torch.Generator().manual_seed(0)).float()
    labels[..., 5:20] = 0
    single = [boundary_band(labels[:, c : c + 1], 1.0, [1.0]) for c in range(2)]
    torch.testing.assert_close(boundary_band(labels, 1.0, [1.0]), single[0] | single[1])
    torch.testing.assert_close(boundary_band(0.8 * labels, 1.0, [1.0]), single[0] | single[1])


def test_spacing_of_meta_tensors_is_used_in_batches_and_lists():
    labels = torch.zeros(1, 1, 12, 12)
    labels[..., 6:] = 1
    affine = torch.diag(torch.tensor([1.0, 3.0, 1.0, 1.0]))
    single = MetaTensor(labels[0], affine=affine)
    torch.testing.assert_close(boundary_band(single.unsqueeze(0), 3.0), boundary_band(labels, 3.0, spacing=(1.0, 3.0)))
    assert boundary_band(labels, 3.0, spacing=(1.0, 3.0)).sum() == 24
    metric = BinStatisticsMetric(boundary_width=3.0)
    metric([torch.full((1, 12, 12), 0.5)], [single])
    assert metric.aggregate().counts.sum() == 24


def test_metric_in_the_band_ignores_the_surroundings():
    generator = torch.Generator().manual_seed(0)
    y = torch.zeros(1, 1, 40, 40, dtype=torch.long)
    y[..., 15:25, 15:25] = 1
    p = (torch.rand(1, 1, 40, 40, generator=generator) * 0.5 + 0.5 * y).clamp(0.01, 0.99)
    y_pred = torch.cat([1 - p, p], 1)
    whole, band = CalibrationErrorMetric(), CalibrationErrorMetric(boundary_width=3.0)
    padding = (30,) * 4
    wider = torch.nn.functional.pad(y_pred[:, :1], padding, value=1.0), torch.nn.functional.pad(y_pred[:, 1:], padding)
    wider_pred, wider_y = torch.cat(wider, 1), torch.nn.functional.pad(y, padding)
    assert whole(wider_pred, wider_y)[0, 1] < 0.5 * whole(y_pred, y)[0, 1]
    spacing = (1.0, 1.0)
    torch.testing.assert_close(band(wider_pred, wider_y, spacing=spacing), band(y_pred, y, spacing=spacing))


def test_mask_and_band_both_apply():
    y = torch.zeros(1, 1, 20, dtype=torch.long)
    y[..., 10:] = 1
    mask = torch.arange(20)[None, None] < 10
    metric = BinStatisticsMetric(boundary_width=2.0)
    metric(torch.full((1, 1, 20), 0.5), y, mask=mask, spacing=[1.0])
    assert metric.aggregate().counts.sum() == 2


@pytest.mark.parametrize(
    ("width", "spacing", "message"),
    [
        (0.0, [1.0, 1.0], "must be above 0 mm, got 0.0"),
        (1.0, None, "needs the spacing in mm"),
        (1.0, [1.0], r"must hold 2 voxel sizes above 0 mm, got \(1.0,\)"),
        (1.0, [1.0, 0.0], r"got \(1.0, 0.0\)"),
    ],
)
def test_wrong_arguments_are_named(width, spacing, message):
    with pytest.raises(ValueError, match=message):
        boundary_band(torch.zeros(1, 1, 4, 4), width, spacing)


def test_a_channel_has_a_voxel_from_one_half_on():
    y = torch.tensor([[[0.0, 0.49, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    expected = boundary_band((y >= 0.5).int(), 1.0, [1.0])
    assert torch.equal(boundary_band(y, 1.0, [1.0]), expected)
    assert expected.any()


@pytest.mark.parametrize("slab", [1, 40, 10**9])
@pytest.mark.parametrize(("size", "spacing"), [((20,), (1.0,)), ((9, 8), (1.0, 0.7)), ((6, 5, 4), (2.0, 1.0, 0.5))])
def test_band_of_a_mask_equals_that_of_its_label_map_in_any_slabs(monkeypatch, slab, size, spacing):
    monkeypatch.setattr(boundary, "_SLAB", slab)
    for seed in range(4):
        mask = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.2
        for width in (0.6, 1.5, 4.0, 50.0):
            band = torch.zeros(size, dtype=torch.bool)
            box, inside = boundary.mask_band(mask.numpy(), width, spacing)
            band[box] = torch.from_numpy(inside)
            torch.testing.assert_close(band, band_by_loop(mask.long(), width, np.array(spacing)))
            torch.testing.assert_close(band, boundary_band(mask[None, None].long(), width, spacing)[0, 0])


def test_an_infinite_band_is_everything():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    assert boundary.mask_band(mask.numpy(), np.inf, (1.0, 1.0)) is None
    mask[2, 3] = True
    assert boundary.mask_band(mask.numpy(), np.inf, (1.0, 1.0))[1].shape == (5, 6)
    assert boundary_band(mask[None, None].int(), np.inf, (1.0, 1.0)).all()
