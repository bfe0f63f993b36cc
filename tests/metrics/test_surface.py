import itertools

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medcalib.metrics import HausdorffDistanceMetric, ModifiedHausdorffDistanceMetric, SurfaceDiceMetric


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


def gaps_by_loop(predicted, true, spacing):
    """Distances of every surface voxel, both ways."""
    a, b = surface_by_loop(predicted), surface_by_loop(true)
    gaps = np.array([[np.linalg.norm(np.subtract(p, q) * spacing) for q in b] for p in a])
    return gaps.min(axis=1), gaps.min(axis=0)


def binary(seed, shape):
    return (blobs(seed, shape, 2) == 1).numpy()


@pytest.mark.parametrize(("shape", "spacing"), SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_percentile_and_surface_dice_equal_loops_over_surface_voxels(seed, shape, spacing):
    predicted, true = binary(seed, shape), binary(seed + 50, shape)
    there, back = gaps_by_loop(predicted, true, np.array(spacing))
    y_pred, y = torch.from_numpy(predicted)[None, None], torch.from_numpy(true)[None, None]
    for percentile in (50, 95, 100):
        expected = max(np.percentile(there, percentile), np.percentile(back, percentile))
        found = HausdorffDistanceMetric(percentile)(y_pred, y, spacing=spacing)
        np.testing.assert_allclose(found, [[expected]], rtol=1e-6)
    # the tolerances are distances that occur, so that ends matter
    for tolerance in (0.0, there[0], back[-1], 1.0):
        close = np.sum(there <= tolerance + 1e-9) + np.sum(back <= tolerance + 1e-9)
        found = SurfaceDiceMetric(float(tolerance))(y_pred, y, spacing=spacing)
        np.testing.assert_allclose(found, [[close / (len(there) + len(back))]], rtol=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), SIZES[1:])
def test_equal_those_of_monai_on_the_whole_volume(shape, spacing):
    predicted, true = blobs(7, shape, 4), blobs(8, shape, 4)
    channels = [one_hot(labels, 4)[None].float() for labels in (predicted, true)]
    options = {"include_background": True, "spacing": spacing}
    there = [channel.flatten(2).any(-1) for channel in channels]
    both, real = there[0] & there[1], there[1]
    hd95 = HausdorffDistanceMetric(include_background=True, num_classes=4)
    expected = compute_hausdorff_distance(*channels, percentile=95, **options)
    found = hd95(predicted[None, None], true[None, None], spacing=spacing)
    torch.testing.assert_close(found, expected.double().where(both, torch.nan), equal_nan=True, rtol=1e-6, atol=0)
    tolerances = [0.5, 1.0, 1.4, 2.0]
    for use_subvoxels in (False, True):
        expected = compute_surface_dice(*channels, tolerances, use_subvoxels=use_subvoxels, **options).double()
        for ignore_empty, wanted in ((True, expected.where(real, torch.nan)), (False, expected)):
            dice = SurfaceDiceMetric(
                tolerances,
                include_background=True,
                num_classes=4,
                use_subvoxels=use_subvoxels,
                ignore_empty=ignore_empty,
            )
            found = dice(predicted[None, None], true[None, None], spacing=spacing)
            torch.testing.assert_close(found, wanted, equal_nan=True, rtol=1e-6, atol=0)


@pytest.mark.parametrize("far", [0, 30])
def test_single_voxels_two_millimetres_apart(far):
    """Of the eight corners of a voxel four are 1 mm from those of the other and four 2 mm, areas alike."""
    y_pred, y = torch.zeros(1, 1, 40, 40, 40), torch.zeros(1, 1, 40, 40, 40)
    y[0, 0, far, 20, 10], y_pred[0, 0, far, 20, 12] = 1, 1

    def dice(tolerance, use_subvoxels):
        return SurfaceDiceMetric(tolerance, use_subvoxels=use_subvoxels)(y_pred, y, spacing=[3.0, 2.0, 1.0]).item()

    assert [dice(tolerance, True) for tolerance in (0.9, 1.0, 1.9, 2.0)] == pytest.approx([0, 0.5, 0.5, 1])
    assert [dice(tolerance, False) for tolerance in (1.0, 1.9, 2.0)] == [0, 0, 1]
    assert HausdorffDistanceMetric()(y_pred, y, spacing=[3.0, 2.0, 1.0]).item() == 2.0


