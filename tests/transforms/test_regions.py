"""Overlapping labels and regions, and regions of interest, through the transforms that bundles are made of."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Flipd, Invertd, Orientationd, Spacingd

from medcalib.errors import UserError
from medcalib.task import Task
from medcalib.transforms import (
    CheckLabeld,
    InvertProbabilitiesd,
    LoadCased,
    RegionOfInterestd,
    Regionsd,
    ToEvaluationSpaced,
    label_regions,
)

AFFINE = np.array([[-1.5, 0.1, 0, 10], [0.1, 1.5, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])
REGIONS = {"masses": [2, 3], "tumour": [3], "all": [3, 1, 2], "rest": [0, 2]}


def probabilities(classes=4, size=(5, 4, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(classes, *size, generator=generator).mul(2).softmax(0)


def labels(classes=4, size=(5, 4, 3), seed=0):
    return torch.randint(classes, (1, *size), generator=torch.Generator().manual_seed(seed))


def test_probabilities_are_added():
    pred = probabilities()
    found = Regionsd("pred", REGIONS, num_classes=4)({"pred": pred})["pred"]
    p = pred.numpy()
    wanted = [p[2] + p[3], p[3], p[1] + p[2] + p[3], p[0] + p[2]]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_labels_are_united(dtype):
    label = labels().to(dtype)
    found = Regionsd("label", REGIONS, num_classes=4)({"label": label})["label"]
    wanted = np.stack([np.isin(label[0].numpy(), classes) for classes in REGIONS.values()])
    np.testing.assert_array_equal(found.numpy(), wanted)
    assert found.dtype == dtype


def test_labels_are_certain_probabilities():
    label = labels()
    certain = torch.nn.functional.one_hot(label[0], 4).movedim(-1, 0).float()
    regions = Regionsd(["pred", "label"], REGIONS, num_classes=4)
    found = regions({"pred": certain, "label": label})
    torch.testing.assert_close(found["pred"], found["label"].float())


def test_a_region_of_a_single_class_is_the_class_and_that_of_all_is_certain():
    pred = probabilities()
    found = Regionsd("pred", {"one": [1], "any": range(4)}, num_classes=4)({"pred": pred})["pred"]
    torch.testing.assert_close(found[0], pred[1], rtol=0, atol=0)
    torch.testing.assert_close(found[1], torch.ones_like(found[1]))


def test_without_regions_nothing_changes():
    data = {"pred": probabilities(), "label": labels()}
    found = Regionsd(["pred", "label"], None, num_classes=4)(data)
    assert found["pred"] is data["pred"]
    assert found["label"] is data["label"]


def test_a_key_that_is_missing():
    assert Regionsd(["pred", "label"], REGIONS, num_classes=4)({"label": labels()}).keys() == {"label"}
    with pytest.raises(KeyError, match="pred"):
        Regionsd("pred", REGIONS, num_classes=4, allow_missing_keys=False)({"label": labels()})


def test_where_a_label_lies_is_kept():
    meta = MetaTensor(labels(), affine=AFFINE, meta={"filename_or_obj": "file"})
    moved = Flipd("label", spatial_axis=0)({"label": meta})["label"]
    found = Regionsd("label", REGIONS, num_classes=4)({"label": moved})["label"]
    assert found.meta["filename_or_obj"] == "file"
    torch.testing.assert_close(found.affine, moved.affine)
    assert found.pixdim.tolist() == moved.pixdim.tolist()


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"tumour": []}, r"data::regions::tumour must list classes from 0 to 3, not \[\]"),
        ({"tumour": [4]}, r"data::regions::tumour must list classes from 0 to 3, not \[4\]"),
        ({"tumour": [-1]}, r"data::regions::tumour must list classes from 0 to 3, not \[-1\]"),
        ({"tumour": [True]}, r"data::regions::tumour must list classes from 0 to 3, not \[True\]"),
        ({"tumour": 1}, r"data::regions::tumour must be a list of classes, such as \[1, 3\], not 1"),
        ({"tumour": "12"}, "data::regions::tumour must be a list of classes"),
    ],
)
def test_a_region_of_classes_that_do_not_exist(regions, message):
    with pytest.raises(UserError, match=message):
        Regionsd("pred", regions, num_classes=4)


@pytest.mark.parametrize("wrong", [4.0, -2.0, 0.5])
def test_a_label_that_is_no_class_is_named(wrong):
    """It would vanish into the background of every region."""
    label = labels().float()
    label[0, 1, 2, 0] = wrong
    with pytest.raises(
        UserError, match=rf"^Case a: its label holds the value {wrong:g}, but its regions are made of 4"
    ):
        Regionsd("label", REGIONS, num_classes=4)({"case": "a", "label": label})


def test_what_a_preprocessing_does_to_the_values_of_labels():
    of_label, of_both = (Regionsd(keys, REGIONS, num_classes=4) for keys in ("label", ["pred", "label"]))
    other = Regionsd("pred", REGIONS, num_classes=4)
    flip = Flipd("label", spatial_axis=0)
    assert label_regions(Compose([flip, of_label, Compose([other, of_both])])) == [of_label, of_both]
    assert label_regions(Compose([flip])) == []


def save(path, volume):
    nib.save(nib.Nifti1Image(volume, AFFINE), path)
    return str(path)


@pytest.fixture
def stored(tmp_path):
    """A case of an image that is bright in the middle, and three nested labels."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 18, 14)), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    label = np.digitize(radius, [0.3, 0.5, 0.8])
    return {
        "case": "a",
        "image": save(tmp_path / "image.nii.gz", (2 - radius).astype(np.float32)),
        "label": save(tmp_path / "label.nii.gz", (3 - label).astype(np.uint8)),
    }


