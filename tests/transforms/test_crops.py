import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from medcalib.errors import UserError
from medcalib.transforms import LoadCropd, LoadPictured, crops

PLACES = [[0, 0, 10, 10], [-3, 5, 10, 10], [30, 20, 10, 10]]


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of 40 x 30 pixels."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def read(monkeypatch):
    """Paths of the pictures that are read."""
    paths, original = [], crops.read_picture
    monkeypatch.setattr(crops, "read_picture", lambda path: paths.append(path) or original(path))
    crops._read.cache_clear()
    return paths


def cells(path):
    return [{"case": f"{path}_{i}", "image": str(path), "label": 1, "crop": crop} for i, crop in enumerate(PLACES)]


def test_crops_are_those_of_whole_pictures(pictures):
    for case in [*cells(pictures[0]), *cells(pictures[1]), *cells(pictures[0])]:
        kept, plain = LoadCropd(num_channels=3)(case), LoadPictured(num_channels=3)(case)
        assert torch.equal(kept["image"].as_tensor(), plain["image"].as_tensor())
        assert kept["image"].meta["filename_or_obj"] == plain["image"].meta["filename_or_obj"]
        assert torch.equal(kept["label"], plain["label"])


def test_a_picture_is_read_once_for_all_its_crops(pictures, read):
    load = LoadCropd()
    for path in pictures:
        for case in cells(path):
            load(case)
    assert read == [str(path) for path in pictures]


def test_few_pictures_are_kept(tmp_path, read):
    load = LoadCropd()
    paths = [str(tmp_path / f"{number}.png") for number in range(30)]
    for path in paths:
        Image.new("RGB", (20, 20)).save(path)
    for path in [*paths, paths[0]]:
        load({"case": "a", "image": path, "crop": PLACES[0]})
    assert len(read) == 31


def test_a_picture_that_changed_is_read_again(pictures):
    load, (case, *_) = LoadCropd(), cells(pictures[0])
    load(case)
    Image.new("RGB", (40, 30), (7, 8, 9)).save(pictures[0])
    assert load(case)["image"][:, 0, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize("cut", [True, False])
def test_what_happens_to_a_case_does_not_reach_the_next(pictures, cut):
    load, (case, *_) = LoadCropd(), cells(pictures[0])
    if not cut:
        del case["crop"]
    first = load(case)["image"]
    before = first.clone()
    first.zero_()
    first.meta["filename_or_obj"] = ""
    second = load(case)["image"]
    assert torch.equal(second, before)
    assert second.meta["filename_or_obj"] == case["image"]


def test_it_can_be_sent_to_workers(pictures):
    load, (case, *_) = LoadCropd(num_channels=3), cells(pictures[0])
    sent = pickle.loads(pickle.dumps(load))
    assert torch.equal(sent(case)["image"], load(case)["image"])


def test_errors_name_case_and_file(pictures):
    load, (case, *_) = LoadCropd(num_channels=3), cells(pictures[0])
    content = pictures[0].read_bytes()
    pictures[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"Case {case['case']}: {pictures[0]} cannot be read"):
        load(case)
    pictures[0].unlink()
    with pytest.raises(UserError, match=f"Case {case['case']}: {pictures[0]} does not exist"):
        load(case)
    pictures[0].write_bytes(content)
    with pytest.raises(UserError, match=r"the middle of its crop, x 55 and y 5, lies outside"):
        load(case | {"crop": [50, 0, 10, 10]})
