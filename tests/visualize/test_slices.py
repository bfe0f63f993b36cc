import itertools

import numpy as np
import pytest

from medcalib.visualize.slices import case_slice

SHAPE = (6, 7, 5)


def affines():
    """Every order and direction of the axes, with three sizes of voxels and a small rotation."""
    angle = 0.1
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = turn @ (np.eye(3)[list(order)] * signs) @ np.diag([1.0, 2.0, 3.5])
        affine[:3, 3] = (-20, 5, 11)
        yield affine


def positions(affine, shape=SHAPE):
    """Position of every voxel in mm: to the right, the front and the top."""
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    return np.einsum("ij,jxyz->ixyz", affine[:3, :3], places) + affine[:3, 3].reshape(3, 1, 1, 1)


@pytest.mark.parametrize("axis", range(3))
def test_axes_point_to_the_right_and_upwards_in_the_patient(axis):
    empty = np.zeros(SHAPE, dtype=int)
    shown = [other for other in range(3) if other != axis]
    for affine in affines():
        image = positions(affine)
        for along, channel in enumerate(shown):
            cut = case_slice(image, empty, empty, affine=affine, axis=axis, channel=channel)
            # The rotation shortens a step by less than one in a hundred.
            steps = np.diff(cut.image, axis=along) / cut.spacing[along]
            assert (steps > 0.99).all()
            assert (steps < 1 + 1e-9).all()
        assert cut.sides == tuple("LPI"[a] if low else "RAS"[a] for a in shown for low in (True, False))
        assert cut.name.startswith(("sagittal", "coronal", "axial")[axis])


def test_all_arrays_are_cut_alike():
    rng = np.random.default_rng(0)
    affine = next(itertools.islice(affines(), 21, None))
    labels = rng.integers(0, 3, SHAPE)
    cut = case_slice(labels[None] * 2.0, labels[None], labels / 10, labels[None] + 1, affine=affine)
    np.testing.assert_array_equal(cut.image, cut.prediction * 2)
    np.testing.assert_array_equal(cut.uncertainty, cut.prediction / 10)
    np.testing.assert_array_equal(cut.label, cut.prediction + 1)


def test_sets_of_classes_are_cut_as_the_prediction_is():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, SHAPE)
    classes = np.stack([labels == 1, labels == 2])
    for affine in [None, *itertools.islice(affines(), 5, None, 11)]:
        cut = case_slice(labels[None], labels, labels, affine=affine, inner=classes, outer=~classes)
        np.testing.assert_array_equal(cut.inner, np.stack([cut.prediction == 1, cut.prediction == 2]))
        np.testing.assert_array_equal(cut.outer, ~cut.inner)
    flat = case_slice(labels[None, ..., 0], labels[..., 0], labels[..., 0], inner=classes[..., 0])
    np.testing.assert_array_equal(flat.inner, classes[..., 0])
    assert flat.outer is None


@pytest.mark.parametrize("axis", range(3))
def test_slice_with_the_most_foreground_is_taken(axis):
    rng = np.random.default_rng(axis)
    # Large label numbers in one slice, many voxels in another.
    label, prediction = ((rng.random(SHAPE) < 0.2) * 9 for _ in range(2))
    np.moveaxis(label, axis, 0)[1, 1:] = 1
    np.moveaxis(prediction, axis, 0)[3, 1:] = 1
    uncertainty = rng.random(SHAPE)
    uncertainty[0, 0, 0] = np.nan
    image = np.moveaxis(
        np.broadcast_to(np.arange(SHAPE[axis]), (*SHAPE[:axis], *SHAPE[axis + 1 :], SHAPE[axis])), -1, axis
    )

    def taken(*maps):
        cut = case_slice(image[None], *maps, axis=axis)
        assert cut.name == f"slice {cut.image[0, 0] + 1} of {SHAPE[axis]}"
        return cut.image[0, 0]

    nothing = np.zeros(SHAPE, dtype=int)
    sums = [np.nansum(uncertainty.take(place, axis)) for place in range(SHAPE[axis])]
    assert taken(prediction, uncertainty, label) == 1
    assert taken(prediction, uncertainty) == taken(prediction, uncertainty, nothing) == 3
    assert taken(nothing, uncertainty) == np.argmax(sums)
    assert taken(nothing, nothing) == SHAPE[axis] // 2


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        (None, (6, 7)),
        ((1.0, 1.0, 1.0), (6, 7)),
        ((1.0, 3.0, 1.0), (6, 5)),
        ((3.0, 1.0, 1.0), (7, 5)),
        ((3.0, 3.0, 1.0), (6, 5)),
        ((1.0, 1.0, 0.9999), (6, 7)),
    ],
)
def test_coarsest_axis_is_cut(spacing, shape):
    empty = np.zeros(SHAPE, dtype=int)
    cut = case_slice(empty[None], empty, empty, spacing=spacing)
    assert cut.prediction.shape == shape
    assert cut.sides is None
    if spacing is not None:
        assert cut.spacing == tuple(mm for n, mm in zip(SHAPE, spacing, strict=True) if n in shape)


def test_images_of_two_axes_stay_as_they_are():
    rng = np.random.default_rng(0)
    image, labels = rng.random((3, 4, 5)), rng.integers(0, 2, (4, 5))
    cut = case_slice(image, labels, labels, affine=np.diag([-0.5, -0.7, 9.0, 1.0]), channel=2)
    np.testing.assert_array_equal(cut.image, image[2])
    np.testing.assert_allclose(cut.spacing, (0.5, 0.7))
    assert (cut.name, cut.sides, cut.label) == ("", None, None)
    colours = case_slice(image, labels, labels, rgb=True).image
    np.testing.assert_array_equal(colours, image.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros(SHAPE[:2])}, r"must have shape \(C, ...\)"),
        ({"prediction": np.zeros((2, *SHAPE))}, r"prediction must have the shape \(6, 7, 5\) of the image, got \(2, 6"),
        ({"uncertainty": np.zeros((6, 7, 4))}, "uncertainty must have the shape"),
        ({"label": np.zeros((6, 7))}, "label must have the shape"),
        ({"channel": 1}, "channel must lie between 0 and 0, got 1"),
        ({"rgb": True}, "colours need an image of shape"),
        ({"axis": 3}, "axis must be 0, 1 or 2, got 3"),
        ({"spacing": (1.0, 1.0)}, "spacing must hold 3 voxel sizes"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing must hold 3 voxel sizes"),
        ({"spacing": (1.0, 1.0, 1.0), "affine": np.eye(4)}, "exclude each other"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    empty = np.zeros(SHAPE)
    with pytest.raises(ValueError, match=message):
        case_slice(**({"image": empty[None], "prediction": empty, "uncertainty": empty} | change))
