"""Every data fragment of a download keeps its contract and prepares a tiny dataset in the real layout."""

from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate
from monai.transforms import Compose
from tests.data import layouts

from medcalib.bundle.fragments import read_yaml
from medcalib.bundle.messages import user_message
from medcalib.transforms import CheckLabeld, LoadCased

CONFIGS = Path(__file__).parents[2] / "bundle_templates" / "configs"
LAYOUTS = {
    "acdc17": [layouts.make_acdc],
    "amos22": [layouts.make_amos],
    "kits23": [layouts.make_kits],
    "brats21": [layouts.make_brats21],
    "brats18": [layouts.make_brats18, layouts.make_brats18_flat],
    "isles18": [layouts.make_isles, layouts.make_isles_flat],
    "mnms": [layouts.make_mnms, layouts.make_mnms_frames],
}
TINY_PATCH = [16, 16, 8]


def read(name):
    return read_yaml(CONFIGS / "data" / f"{name}.yaml")


@pytest.fixture(params=LAYOUTS)
def name(request):
    return request.param


@pytest.fixture(
    params=[(name, make) for name, makers in LAYOUTS.items() for make in makers], ids=lambda p: p[1].__name__
)
def parser(request, tmp_path):
    """The fragment, pointed at a tiny dataset."""
    name, make = request.param
    parser = ConfigParser({"data": read(name)["data"]})
    parser["data"]["dataset_dir"] = str(make(tmp_path / "data" / name))
    parser["data"]["patch_size"] = TINY_PATCH
    return parser


def loader(parser):
    data = parser["data"]
    return LoadCased(num_channels=len(data["channel_names"]), label_map=parser.get_parsed_content("data::label_map"))


def preparation(parser, *more):
    check = CheckLabeld("label", parser["data"]["class_names"])
    return Compose([loader(parser), *parser.get_parsed_content("data::preprocessing"), check, *more])


def spacing_of(parser):
    return next(t["pixdim"] for t in parser["data"]["preprocessing"] if t["_target_"].endswith("Spacingd"))


def test_keeps_the_contract(tmp_path, make_bundle, name):
    make_bundle(tmp_path, data=name)


def test_the_metadata_are_filled(name):
    metadata = read(name)["data"]["metadata"]
    assert metadata["title"] == name
    assert all(isinstance(value, str) and len(value) > 1 for value in metadata.values())
    assert metadata["source"].startswith("http")
    assert "arXiv:" in metadata["reference"] or "doi:" in metadata["reference"]


def test_flips_of_test_time_augmentation_are_learnt(name):
    """A network that never saw a flipped image predicts it badly."""
    data = read(name)["data"]
    learnt = [t["spatial_axis"] for t in data["augmentation"] if t["_target_"].endswith("RandFlipd")]
    assert learnt == data["tta_flip_axes"]


def test_left_and_right_organs_are_not_swapped():
    assert 0 not in read("amos22")["data"]["tta_flip_axes"]


@pytest.mark.parametrize("name", ["kits23", "brats21"])
def test_regions_are_nested_sets_of_labels(name):
    data = read(name)["data"]
    regions = [set(labels) for labels in data["regions"].values()]
    assert all(region <= set(range(1, len(data["class_names"]))) for region in regions)
    assert all(inner < outer for inner, outer in pairwise(regions))
    assert data["evaluate"] == "regions"


@pytest.mark.parametrize("fold", range(5))
@pytest.mark.parametrize("name", ["brats18", "isles18"])
def test_the_fold_is_an_id_of_the_fragment(name, fold, tmp_path):
    parser = ConfigParser({"data": read(name)["data"]})
    parser["data"] |= {"dataset_dir": str(LAYOUTS[name][0](tmp_path)), "fold": fold}
    zeroth = ConfigParser({"data": parser["data"] | {"fold": 0}})
    test, first = (layouts.names(p.get_parsed_content("data::cases")["test"]) for p in (parser, zeroth))
    assert (test == first) == (fold == 0)


def test_every_case_is_prepared(parser):
    prepare = preparation(parser)
    num_classes = len(parser["data"]["class_names"])
    cases = layouts.everyone(parser.get_parsed_content("data::cases"))
    assert len({case["case"] for case in cases}) == len(cases)
    for case in cases:
        prepared = prepare(case)
        image, label = prepared["image"], prepared["label"]
        assert image.shape[0] == len(parser["data"]["channel_names"])
        assert image.shape[1:] == label.shape[1:]
        assert image.dtype == torch.float32
        assert torch.isfinite(image).all()
        assert label.dtype == torch.uint8
        assert label.unique().tolist() == list(range(num_classes))
        assert nib.aff2axcodes(np.asarray(image.affine)) == ("R", "A", "S")
        np.testing.assert_allclose(image.pixdim, spacing_of(parser), rtol=1e-4)


def test_labels_stay_on_their_structures(parser):
    """Every structure of the tiny datasets is brighter than what is around it, before and after preparation."""
    prepared = preparation(parser)(parser.get_parsed_content("data::cases")["training"][0])
    image, foreground = prepared["image"][-1], prepared["label"][0] > 0
    assert image[foreground].mean() > image[~foreground].mean()
    assert prepared["label"].float().mean() > 0.01


def test_an_image_without_label_is_prepared(parser):
    case = parser.get_parsed_content("data::cases")["test"][0]
    alone = preparation(parser)({key: value for key, value in case.items() if key != "label"})
    torch.testing.assert_close(alone["image"], preparation(parser)(case)["image"])


def test_patches_are_augmented(parser):
    augmented = preparation(parser, *parser.get_parsed_content("data::augmentation"))
    augmented.set_random_state(0)
    data = parser["data"]
    cases = parser.get_parsed_content("data::cases")["training"][:2]
    batch = list_data_collate([augmented(case) for case in cases])
    samples = next((t["num_samples"] for t in data["augmentation"] if "num_samples" in t), 1)
    assert batch["image"].shape == (2 * samples, len(data["channel_names"]), *TINY_PATCH)
    assert batch["label"].shape == (2 * samples, 1, *TINY_PATCH)
    assert batch["case"] == [case["case"] for case in cases for _ in range(samples)]
    assert batch["label"].any()
    assert set(batch["label"].unique().tolist()) <= set(range(len(data["class_names"])))


@pytest.mark.parametrize("name", ["acdc17", "amos22", "kits23"])
def test_an_image_that_is_empty_is_named_before_it_is_cropped(name, tmp_path):
    parser = ConfigParser({"data": read(name)["data"]})
    parser["data"]["dataset_dir"] = str(LAYOUTS[name][0](tmp_path))
    case = parser.get_parsed_content("data::cases")["test"][0]
    image = nib.load(case["image"])
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), case["image"])
    with pytest.raises(RuntimeError) as caught:
        preparation(parser)(case)
    assert user_message(caught.value).startswith(f"Case {case['case']}: its image is nowhere above 0")


@pytest.mark.parametrize(("name", "make"), [(name, make) for name in ("brats18", "isles18") for make in LAYOUTS[name]])
def test_the_region_of_interest_is_the_head(name, make, tmp_path):
    """Measured on the image as it is loaded, and brought to the grid of the network with it."""
    parser = ConfigParser({"data": read(name)["data"]})
    parser["data"]["dataset_dir"] = str(make(tmp_path))
    prepared = preparation(parser)(parser.get_parsed_content("data::cases")["test"][0])
    inside = prepared["region_of_interest"]
    assert inside.shape == prepared["label"].shape
    assert set(inside.unique().tolist()) == {0, 1}
    assert 0.3 < inside.mean() < 1
