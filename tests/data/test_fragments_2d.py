"""The data fragments of pictures keep their contract, and bring predictions back to the pixels of the files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate
from monai.transforms import Compose
from PIL import Image
from tests.data import layouts, layouts_2d

from medcalib.bundle.fragments import read_yaml
from medcalib.task import Task
from medcalib.transforms import CheckLabeld, InvertProbabilitiesd, LoadPictured

CONFIGS = Path(__file__).parents[2] / "bundle_templates" / "configs"
LAYOUTS = {"isic16": [layouts_2d.make_isic, layouts_2d.make_isic_plain], "bcdr": [layouts_2d.make_bcdr]}


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
    parser["data"]["dataset_dir"] = str(make(tmp_path / name))
    return parser


def preparation(parser, *more):
    data = parser["data"]
    load = LoadPictured(num_channels=len(data["channel_names"]), label_map=parser.get_parsed_content("data::label_map"))
    check = CheckLabeld("label", data["class_names"])
    return Compose([load, *parser.get_parsed_content("data::preprocessing"), check, *more])


def test_keeps_the_contract(tmp_path, make_bundle, name):
    make_bundle(tmp_path, data=name)
    assert read(name)["load_case::_target_"] == "medcalib.transforms.LoadPictured"


def test_the_metadata_are_filled(name):
    metadata = read(name)["data"]["metadata"]
    assert metadata["title"] == name
    assert all(isinstance(value, str) and len(value) > 1 for value in metadata.values())
    assert metadata["source"].startswith("http")
    assert metadata["data_type"] in ("jpg", "tiff")
    assert "arXiv:" in metadata["reference"] or "doi:" in metadata["reference"]


def test_flips_of_test_time_augmentation_are_learnt(name):
    """A network that never saw a flipped image predicts it badly."""
    data = read(name)["data"]
    learnt = [t["spatial_axis"] for t in data["augmentation"] if t["_target_"].endswith("RandFlipd")]
    assert learnt == data["tta_flip_axes"] == [0, 1]


def test_every_case_is_prepared(parser):
    prepare = preparation(parser)
    for case in layouts.everyone(parser.get_parsed_content("data::cases")):
        prepared = prepare(case)
        image, label = prepared["image"], prepared["label"]
        assert image.shape == (len(parser["data"]["channel_names"]), *parser["data"]["patch_size"])
        assert label.shape == (1, *parser["data"]["patch_size"])
        assert image.dtype == torch.float32
        assert torch.isfinite(image).all()
        assert label.dtype == torch.uint8
        assert label.unique().tolist() == [0, 1]


def test_intensities(parser):
    prepared = preparation(parser)(parser.get_parsed_content("data::cases")["training"][0])["image"]
    if len(prepared) == 3:
        assert 0 <= prepared.min() < 0.5 < prepared.max() <= 1
    else:
        assert prepared.mean() == pytest.approx(0, abs=1e-5)
        assert prepared.std() == pytest.approx(1, abs=1e-3)


def test_labels_stay_on_their_lesions(parser):
    """Lesions of the skin are darker than what is around them, masses brighter."""
    for case in parser.get_parsed_content("data::cases")["training"][:3]:
        prepared = preparation(parser)(case)
        image, inside = prepared["image"][0], prepared["label"][0] > 0
        difference = image[inside].mean() - image[~inside].mean()
        assert difference * (-1 if len(prepared["image"]) == 3 else 1) > 0.3


def test_an_image_without_label_is_prepared(parser):
    case = parser.get_parsed_content("data::cases")["test"][0]
    alone = preparation(parser)({key: value for key, value in case.items() if key != "label"})
    assert "label" not in alone
    torch.testing.assert_close(alone["image"], preparation(parser)(case)["image"])


def test_patches_are_augmented(parser):
    augmented = preparation(parser, *parser.get_parsed_content("data::augmentation"))
    augmented.set_random_state(0)
    cases = parser.get_parsed_content("data::cases")["training"][:4]
    batch = list_data_collate([augmented(case) for case in cases])
    size = parser["data"]["patch_size"]
    assert batch["image"].shape == (4, len(parser["data"]["channel_names"]), *size)
    assert batch["label"].shape == (4, 1, *size)
    assert batch["case"] == [case["case"] for case in cases]
    assert batch["label"].unique().tolist() == [0, 1]


def test_predictions_come_back_to_the_pixels_of_the_input(parser):
    """The label as its own prediction, stretched there and back, is what a loader reads from the file."""
    prepare = preparation(parser)
    for case in parser.get_parsed_content("data::cases")["test"][:3]:
        prepared = prepare(case)
        certain = prepared["label"].float()
        prepared["pred"] = torch.cat([1 - certain, certain])
        pred = InvertProbabilitiesd("pred", prepare, Task(["background", "object"]))(prepared)["pred"]
        stored = prepare.transforms[0](case)["label"]
        size = case["crop"][2:] if "crop" in case else Image.open(case["image"]).size
        assert pred.shape == (2, *size)
        torch.testing.assert_close(pred.sum(0).as_tensor(), torch.ones(*size))
        wrong = (pred[1] > 0.5).as_tensor() != stored[0].bool().as_tensor()
        assert wrong.float().mean() < 0.02
        assert np.prod(size) != np.prod(parser["data"]["patch_size"])
