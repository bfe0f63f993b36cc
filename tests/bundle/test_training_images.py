"""What is recorded of the images of a training: headers of many, intensities of few, and never at its cost."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medcalib.bundle import training_images
from medcalib.bundle.training_images import traits_of_training
from medcalib.image_files.nifti import NiftiFile
from medcalib.transforms import LoadCased, LoadCropd, LoadPictured


@pytest.fixture
def cases(tmp_path):
    """Twenty volumes, each longer and brighter than the one before."""
    made = []
    for number in range(20):
        path = tmp_path / f"{number}.nii.gz"
        values = np.full((4, 3, 2 + number), number, np.int16)
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 2, 3, 1])), path)
        made.append({"case": str(number), "image": str(path), "label": "no/such/label.nii.gz"})
    return made


@pytest.fixture
def read(monkeypatch):
    """The files of which voxels were read."""
    names, before = [], NiftiFile.read
    monkeypatch.setattr(NiftiFile, "read", lambda self, *more: names.append(self.path.stem) or before(self, *more))
    return names


def test_sizes_are_those_of_all_headers_and_intensities_those_of_ten_images(cases, read):
    found = traits_of_training(cases, LoadCased(num_channels=1), ["CT"])
    assert found["size"] == [[4, 4], [3, 3], [2, 21]]
    assert found["spacing"] == [[1, 1], [2, 2], [3, 3]]
    assert found["num_images"] == len(read) == 10
    assert found["intensity"] == [[[0, 18]] * 3]
    assert found["channel_names"] == ["CT"]


def test_of_large_images_fewer_are_read(cases, read, monkeypatch):
    monkeypatch.setattr(training_images, "MOST_VALUES", 3 * 4 * 3 * 21)
    assert traits_of_training(cases, LoadCased(), ["CT"])["num_images"] == len(read) == 3
    read.clear()
    monkeypatch.setattr(training_images, "MOST_VALUES", 1)
    assert traits_of_training(cases, LoadCased(), ["CT"])["num_images"] == len(read) == 1


def test_crops_are_images(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    cases = [{"case": str(x), "image": str(tmp_path / "a.png"), "crop": [x, 0, 20 + x, 10]} for x in range(3)]
    for load in (LoadPictured(), LoadCropd()):
        assert traits_of_training(cases, load, ["red", "green", "blue"])["size"] == [[20, 22], [10, 10]]
    whole = traits_of_training([{"case": "a", "image": str(tmp_path / "a.png")}], LoadCropd(), ["red"])
    assert whole["size"] == [[60, 60], [40, 40]]


def test_no_training_fails_of_it(cases, tmp_path):
    (tmp_path / "0.nii.gz").write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # the training says it itself
        assert traits_of_training(cases, LoadCased(), ["CT"]) is None
    with pytest.warns(UserWarning, match="not recorded"):
        assert traits_of_training(cases[1:], lambda _case: None, ["CT"]) is None
    nib.save(nib.Nifti1Image(np.zeros((4, 3)), np.eye(4)), tmp_path / "0.nii.gz")
    with pytest.warns(UserWarning, match="not recorded"):
        assert traits_of_training(cases, LoadCased(), ["CT"]) is None
