"""The phantom with several raters: labels are drawn from the probabilities that are stored beside them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medcalib.data import phantom_raters_cases
from medcalib.data.phantom.rater_model import Rater, RaterModel
from medcalib.data.phantom.volume_model import PhantomModel
from medcalib.errors import UserError

SMALL = {"num_training": 3, "num_validation": 1, "num_test": 1}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return phantom_raters_cases(tmp_path_factory.mktemp("data") / "phantom_raters", **SMALL)


def files_of(case):
    return [Path(path) for path in (case["image"], *case["label"], case["probability"])]


def test_every_rater_has_a_label_and_their_number_differs(split):
    cases = split["training"] + split["validation"] + split["test"]
    assert [len(case["label"]) for case in cases] == [5, 5, 5, 5, 3]
    for case in cases:
        image, probability = nib.load(case["image"]), nib.load(case["probability"])
        assert len(case["raters"]) == len(case["label"])
        for path in case["label"]:
            label = nib.load(path)
            assert label.shape == image.shape == probability.shape[:3]
            np.testing.assert_array_equal(label.affine, image.affine)
            assert set(np.unique(label.dataobj)) <= {0, 1, 2}
        np.testing.assert_allclose(np.asarray(probability.dataobj).sum(-1), 1, atol=1e-5)


def test_raters_draw_from_their_probabilities():
    """Mean label over many drawings against the closed form, at the voxels of one case."""
    model = RaterModel(PhantomModel(in_plane_size=(40, 40), num_slices=(32, 32), lesion_radius=(3.5, 4.0)))
    organ, lesion = model.phantom.bodies(np.random.default_rng(3), True)
    rng, drawings = np.random.default_rng(4), 60
    for rater in model.raters[3:4]:
        expected = model.probability(rater, organ, lesion, True)
        np.testing.assert_allclose(expected.sum(-1), 1, atol=1e-12)
        labels = [model._label(rng, rater, organ, lesion, True) for _ in range(drawings)]
        seen = np.mean([np.stack([label == c for c in range(3)], -1) for label in labels], axis=0)
        error = np.sqrt(expected * (1 - expected) / drawings)
        # no voxel lies far from its expectation, and together they are not biased: of a lesion that is missed as a
        # whole all voxels go together
        assert (np.abs(seen - expected) <= 5.5 * error + 0.02).all()
        assert abs((seen - expected)[..., 1].mean()) < 0.005


def test_a_rater_with_a_bias_draws_larger_and_a_careless_one_misses_small_lesions():
    large, small = (Rater("x", bias, 0.2, 0.2, 0.0) for bias in (1.0, -1.0))
    careless = Rater("y", 0.0, 0.2, 0.2, 1.0)
    model = RaterModel(PhantomModel(lesion_radius=(3.0, 3.5)), (large, small, careless))
    model_of_big = RaterModel(PhantomModel(lesion_radius=(7.0, 8.0)), (careless,))
    labels = model.draw(np.random.default_rng(0), True).labels
    assert (labels["x"] > 0).any()
    sizes = [
        model._label(np.random.default_rng(1), one, *model.phantom.bodies(np.random.default_rng(0), True), False)
        for one in (large, small)
    ]
    assert (sizes[0] > 0).sum() > 1.2 * (sizes[1] > 0).sum()
    assert not (labels["y"] == 2).any()
    assert (model_of_big.draw(np.random.default_rng(0), True).labels["y"] == 2).any()


def test_the_same_numbers_give_the_same_bytes_and_others_are_refused(split, tmp_path):
    again = phantom_raters_cases(tmp_path / "again", **SMALL)
    for one, other in zip(split["training"], again["training"], strict=True):
        for first, second in zip(files_of(one), files_of(other), strict=True):
            assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UserError, match="other values of seed"):
        phantom_raters_cases(tmp_path / "again", **SMALL, seed=1)
