"""Laws of corruptions: level 0 is the image, every level is farther, and only image, case, seed and level matter."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensityd, Orientationd

from medcalib.keys import NUM_CORRUPTION_LEVELS, CorruptionKeys
from medcalib.transforms import CorruptImaged, ShowCorruptedd, corrupt
from medcalib.transforms.corruption import STRENGTHS

LEVELS = range(NUM_CORRUPTION_LEVELS + 1)


def volume(seed=0, shape=(24, 28, 20)):
    """A bright ball with a brighter core on a dark ground, with texture."""
    random = np.random.default_rng(seed)
    radius = np.sqrt(sum((np.arange(n).reshape([-1 if k == a else 1 for k in range(len(shape))]) - n / 2) ** 2
                         for a, n in enumerate(shape)))  # fmt: skip
    values = 100.0 * (radius < 8) + 150.0 * (radius < 4) + random.normal(30, 8, shape)
    return torch.from_numpy(values)[None].float()


def picture(seed=0):
    return torch.cat([volume(seed + channel, (40, 32)) for channel in range(3)])


def framed():
    """As a brain without its skull: 0 around it."""
    image = volume() + 20
    outside = volume(shape=(24, 28, 20))[0] * 0
    outside[3:-3, 3:-3, 3:-3] = 1
    return image * outside


IMAGES = {"volume": volume(), "picture": picture(), "framed": framed(), "slab": volume(3, (30, 30, 4))}


@pytest.mark.parametrize("kind", CorruptionKeys)
@pytest.mark.parametrize("name", IMAGES)
def test_level_0_is_the_image_and_every_level_is_farther_from_it(kind, name):
    image = IMAGES[name]
    assert torch.equal(corrupt(image, kind, 0, seed=3), image)
    for seed in (0, 1):
        far = [float((corrupt(image, kind, level, seed) - image).square().mean().sqrt()) for level in LEVELS]
        assert all(later > 1.01 * earlier for earlier, later in pairwise(far)), far


@pytest.mark.parametrize("kind", CorruptionKeys)
@pytest.mark.parametrize("name", IMAGES)
def test_the_unit_of_intensities_does_not_matter(kind, name):
    image = IMAGES[name].double()
    worse = corrupt(image, kind, 3, seed=1)
    torch.testing.assert_close(corrupt(0.02 * image - 7, kind, 3, seed=1), 0.02 * worse - 7, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", CorruptionKeys)
def test_values_stay_in_their_range_and_outside_of_the_body_as_they_were(kind):
    image = IMAGES["framed"]
    worse = corrupt(image, kind, NUM_CORRUPTION_LEVELS, seed=2)
    assert worse.min() >= image.min()
    assert worse.max() <= image.max()
    assert torch.equal(worse[image == 0], image[image == 0])


def test_air_inside_of_the_body_is_no_outside():
    image = framed()
    image[0, 10:14, 10:14, 8:12] = 0
    worse = corrupt(image, "noise", 3)
    assert (worse[0, 10:14, 10:14, 8:12] > 0).any()


@pytest.mark.parametrize("kind", [kind for kind in CorruptionKeys if kind != "noise"])
def test_channels_are_taken_one_by_one(kind):
    image = picture()
    worse = corrupt(image, kind, 2, seed=5, case="a")
    for channel in range(3):
        alone = corrupt(image[channel : channel + 1], kind, 2, seed=5, case="a")
        torch.testing.assert_close(worse[channel : channel + 1], alone)


def test_channels_have_noise_of_their_own_in_their_own_unit():
    image = picture() * torch.tensor([1.0, 10.0, 0.1]).reshape(3, 1, 1) + 1000
    noise = [corrupt(image, "noise", 1, seed=5)[channel] - image[channel] for channel in range(3)]
    for channel, one in enumerate(noise):
        spread = float(one.std() / image[channel].std())
        assert spread == pytest.approx(STRENGTHS[CorruptionKeys.NOISE][0], rel=0.1)
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.1


def test_noise_and_field_depend_on_seed_and_case_alone():
    image = volume()
    for kind in ("noise", "bias_field"):
        torch.manual_seed(1)
        first = corrupt(image, kind, 2, seed=5, case="a")
        torch.manual_seed(2)
        np.random.seed(7)  # noqa: NPY002
        assert torch.equal(corrupt(image, kind, 2, seed=5, case="a"), first)
        assert not torch.equal(corrupt(image, kind, 2, seed=6, case="a"), first)
        assert not torch.equal(corrupt(image, kind, 2, seed=5, case="b"), first)
        before = torch.get_rng_state()
        corrupt(image, kind, 2, seed=5, case="a")
        assert torch.equal(torch.get_rng_state(), before)


def test_noise_of_all_levels_is_the_same_but_for_its_strength():
    image = volume().double()
    # nothing that is clipped
    kept = (image > image.min() + 60) & (image < image.max() - 60)
    one, two = (corrupt(image, "noise", level, seed=4)[kept] - image[kept] for level in (1, 2))
    torch.testing.assert_close(2 * one, two)


def test_blur_is_isotropic_in_millimetres():
    image = torch.zeros(1, 31, 31, 31)
    image[0, 15, 15, 15] = 1.0
    image += 1e-3 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    worse = corrupt(image, "blur", 5, spacing=(1.0, 1.0, 2.0))[0]
    axes = [worse[:, 15, 15], worse[15, :, 15], worse[15, 15, :]]
    places = torch.arange(31) - 15.0
    widths = [float((line.clamp_min(0.002) * places**2).sum() / line.clamp_min(0.002).sum()) ** 0.5 for line in axes]
    assert widths[0] == pytest.approx(widths[1], rel=0.05)
    assert axes[2][17] == pytest.approx(float(axes[0][19]), rel=0.1)


def test_an_axis_of_long_voxels_keeps_its_resolution():
    image = volume(shape=(24, 24, 12))
    worse = corrupt(image, "spacing", 2, spacing=(1.0, 1.0, 4.0))
    assert not torch.allclose(worse, image)
    profile = torch.linspace(0, 1, 12).square().expand(1, 24, 24, 12).clone()
    torch.testing.assert_close(corrupt(profile, "spacing", 2, spacing=(1.0, 1.0, 4.0)), profile)


def test_a_constant_image_stays_as_it_is():
    image = torch.full((1, 9, 9), 4.0)
    for kind in CorruptionKeys:
        assert torch.equal(corrupt(image, kind, 5), image)


@pytest.mark.parametrize(("kind", "level"), [("noises", 1), ("noise", 6), ("noise", -1)])
def test_what_does_not_exist_is_refused(kind, level):
    with pytest.raises(ValueError, match=r"noises|level"):
        corrupt(volume(), kind, level)


def test_a_case_keeps_all_but_its_image():
    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0]))
    case = {"case": "a", "image": MetaTensor(volume(), affine=affine), "label": MetaTensor(torch.ones(1, 24, 28, 20))}
    before = case["image"].clone()
    worse = CorruptImaged("noise", 2, seed=9)(case)
    assert torch.equal(case["image"], before)
    assert worse["label"] is case["label"]
    assert torch.equal(worse["image"].affine, case["image"].affine)
    expected = corrupt(before, "noise", 2, 9, (1.0, 1.0, 3.0), "a")
    assert torch.equal(worse["image"].as_tensor(), expected)


def test_figures_show_the_worse_image_on_the_grid_of_the_file():
    affine = torch.diag(torch.tensor([-1.0, 1.0, 2.0, 1.0]))

    def load(files):
        return {**files, "image": MetaTensor(volume(), affine=affine)}

    steps = Compose([load, Orientationd("image", "RAS", labels=None), NormalizeIntensityd("image")])
    for level in (0, 2):
        prepare = Compose([steps, CorruptImaged("noise", level, seed=1)])
        shown = ShowCorruptedd(load, prepare, steps)({"case": "a", "label": "a.nii.gz"})
        assert shown["label"] == "a.nii.gz"
        assert torch.equal(shown["image"].affine, affine.double())
        plain = (volume() - volume().mean()) / volume().std(correction=0)
        if level == 0:
            torch.testing.assert_close(shown["image"].as_tensor(), plain, rtol=1e-4, atol=1e-4)
        else:
            spread = float((shown["image"].as_tensor() - plain).std())
            assert spread == pytest.approx(0.2, rel=0.1)