def spatial(*names, spacing=True):
    keys = {"keys": ["image", "label", *names], "allow_missing_keys": True}
    mode = ["bilinear", "nearest", *["nearest"] * len(names)]
    resample = [Spacingd(**keys, pixdim=(1.2, 1.7, 2.5), mode=mode)] if spacing else []
    return [Orientationd(**keys, axcodes="RAS", labels=None), *resample]


def test_overlapping_labels_are_read_as_they_are_stored(stored):
    """On the grid of the file, channels are made of the label of the file, not of the resampled one."""
    regions = Regionsd("label", {"all": [1, 2, 3], "core": [3]}, num_classes=4)
    load = LoadCased()
    prepare = Compose([load, *spatial(), regions, CheckLabeld("label", ["all", "core"], "sigmoid")])
    prepared = prepare(stored)
    assert prepared["label"].shape[0] == 2
    assert prepared["label"].shape != (2, 20, 18, 14)
    prepared["pred"] = prepared["image"].expand(2, -1, -1, -1) / 4
    invert = InvertProbabilitiesd("pred", prepare, Task(["all", "core"], "sigmoid"))
    moved = ToEvaluationSpaced("original", invert, load, label_regions(prepare))(prepared)
    values = np.asarray(nib.load(stored["label"]).dataobj)
    np.testing.assert_array_equal(moved["label"].numpy(), [values > 0, values == 3])
    assert moved["label"].dtype == torch.uint8
    assert moved["pred"].shape == moved["label"].shape


def test_channels_that_the_file_does_not_have_are_named(stored):
    regions = Regionsd("label", {"all": [1, 2, 3], "core": [3]}, num_classes=4)
    load = LoadCased()
    prepare = Compose([load, *spatial(), regions])
    prepared = prepare(stored)
    forgotten = ToEvaluationSpaced("original", lambda data: dict(data), load)
    with pytest.raises(UserError, match=r"^Case a: its label has 2 channel\(s\) after .* but 1 in .*label.nii.gz;"):
        forgotten(prepared)


