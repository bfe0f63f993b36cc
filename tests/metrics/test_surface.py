import itertools

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, from_engine

from medcalib.metrics import ModifiedHausdorffDistanceMetric


def surface_by_loop(mask):
    """Voxels of the mask with a face neighbour outside the mask or the volume."""
    points = []
    for voxel in map(tuple, np.argwhere(mask)):
        neighbours = [np.add(voxel, step) for axis in np.eye(mask.ndim, dtype=int) for step in (axis, -axis)]
        inside = [(n >= 0).all() and (n < mask.shape).all() and mask[tuple(n)] for n in neighbours]
        if not all(inside):
            points.append(voxel)
    return points


def distance_by_loop(predicted, true, spacing):
    if not predicted.any() or not true.any():
        return np.nan
    a, b = surface_by_loop(predicted), surface_by_loop(true)
    gaps = np.array([[np.linalg.norm(np.subtract(p, q) * spacing) for q in b] for p in a])
    return max(gaps.min(axis=1).mean(), gaps.min(axis=0).mean())


def blobs(seed, shape, num_classes=3):
    """A label map with a small box of each class, some of them at the border, some partly or fully overwritten."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.int64)
    for label in range(1, num_classes):
        start = [rng.integers(0, size - 2) for size in shape]
        labels[tuple(slice(s, s + rng.integers(2, 5)) for s in start)] = label
    return torch.from_numpy(labels)


def one_hot(labels, num_classes):
    return torch.stack([labels == index for index in range(num_classes)])


SIZES = [((30,), (0.5,)), ((12, 9), (1.0, 0.7)), ((7, 6, 8), (2.0, 1.0, 0.5))]


@pytest.mark.parametrize(("shape", "spacing"), SIZES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_distances_between_all_surface_voxels(seed, shape, spacing):
    predicted, true = blobs(seed, shape, 4), blobs(seed + 50, shape, 4)
    metric = ModifiedHausdorffDistanceMetric(include_background=True, num_classes=4)
    values = metric(predicted[None, None], true[None, None], spacing=spacing)
    assert values.shape == (1, 4)
    expected = [distance_by_loop((predicted == c).numpy(), (true == c).numpy(), np.array(spacing)) for c in range(4)]
    np.testing.assert_allclose(values[0], expected, rtol=1e-6)
    assert np.isfinite(expected).sum() >= 2


@pytest.mark.parametrize(("shape", "spacing"), SIZES)
def test_label_maps_equal_channels(shape, spacing):
    predicted, true = blobs(0, shape), blobs(1, shape)
    metric = ModifiedHausdorffDistanceMetric(num_classes=3)
    expected = metric(predicted[None, None], true[None, None].float(), spacing=spacing)
    assert expected.shape == (1, 2)
    for p, t in itertools.product((predicted[None], one_hot(predicted, 3)), (true[None], one_hot(true, 3).float())):
        other = ModifiedHausdorffDistanceMetric(num_classes=None if len(p) + len(t) > 2 else 3)
        torch.testing.assert_close(other(p[None], t[None], spacing=spacing), expected, equal_nan=True)


def test_laws_of_a_distance():
    a, b = blobs(0, (10, 11, 12))[None, None], blobs(3, (10, 11, 12))[None, None]
    metric = ModifiedHausdorffDistanceMetric(include_background=True, num_classes=3)
    np.testing.assert_array_equal(metric(a, a, spacing=[1, 1, 1]), [[0, 0, 0]])
    forth = metric(a, b, spacing=[1.0, 2.0, 0.5])
    assert (forth > 0).all()
    torch.testing.assert_close(metric(b, a, spacing=[1.0, 2.0, 0.5]), forth, equal_nan=True)
    torch.testing.assert_close(metric(a, b, spacing=[3.0, 6.0, 1.5]), 3 * forth, equal_nan=True, rtol=1e-6, atol=0)
    padded = [torch.nn.functional.pad(x, (5, 9, 7, 3, 4, 6)) for x in (a, b)]
    moved = metric(*padded, spacing=[1.0, 2.0, 0.5])
    torch.testing.assert_close(moved[:, 1:], forth[:, 1:], equal_nan=True)


def test_larger_of_the_two_directions_counts():
    y_pred, y = torch.zeros(1, 1, 30), torch.zeros(1, 1, 30)
    y_pred[..., 0] = 1
    y[..., 0] = 1
    y[..., 20] = 1
    metric = ModifiedHausdorffDistanceMetric()
    assert metric(y_pred, y, spacing=[1.0]).item() == metric(y, y_pred, spacing=[1.0]).item() == 10.0


def test_absent_classes_are_nan_and_counted():
    y_pred, y = torch.zeros(2, 1, 20, dtype=torch.long), torch.zeros(2, 1, 20, dtype=torch.long)
    y_pred[0, 0, 3:5], y[0, 0, 4:6] = 1, 1
    y_pred[1, 0, 3:5] = 1
    y[1, 0, 3:5] = 2
    metric = ModifiedHausdorffDistanceMetric(num_classes=3, get_not_nans=True)
    values = metric(y_pred, y, spacing=[1.0])
    np.testing.assert_array_equal(np.isnan(values), [[False, True], [True, True]])
    mean, number = metric.aggregate("mean_batch")
    np.testing.assert_array_equal(mean, [values[0, 0], np.nan])
    np.testing.assert_array_equal(number, [1, 0])
    assert metric.aggregate()[0].item() == values[0, 0]


def test_spacing_of_meta_tensors_is_used_in_batches_and_lists():
    predicted, true = blobs(0, (9, 8, 7))[None], blobs(1, (9, 8, 7))[None]
    metric = ModifiedHausdorffDistanceMetric(num_classes=3)
    expected = metric(predicted[None], true[None], spacing=[0.5, 3.0, 2.0])
    label = MetaTensor(true, affine=torch.diag(torch.tensor([0.5, 3.0, 2.0, 1.0])))
    torch.testing.assert_close(metric(predicted[None], label.unsqueeze(0)), expected, equal_nan=True)
    metric.reset()
    values = metric([predicted, predicted], [label, label])
    torch.testing.assert_close(values, expected.expand(2, -1), equal_nan=True)
    assert metric.get_buffer().shape == (2, 2)
    flat = MetaTensor(true[..., 3], affine=torch.diag(torch.tensor([0.5, 3.0, 2.0, 1.0])))
    torch.testing.assert_close(
        metric([predicted[..., 3]], [flat]),
        metric(predicted[None, ..., 3], true[None, ..., 3], spacing=[0.5, 3.0]),
        equal_nan=True,
    )


def test_works_as_the_metric_of_an_engine():
    labels = [MetaTensor(blobs(seed, (9, 8, 7))[None], affine=torch.eye(4)) for seed in range(3)]
    segmentations = [blobs(seed + 9, (9, 8, 7))[None].float() for seed in range(3)]
    engine = Engine(lambda _, place: [{"seg": segmentations[place], "label": labels[place]}])
    metric = ModifiedHausdorffDistanceMetric(num_classes=3)
    handler = IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["seg", "label"]), save_details=True)
    handler.attach(engine, "mhd")
    engine.run(range(3))
    alone = ModifiedHausdorffDistanceMetric(num_classes=3)
    values = alone(segmentations, labels)
    torch.testing.assert_close(engine.state.metric_details["mhd"], values, equal_nan=True)
    assert engine.state.metrics["mhd"] == pytest.approx(alone.aggregate().item())


def test_no_case_is_an_error_and_no_value_is_nan():
    metric = ModifiedHausdorffDistanceMetric()
    with pytest.raises(ValueError, match="seen no case"):
        metric.aggregate()
    metric(torch.zeros(1, 1, 5), torch.zeros(1, 1, 5), spacing=[1.0])
    assert metric.aggregate().isnan()


@pytest.mark.parametrize(
    ("y_pred", "y", "options", "message"),
    [
        (torch.zeros(1, 1, 5), torch.zeros(1, 1, 4), {"spacing": [1.0]}, "differ in shape"),
        (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5), {}, "needs the spacing"),
        (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5), {"spacing": [1.0, 1.0]}, "spacing must hold 1"),
        (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5), {"spacing": [0.0]}, "above 0 mm"),
        (torch.zeros(1, 1, 5), torch.full((1, 1, 5), 2), {"spacing": [1.0]}, "whole numbers from 0 to 1"),
        (torch.full((1, 3, 5), 0.3), torch.zeros(1, 1, 5), {"spacing": [1.0]}, "whole numbers from 0 to 1"),
        (torch.full((1, 1, 5), torch.nan), torch.zeros(1, 1, 5), {"spacing": [1.0]}, "whole numbers"),
        (torch.zeros(1, 3, 5), torch.zeros(1, 2, 5), {"spacing": [1.0]}, "or 3 channels, got 2"),
        (torch.zeros(1, 1, 5), None, {"spacing": [1.0]}, "needs the ground truth"),
    ],
)
def test_wrong_input_is_named(y_pred, y, options, message):
    with pytest.raises(ValueError, match=message):
        ModifiedHausdorffDistanceMetric()(y_pred, y, **options)


def test_errors_of_lists_name_the_case():
    label = MetaTensor(torch.zeros(1, 5), meta={"filename_or_obj": "case_7.nii.gz"})
    with pytest.raises(ValueError, match=r"case_7.nii.gz: segmentations must hold"):
        ModifiedHausdorffDistanceMetric()([torch.full((1, 5), 4)], [label])
    with pytest.raises(ValueError, match="differ in length: 1 and 2"):
        ModifiedHausdorffDistanceMetric()([torch.zeros(1, 5)], [label, label])
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        ModifiedHausdorffDistanceMetric(num_classes=0)
