from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd

from medcalib.errors import UserError
from medcalib.task import Task
from medcalib.transforms import CheckForegroundd, CheckPredictiond, InvertProbabilitiesd, LoadCased, ToEvaluationSpaced

TASK = Task(["background", "structure"])
LAS_OBLIQUE = np.array([[-1.5, 0.1, 0, 10], [0.1, 1.5, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def save(path, volume, affine=LAS_OBLIQUE):
    nib.save(nib.Nifti1Image(volume, affine), path)
    return str(path)


@pytest.fixture
def smooth_case(tmp_path):
    """A volume that varies slowly, so that resampling there and back changes little."""
    grid = np.meshgrid(*(np.linspace(0, 1, n) for n in (24, 20, 16)), indexing="ij")
    image = (0.3 * grid[0] + 0.2 * grid[1] ** 2 + 0.5 * grid[2]).astype(np.float32)
    label = (image > 0.5).astype(np.uint8) * 4
    return {"case": "a", "image": save(tmp_path / "i.nii.gz", image), "label": save(tmp_path / "l.nii.gz", label)}


def preprocessing(*more, **load):
    keys = {"keys": ["image", "label"], "allow_missing_keys": True}
    return Compose(
        [
            LoadCased(**load),
            Orientationd(**keys, axcodes="RAS", labels=None),
            Spacingd(**keys, pixdim=(1.2, 1.7, 2.5), mode=["bilinear", "nearest"]),
            *more,
        ]
    )


def as_probabilities(data):
    """Let the image itself be the prediction of the second of two classes."""
    return data | {"pred": torch.cat([1 - data["image"], data["image"]])}


def test_probabilities_come_back_to_where_they_were(smooth_case):
    """The image as its own prediction, oriented, resampled and brought back, is the image in the file."""
    prepare = preprocessing()
    prepared = as_probabilities(prepare(smooth_case))
    assert prepared["pred"].shape[1:] != (24, 20, 16)
    pred = InvertProbabilitiesd("pred", prepare, TASK)(prepared)["pred"]
    stored = nib.load(smooth_case["image"]).get_fdata()
    assert pred.shape == (2, *stored.shape)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(pred[1].numpy()[inner], stored[inner], atol=0.01)
    torch.testing.assert_close(pred.sum(0).as_tensor(), torch.ones(stored.shape))


def test_what_was_cropped_away_becomes_background(smooth_case):
    prepare = preprocessing(CropForegroundd(["image"], source_key="image", select_fn=lambda x: x > 0.6))
    prepared = as_probabilities(prepare({k: v for k, v in smooth_case.items() if k != "label"}))
    pred = InvertProbabilitiesd("pred", prepare, TASK)(prepared)["pred"]
    torch.testing.assert_close(pred.sum(0).as_tensor(), torch.ones(24, 20, 16))
    assert pred[0, 0, 0, 0] == 1


def test_original_space_takes_the_stored_label(smooth_case):
    prepare = preprocessing(label_map={4: 1})
    prepared = as_probabilities(prepare(smooth_case))
    load = LoadCased(label_map={4: 1})
    invert = InvertProbabilitiesd("pred", prepare, TASK)
    same = ToEvaluationSpaced("resampled", invert, load)(prepared)
    assert same["pred"] is prepared["pred"]
    moved = ToEvaluationSpaced("original", invert, load)(prepared)
    stored = np.asarray(nib.load(smooth_case["label"]).dataobj)
    np.testing.assert_array_equal(moved["label"][0].numpy(), stored == 4)
    assert moved["pred"].shape[1:] == moved["label"].shape[1:]


def test_unknown_space():
    with pytest.raises(ValueError, match="nowhere"):
        ToEvaluationSpaced("nowhere", None, None)


def test_label_values_are_mapped_at_once(tmp_path):
    """Swapping two values does not merge them."""
    volume = np.array([[[0, 1, 2]]], np.uint8)
    path = save(tmp_path / "l.nii.gz", volume)
    mapped = LoadCased(label_map={1: 2, 2: 1})({"case": "a", "label": path})["label"]
    assert mapped.flatten().tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("label_map", "value", "read"),
    [
        ({3: 2}, 2, None),
        ({255: 1}, 1, None),
        ({3: 2, 4: 3}, 2, None),
        ({3: 2, 2: 2}, 2, 2),  # said to be the same class
        ({2: 1, 3: 1, 4: 1}, 1, 1),  # several values are united, as in BraTS 2018
        ({1: 0, 2: 1}, 0, 0),
        ({4: 3}, 2, 2),
    ],
)
def test_a_value_whose_class_has_another_value_is_refused(label_map, value, read, tmp_path):
    case = {"case": "a", "label": save(tmp_path / "l.nii.gz", np.full((2, 2, 2), value, np.uint8))}
    if read is not None:
        assert set(LoadCased(label_map=label_map)(case)["label"].flatten().tolist()) == {read}
        return
    with pytest.raises(UserError, match=rf"^Case a: .*l.nii.gz holds the value {value}, but data::label_map gives"):
        LoadCased(label_map=label_map)(case)


def test_an_image_without_label_loads(smooth_case):
    loaded = LoadCased()({"case": "a", "image": smooth_case["image"]})
    assert loaded["image"].shape == (1, 24, 20, 16)


def test_attributes_stay_with_the_split(smooth_case):
    """Cases of a batch may lack some of them, or have None."""
    assert LoadCased()(smooth_case | {"attributes": {"vendor": None}}).keys() == smooth_case.keys()


def test_channels_are_counted(smooth_case):
    with pytest.raises(UserError, match="Case a: .* has 1 channel.* lists 2"):
        LoadCased(num_channels=2)(smooth_case)


def test_channels_in_several_files(tmp_path):
    paths = [save(tmp_path / f"{n}.nii.gz", np.full((4, 4, 4), n, np.float32)) for n in range(3)]
    loaded = LoadCased(num_channels=3)({"case": "a", "image": paths})
    assert loaded["image"][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_the_file_that_has_a_channel_too_many_is_named(tmp_path):
    single = save(tmp_path / "single.nii.gz", np.zeros((4, 4, 4), np.float32))
    double = save(tmp_path / "double.nii.gz", np.zeros((4, 4, 4, 2), np.float32))
    case = {"case": "a", "image": [single, double]}
    assert LoadCased(num_channels=3)(case)["image"].shape == (3, 4, 4, 4)
    with pytest.raises(UserError) as caught:
        LoadCased(num_channels=2)(case)
    assert str(caught.value) == (
        f"Case a: {double} has 2, its 2 files together have 3 channel(s), but data::channel_names lists 2."
    )


def test_a_volume_that_is_cut_short_says_how_much_is_missing(tmp_path):
    path = Path(save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.float32)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"a.nii cannot be read \(its voxels take 256 bytes, but 148 are there\); the"):
        LoadCased()({"case": "a", "image": str(path)})


def test_an_image_without_foreground_is_named():
    check = CheckForegroundd("image")
    case = {"case": "a", "image": torch.tensor([[-1.0, 0.5]])}
    assert check(case) == case
    with pytest.raises(UserError, match="^Case a: its image is nowhere above 0"):
        check({"case": "a", "image": torch.tensor([[-1.0, 0.0]])})


def test_a_channel_that_is_missing_is_named(tmp_path):
    there = save(tmp_path / "there.nii.gz", np.zeros((4, 4, 4), np.float32))
    with pytest.raises(UserError, match=r"^Case a: gone.nii.gz does not exist\.$"):
        LoadCased()({"case": "a", "image": [there, "gone.nii.gz"]})


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 4, 5), LAS_OBLIQUE, r"the channels differ in shape, \(4, 4, 4\) against \(4, 4, 5\)"),
        ((4, 4, 4), LAS_OBLIQUE + np.diag([0, 0.2, 0, 0]), "the affines of the channels differ, by 0.4 voxels"),
    ],
)
def test_channels_that_do_not_lie_on_one_grid(tmp_path, shape, affine, message):
    first = save(tmp_path / "first.nii.gz", np.zeros((4, 4, 4), np.float32))
    other = save(tmp_path / "other.nii.gz", np.zeros(shape, np.float32), affine)
    with pytest.raises(UserError, match=rf"^Case a: {message} .*\({first} and {other}\)\.$"):
        LoadCased()({"case": "a", "image": [first, first, other]})