def test_independent_probabilities_come_back_channel_by_channel(stored):
    prepare = Compose([LoadCased(), *spatial(), CropForegroundd("image", "image", select_fn=lambda x: x > 1.2)])
    prepared = prepare({key: value for key, value in stored.items() if key != "label"})
    channels = [prepared["image"] / 4, 1 - prepared["image"] / 2, prepared["image"] / 2]
    invert = InvertProbabilitiesd("pred", prepare, Task(["all", "core"], "sigmoid"))
    together = invert(prepared | {"pred": torch.cat(channels)})["pred"]
    alone = [invert(prepared | {"pred": channel})["pred"] for channel in channels]
    torch.testing.assert_close(together.as_tensor(), torch.cat(alone).as_tensor(), rtol=0, atol=0)
    # cropped away: certainly absent
    assert together[:, 0, 0, 0].tolist() == [0, 0, 0]
    inner = together[:, 9:11, 8:10, 6:8].as_tensor()
    image = torch.as_tensor(nib.load(stored["image"]).get_fdata(dtype=np.float32))[9:11, 8:10, 6:8]
    torch.testing.assert_close(inner[0], image / 4, atol=0.03, rtol=0)


def test_a_region_of_interest_goes_with_the_image(stored):
    mark = RegionOfInterestd("image", "region_of_interest", above=1.2)
    prepare = Compose([LoadCased(), mark, *spatial("region_of_interest", spacing=False)])
    prepared = prepare(stored)
    image = nib.load(stored["image"]).get_fdata(dtype=np.float32)
    assert prepared["region_of_interest"].shape == prepared["image"].shape
    np.testing.assert_array_equal(prepared["region_of_interest"] > 0, prepared["image"] > 1.2)
    back = Invertd("region_of_interest", transform=prepare, orig_keys="image")(prepared)["region_of_interest"]
    np.testing.assert_array_equal(back[0].numpy() > 0, image > 1.2)


def test_a_resampled_region_of_interest_stays_a_mask(stored):
    mark = RegionOfInterestd("image", "region_of_interest", above=1.2)
    prepare = Compose([LoadCased(), mark, *spatial("region_of_interest")])
    prepared = prepare(stored)
    back = Invertd("region_of_interest", transform=prepare, orig_keys="image")(prepared)["region_of_interest"]
    mask = nib.load(stored["image"]).get_fdata(dtype=np.float32) > 1.2
    for values in (prepared["region_of_interest"], back):
        assert set(values.unique().tolist()) == {0.0, 1.0}
    assert back.shape[1:] == mask.shape
    found = back[0].numpy() > 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9


def test_a_region_of_interest_is_of_one_channel():
    image = torch.stack([torch.zeros(2, 2), torch.tensor([[5.0, 7.0], [6.0, -1.0]])])
    found = RegionOfInterestd("image", "brain", channel=1, above=5)({"image": image})
    assert found["brain"].tolist() == [[[0.0, 1.0], [1.0, 0.0]]]
    with pytest.raises(
        UserError, match=r"^Case a: channel 0 of its image is nowhere above 0, so its region of interest"
    ):
        RegionOfInterestd("image", "brain")({"case": "a", "image": image})


def test_targets_of_independent_labels_are_checked():
    check = CheckLabeld("label", ["organ", "lesion"], activation="sigmoid")
    assert check({"label": torch.tensor([[0.0, 1.0], [1.0, 1.0]])})["label"].dtype == torch.uint8
    assert check({"image": 1}) == {"image": 1}
    with pytest.raises(UserError, match=r"^Case a: its label holds the value 2, but a channel of an independent label"):
        check({"case": "a", "label": torch.tensor([[0.0, 2.0], [1.0, 1.0]])})
    with pytest.raises(UserError, match=r"^Case a: its label has 1 channel\(s\), but must have 2 .*Regionsd"):
        check({"case": "a", "label": torch.tensor([[0.0, 1.0]])})
    single = CheckLabeld("label", ["lesion"], activation="sigmoid")
    assert single({"label": torch.tensor([[0.0, 1.0]])})["label"].tolist() == [[0, 1]]
    with pytest.raises(UserError, match=r"its label has 2 channel\(s\), but must have 1"):
        CheckLabeld("label", ["background", "organ"])({"label": torch.zeros(2, 3)})
