"""What images are like, whatever the order of their axes, and which image is unlike the others."""

import nibabel as nib
import numpy as np
import pytest

from medcalib.image_files.image_traits import image_traits, ranges_of_traits, unlike_others

AFFINE = np.diag([0.7, 0.8, 3.0, 1.0])


@pytest.fixture
def ranges():
    random = np.random.default_rng(0)
    images = [random.normal(0, 100, (1, 20, 24, 10)) for _ in range(3)]
    return ranges_of_traits([image_traits(image, AFFINE) for image in images])


def image(scale=1.0, offset=0.0, size=(20, 24, 10)):
    return np.random.default_rng(7).normal(0, 100, (1, *size)) * scale + offset


@pytest.mark.parametrize("axes", ["LPS", "SAR", "PIR"])
def test_traits_do_not_depend_on_the_order_in_which_voxels_lie(axes):
    stored = nib.Nifti1Image(image()[0], AFFINE)
    turned = stored.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    )
    one, other = image_traits(image(), AFFINE), image_traits(turned.get_fdata()[None], turned.affine)
    assert one["size"] == other["size"] == [20, 24, 10]
    np.testing.assert_allclose(other["spacing"], [0.7, 0.8, 3.0])
    np.testing.assert_allclose(one["intensity"], other["intensity"])


def test_an_image_of_the_same_kind_is_like_the_others(ranges):
    assert unlike_others(image_traits(image(), AFFINE), ranges, ["MR"]) == []


@pytest.mark.parametrize(
    ("other", "affine", "told"),
    [
        (image(scale=10), AFFINE, "intensities of MR"),
        (image(offset=500), AFFINE, "intensities of MR"),
        (image(), AFFINE @ np.diag([1, 1, 3, 1]), "spacing 9 mm foot-head (training 3 to 3)"),
        (image(size=(20, 24, 30)), AFFINE, "size 30 foot-head (training 10 to 10)"),
    ],
)
def test_an_image_of_another_kind_is_told_apart(ranges, other, affine, told):
    found = unlike_others(image_traits(other, affine), ranges, ["MR"])
    assert len(found) == 1
    assert found[0].startswith(told)