@pytest.fixture
def recording(tmp_path):
    """A case that is one frame of 4D files, of which another frame holds NaN."""
    volume = np.random.default_rng(0).normal(size=(6, 5, 4, 3)).astype(np.float32)
    volume[..., 2] = np.nan
    label = np.zeros((6, 5, 4, 3), np.uint8)
    label[..., 1] = 3
    return {
        "case": "a_es",
        "image": save(tmp_path / "sa.nii.gz", volume),
        "label": save(tmp_path / "sa_gt.nii.gz", label),
        "frame": 1,
    }


@pytest.mark.parametrize("frame", [1, torch.tensor(1)], ids=["number", "collated"])
def test_a_frame_is_taken_from_image_and_label(recording, frame):
    loaded = LoadCased(num_channels=1, label_map={3: 2})(recording | {"frame": frame})
    stored = nib.load(recording["image"])
    np.testing.assert_array_equal(loaded["image"][0].numpy(), stored.get_fdata(dtype=np.float32)[..., 1])
    np.testing.assert_allclose(loaded["image"].affine, LAS_OBLIQUE, atol=1e-5)
    assert loaded["label"].shape == (1, 6, 5, 4)
    assert set(loaded["label"].flatten().tolist()) == {2}
    assert loaded["image"].as_tensor().untyped_storage().nbytes() == 6 * 5 * 4 * 4


