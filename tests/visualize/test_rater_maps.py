"""The figure of a case with several raters."""

import numpy as np
import pytest

from medcalib.visualize import draw_rater_maps


@pytest.fixture
def votes():
    """Three raters, two classes, on a grid that lies on its side; the second class is nobody's but one rater's."""
    votes = np.zeros((3, 2, 8, 9, 5), dtype=bool)
    for rater in range(3):
        votes[rater, 0, 2 : 5 + rater, 3:6, 1:4] = True
    votes[1, 1, 3, 4, 3] = True
    return votes


def test_all_raters_are_outlined_in_the_slice_that_they_marked(votes):
    share = votes.mean(0)
    variance = (share * (1 - share)).mean(0, keepdims=True)
    affine = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1.0]])
    figure = draw_rater_maps(
        np.random.default_rng(0).random((1, 8, 9, 5)),
        votes,
        votes[0],
        variance,
        2 * variance,
        class_names=["organ", "lesion_$x"],
        affine=affine,
        title="a_$b",
    )
    assert figure.get_suptitle().startswith("a_$b, axial slice")
    panel = figure.axes[0]
    assert panel.get_title() == "3 raters and prediction"
    # one outline of each rater and two of the prediction; the lesion is in one rater's slice, if at all
    assert len(panel.collections) in (5, 6)
    shown = figure.axes[1].images[0]
    assert shown.get_clim() == (0, 0.25)
    assert shown.get_array().max() > 0


def test_a_picture_stands_upright():
    votes = np.zeros((1, 1, 6, 4), dtype=bool)
    votes[0, 0, :2] = True
    zero = np.zeros((1, 6, 4))
    figure = draw_rater_maps(np.zeros((3, 6, 4)), votes, votes[0], zero, zero, class_names=["spot"], rgb=True)
    assert figure.axes[0].get_title() == "1 rater and prediction"
    assert figure.axes[0].images[0].origin == "upper"