def test_surface_dice_of_elements_equals_the_published_code():
    published = pytest.importorskip("surface_distance")
    for seed, (shape, spacing) in enumerate(SIZES[1:]):
        predicted, true = binary(seed, shape), binary(seed + 50, shape)
        distances = published.compute_surface_distances(true, predicted, spacing)
        for tolerance in (0.3, 1.0, 2.5):
            expected = published.compute_surface_dice_at_tolerance(distances, tolerance)
            metric = SurfaceDiceMetric(tolerance, use_subvoxels=True)
            pair = torch.from_numpy(predicted)[None, None], torch.from_numpy(true)[None, None]
            np.testing.assert_allclose(metric(*pair, spacing=spacing), [[expected]], rtol=1e-5)


@pytest.mark.parametrize("use_subvoxels", [False, True])
def test_what_is_absent(use_subvoxels):
    """Classes: predicted only, true only, in neither, in both."""
    y_pred, y = torch.zeros(1, 1, 12, 12, dtype=torch.long), torch.zeros(1, 1, 12, 12, dtype=torch.long)
    y_pred[..., 1, 1], y[..., 5, 1] = 1, 2
    y_pred[..., 8, 8] = y[..., 8, 8] = 4
    options = {"num_classes": 5, "use_subvoxels": use_subvoxels}
    spaced = {"spacing": [1.0, 1.0]}
    nan = np.nan
    np.testing.assert_array_equal(SurfaceDiceMetric(1.0, **options)(y_pred, y, **spaced), [[nan, 0, nan, 1]])
    as_monai = SurfaceDiceMetric(1.0, ignore_empty=False, **options)
    np.testing.assert_array_equal(as_monai(y_pred, y, **spaced), [[0, 0, nan, 1]])
    hd95 = HausdorffDistanceMetric(num_classes=5)
    np.testing.assert_array_equal(hd95(y_pred, y, **spaced), [[nan, nan, nan, 0]])


def test_laws_of_surface_dice():
    a, b = blobs(0, (10, 11, 12))[None, None], blobs(3, (10, 11, 12))[None, None]
    values = [SurfaceDiceMetric(t, num_classes=3)(a, b, spacing=[1.0, 2.0, 0.5]) for t in (0, 0.5, 1, 4, 100)]
    assert all((low <= high).all() for low, high in itertools.pairwise(values))
    np.testing.assert_array_equal(values[-1], [[1, 1]])
    torch.testing.assert_close(SurfaceDiceMetric(1, num_classes=3)(b, a, spacing=[1.0, 2.0, 0.5]), values[2])
    np.testing.assert_array_equal(SurfaceDiceMetric(0, num_classes=3)(a, a, spacing=[1, 1, 1]), [[1, 1]])
    of_each = SurfaceDiceMetric({"b": 4, "a": 0.5, "c": 9}, class_names=["a", "b"], num_classes=3)
    expected = torch.stack([values[1][0, 0], values[3][0, 1]])[None]
    torch.testing.assert_close(of_each(a, b, spacing=[1.0, 2.0, 0.5]), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (-1.0, "numbers of mm from 0 on, got -1.0"),
        ([1.0, float("inf")], "got inf"),
        (True, "got True"),
        ({"a": 1.0}, "tolerance names a, but not b"),
        ({"a": 1.0, "b": "2mm"}, "got '2mm'"),
    ],
)
def test_wrong_tolerances_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        SurfaceDiceMetric(given, class_names=["a", "b"])


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match="there are 3 tolerances, but 2 classes"):
        SurfaceDiceMetric([1, 2, 3], num_classes=3)(torch.zeros(1, 1, 5), torch.zeros(1, 1, 5), spacing=[1.0])
    with pytest.raises(ValueError, match="percentile must lie between 0 and 100, got 101"):
        HausdorffDistanceMetric(101)
