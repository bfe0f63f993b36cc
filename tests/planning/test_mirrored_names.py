"""Flips do not turn one class into another."""

import pytest
from tests.planning.made_datasets import ORGANS

from medcalib.planning.mirrored_names import flip_axes


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (ORGANS, [1, 2]),
        (("kidney", "tumour"), [0, 1, 2]),
        (("LeftVentricle", "myocardium"), [1, 2]),
        (("lung_upper_lobe_left",), [1, 2]),
        (("Right-Hippocampus",), [1, 2]),
        (("L femur", "R femur"), [1, 2]),
        (("anterior", "posterior"), [0, 2]),
        (("upper_lobe_left", "lower_lobe_left"), [1]),
        (("inferior_vena_cava",), [0, 1, 2]),
        (("superior_vena_cava", "inferior_vena_cava"), [0, 1]),
        # words that merely begin alike
        (("bright_lesion", "cleft", "lumen", "rib"), [0, 1, 2]),
    ],
)
def test_axes_of_volumes(names, axes):
    assert flip_axes(["background", *names])[0] == axes


def test_axes_of_pictures():
    assert flip_axes(["background", "left_lung"], 2)[0] == [1]
    assert flip_axes(["upper_teeth", "lower_teeth"], 2)[0] == [0]
    assert flip_axes(["anterior", "posterior"], 2)[0] == [0, 1]
