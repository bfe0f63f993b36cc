"""Everything that is wrong with a case is found, and nothing that is right."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, Lambdad
from PIL import Image

from medcalib.data_check.problems import CaseInspector
from medcalib.transforms import CheckLabeld, LoadCased, LoadPictured, RegionOfInterestd, Regionsd

SHAPE = (6, 7, 5)


@pytest.fixture
def files(tmp_path):
    """A case of two channels and a label with the values 0, 1 and 2."""
    rng = np.random.default_rng(0)
    for name in ("t1", "t2"):
        write(tmp_path / f"{name}.nii.gz", rng.normal(size=SHAPE).astype(np.float32))
    write(tmp_path / "seg.nii.gz", rng.integers(0, 3, SHAPE).astype(np.uint8))
    return tmp_path


def write(path, values, affine=None):
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def values(path):
    return np.asarray(nib.load(path).dataobj).copy()


def case(files):
    return {
        "case": "a",
        "image": [str(files / "t1.nii.gz"), str(files / "t2.nii.gz")],
        "label": str(files / "seg.nii.gz"),
    }


def inspector(num_channels=2, class_names=("background", "organ", "lesion"), **options):
    return CaseInspector(LoadCased(num_channels=num_channels), CheckLabeld("label", class_names), **options)


def change(path, how):
    changed = values(path)
    how(changed)
    write(path, changed)


def nan(array):
    array[0, 0, :2] = np.nan


def seven(array):
    array[0, 0, :2] = 7
    array[0, 0, 2] = 9


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "t1.nii.gz does not exist": lambda files: (files / "t1.nii.gz").unlink(),
    "t2.nii.gz does not exist": lambda files: (files / "t2.nii.gz").unlink(),
    "seg.nii.gz does not exist": lambda files: (files / "seg.nii.gz").unlink(),
    "t1.nii.gz cannot be read": lambda files: truncate(files / "t1.nii.gz"),
    "t2.nii.gz holds 2 NaN": lambda files: change(files / "t2.nii.gz", nan),
    "seg.nii.gz holds 7 in 2 voxels, 9 in 1 voxel": lambda files: change(files / "seg.nii.gz", seven),
    "the channels differ in shape": lambda files: write(files / "t2.nii.gz", np.zeros((4, 4, 4), np.float32)),
    "image and label differ in shape": lambda files: write(files / "seg.nii.gz", np.zeros((4, 4, 4), np.uint8)),
    "the affines of the channels differ": lambda files: write(
        files / "t2.nii.gz", np.zeros(SHAPE, np.float32), np.diag([1, 1, 2, 1])
    ),
}


def sentences(found):
    for problem in found.problems:
        assert problem.startswith("Case a: ")
        assert problem.endswith(".")
        assert "\n" not in problem
    return found.problems


def test_a_whole_case_has_no_problem_and_is_loaded(files):
    found = inspector(spatial_dims=3)(case(files))
    assert sentences(found) == []
    np.testing.assert_array_equal(found.image[1], values(files / "t2.nii.gz"))
    np.testing.assert_array_equal(found.label[0], values(files / "seg.nii.gz"))


@pytest.mark.parametrize("problem", DAMAGES)
def test_one_problem(files, problem):
    DAMAGES[problem](files)
    (found,) = sentences(inspector()(case(files)))
    assert problem in found


@pytest.mark.parametrize(
    "problems",
    [
        ("t1.nii.gz does not exist", "seg.nii.gz does not exist"),
        ("t1.nii.gz cannot be read", "t2.nii.gz holds 2 NaN"),
        ("t1.nii.gz does not exist", "t2.nii.gz does not exist", "seg.nii.gz holds 7 in 2 voxels"),
        ("t1.nii.gz cannot be read", "seg.nii.gz holds 7 in 2 voxels"),
        ("t2.nii.gz holds 2 NaN", "image and label differ in shape"),
    ],
)
def test_several_problems_are_all_found(files, problems):
    for problem in problems:
        DAMAGES.get(problem, DAMAGES["seg.nii.gz holds 7 in 2 voxels, 9 in 1 voxel"])(files)
    found = sentences(inspector()(case(files)))
    assert len(found) == len(problems)
    for problem in problems:
        assert sum(problem in sentence for sentence in found) == 1


def test_what_is_left_is_given(files):
    DAMAGES["t1.nii.gz does not exist"](files)
    found = inspector()(case(files))
    assert found.image is None
    np.testing.assert_array_equal(found.label[0], values(files / "seg.nii.gz"))
    shutil.copy(files / "t2.nii.gz", files / "t1.nii.gz")
    change(files / "seg.nii.gz", seven)
    found = inspector()(case(files))
    assert found.image.shape == (2, *SHAPE)
    assert found.label is None


def test_no_gzip(files):
    path = files / "t1.nii.gz"
    path.write_bytes(gzip.decompress(path.read_bytes())[:100])
    (found,) = sentences(inspector()(case(files)))
    assert "t1.nii.gz cannot be read" in found


def test_number_of_channels(files):
    (found,) = sentences(inspector(num_channels=3)(case(files)))
    assert "2 channel(s), but data::channel_names lists 3" in found


def test_number_of_axes(files):
    (found,) = sentences(inspector(spatial_dims=2)(case(files)))
    assert "has 3 spatial axes, but data::patch_size lists 2" in found


def test_a_case_without_label(files):
    given = case(files)
    del given["label"]
    found = inspector()(given)
    assert found.problems == ["Case a: it has no label, which training and evaluation need."]
    assert found.image.shape == (2, *SHAPE)


def test_many_wrong_values_are_not_all_listed(files):
    write(files / "seg.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16))
    (found,) = sentences(inspector()(case(files)))
    assert "holds 3 in 1 voxel, 4 in 1 voxel" in found
    assert "202 further values" in found


def test_labels_are_checked_as_the_regions_that_are_made_of_them(files):
    regions = Regionsd("label", {"whole": [1, 2], "core": [2]}, num_classes=3)
    check = CheckLabeld("label", ["whole", "core"], activation="sigmoid")
    made = CaseInspector(LoadCased(num_channels=2), check, [regions])
    found = made(case(files))
    assert (found.problems, found.label.shape) == ([], (2, *SHAPE))
    change(files / "seg.nii.gz", seven)
    (problem,) = sentences(made(case(files)))
    assert "seg.nii.gz" in problem
    assert "7" in problem


def test_preprocessing_has_the_last_word_on_labels(files):
    change(files / "seg.nii.gz", lambda array: np.multiply(array, 2, out=array))
    check = CheckLabeld("label", ("background", "organ", "lesion"))
    halved = Lambdad("label", lambda label: label / 2)
    preprocessing = Compose([LoadCased(num_channels=2), halved, check])
    found = inspector(preprocessing=preprocessing)(case(files))
    assert found.problems == []
    np.testing.assert_array_equal(found.label[0], values(files / "seg.nii.gz") // 2)


def test_images_that_preprocessing_would_refuse(files):
    change(files / "t1.nii.gz", lambda array: array.fill(-1))
    mark = RegionOfInterestd("image", "region_of_interest", channel=0, above=0)
    found = inspector(image_checks=[mark])(case(files))
    (problem,) = sentences(found)
    assert "channel 0 of its image is nowhere above 0" in problem
    assert found.image.shape == (2, *SHAPE)


class TestPictures:
    CHECK = CheckLabeld("label", ("background", "lesion"))

    def given(self, folder, **other):
        Image.new("RGB", (8, 6), (200, 100, 50)).save(folder / "a.png")
        return {"case": "a", "image": str(folder / "a.png")} | other

    def inspect(self, given):
        return CaseInspector(LoadPictured(num_channels=3, label_map={255: 1}), self.CHECK, spatial_dims=2)(given)

    def test_masks(self, tmp_path):
        Image.new("L", (8, 6), 255).save(tmp_path / "mask.png")
        given = self.given(tmp_path, label=str(tmp_path / "mask.png"))
        found = self.inspect(given)
        assert (found.problems, found.label.unique().tolist()) == ([], [1])
        Image.new("L", (8, 6), 128).save(tmp_path / "mask.png")
        (problem,) = sentences(self.inspect(given))
        assert "mask.png holds 128 in 48 voxels" in problem

    def test_classes(self, tmp_path):
        assert self.inspect(self.given(tmp_path, label=1)).label.tolist() == [1]
        (problem,) = sentences(self.inspect(self.given(tmp_path, label=2)))
        assert "its label is 2, but only the values 0 to 1 have a meaning" in problem

    def test_outlines_in_a_picture_that_is_missing(self, tmp_path):
        given = self.given(tmp_path, label="table.csv", outline="1,1 5,1 5,4")
        assert self.inspect(given).label.sum() == 12
        (tmp_path / "a.png").unlink()
        (problem,) = sentences(self.inspect(given))
        assert "a.png does not exist" in problem