def test_a_frame_is_prepared_and_brought_back_as_a_volume(recording):
    prepare = preprocessing()
    prepared = as_probabilities(prepare(recording | {"frame": 0}))
    assert prepared["image"].shape[1:] != (6, 5, 4)
    assert InvertProbabilitiesd("pred", prepare, TASK)(prepared)["pred"].shape == (2, 6, 5, 4)


def test_a_stored_label_is_read_of_one_frame(recording):
    for frame, value in enumerate([0, 3]):
        label = LoadCased()({"case": "a", "label": recording["label"], "frame": frame})["label"]
        assert label.unique().tolist() == [value]


@pytest.mark.parametrize("frame", [3, -1])
def test_a_frame_that_does_not_exist(recording, frame):
    with pytest.raises(
        UserError, match=rf"^Case a_es: .*sa\.nii\.gz has 3 frame\(s\), so frame {frame}, counted from 0"
    ):
        LoadCased()(recording | {"frame": frame})


def test_a_frame_with_nan_is_refused(recording):
    with pytest.raises(UserError, match=r"^Case a_es: .*sa\.nii\.gz holds 120 NaN"):
        LoadCased()(recording | {"frame": 2})


def test_a_tiny_difference_of_affines_is_tolerated(tmp_path):
    volume = np.zeros((8, 8, 8), np.float32)
    almost = LAS_OBLIQUE + np.diag([1e-4, 0, 0, 0])
    case = {
        "case": "a",
        "image": save(tmp_path / "i.nii.gz", volume),
        "label": save(tmp_path / "l.nii.gz", volume, almost),
    }
    LoadCased()(case)
    with pytest.raises(UserError, match="the affines of image and label differ"):
        LoadCased(affine_tolerance=1e-6)(case)


def test_a_diverged_network_names_the_case():
    check = CheckPredictiond("pred")
    data = {"case": "a", "pred": torch.ones(2, 3)}
    assert check(data)["pred"] is data["pred"]
    data["pred"][0, 0] = torch.inf
    with pytest.raises(UserError, match="Case a: the network predicts 1 NaN or Inf"):
        check(data)
