"""Where voxels lie and how large they are, by headers as real files have them."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.image_files import headers
from tests.image_files.headers import KINDS, SIZES, header, write

from medcalib.errors import UserError
from medcalib.image_files import grids
from medcalib.image_files.grids import corner_distance
from medcalib.image_files.nifti import NiftiFile
from medcalib.transforms import LoadCased

SHAPE = (5, 4, 3)
ZEROS = np.zeros(SHAPE, np.float32)


def in_mm(path):
    """The affine as nibabel reads it, in mm."""
    image = nib.load(path)
    return np.diag([*[0.001 if image.header.get_xyzt_units()[0] == "micron" else 1] * 3, 1]) @ image.affine


@pytest.fixture(autouse=True)
def _no_warning_yet(monkeypatch):
    monkeypatch.setattr(grids, "_warned", [])


@pytest.mark.filterwarnings("ignore:.*its sform says voxels")
@pytest.mark.parametrize("kind", KINDS)
class TestEveryHeader:
    def test_a_viewer_and_this_package_agree_on_the_place(self, kind, tmp_path):
        path = write(tmp_path / "a.nii.gz", ZEROS, KINDS[kind])
        np.testing.assert_allclose(NiftiFile(path).grid.viewer_affine, in_mm(path), atol=1e-5)

    def test_voxels_have_their_size(self, kind, tmp_path):
        path = write(tmp_path / "a.nii.gz", ZEROS, KINDS[kind])
        image = LoadCased()({"case": "a", "image": path})["image"]
        np.testing.assert_allclose(image.pixdim, SIZES.get(kind, (2, 2, 3)), atol=1e-5)
        if kind != "unit sform":
            np.testing.assert_allclose(image.affine, in_mm(path), atol=1e-5)

    def test_new_values_lie_there(self, kind, tmp_path):
        source = write(tmp_path / "a.nii.gz", ZEROS, KINDS[kind])
        values = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
        nib.save(grids.image_like(NiftiFile(source).grid, values), tmp_path / "b.nii.gz")
        same_header(source, tmp_path / "b.nii.gz")
        np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj), values)


def same_header(source, made):
    """All that says where a file lies is the same to the last bit."""
    old, new = nib.load(source), nib.load(made)
    for field in ("sform_code", "qform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(old.header[field], new.header[field], err_msg=field)
    for axis in "bcd":
        np.testing.assert_array_equal(old.header[f"quatern_{axis}"], new.header[f"quatern_{axis}"])
    for axis in "xyz":
        np.testing.assert_array_equal(old.header[f"qoffset_{axis}"], new.header[f"qoffset_{axis}"])
    np.testing.assert_array_equal(old.header["pixdim"][:4], new.header["pixdim"][:4])
    if old.shape == new.shape[:3]:
        np.testing.assert_array_equal(old.affine, new.affine)


def test_a_file_of_the_second_kind_stays_one(tmp_path):
    affine = np.diag([1 / 3, 1 / 3, 1 / 3, 1])
    nib.save(nib.Nifti2Image(ZEROS, affine), tmp_path / "a.nii.gz")
    nib.save(grids.image_like(NiftiFile(tmp_path / "a.nii.gz").grid, ZEROS), tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").affine, affine)


def test_sizes_that_contradict_each_other_are_said_once(tmp_path):
    paths = [write(tmp_path / f"{name}.nii.gz", ZEROS, KINDS["sform of other sizes than qform"]) for name in ("a", "b")]
    with pytest.warns(UserWarning, match=r"a.nii.gz: its sform says voxels of 1 x 1 x 1 mm, its pixdim 2 x 2 x 3 mm"):
        NiftiFile(paths[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NiftiFile(paths[1])


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "sform of other sizes than qform"])
def test_nothing_is_said_of_headers_that_do_not_contradict_themselves(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NiftiFile(write(tmp_path / "a.nii.gz", ZEROS, KINDS[kind]))


class TestTogether:
    def load(self, tmp_path, image, label):
        files = {
            "image": write(tmp_path / "i.nii.gz", ZEROS, image),
            "label": write(tmp_path / "l.nii.gz", ZEROS, label),
        }
        return LoadCased()({"case": "a"} | files)

    def test_a_label_that_lost_the_true_size_lies_where_its_image_lies(self, tmp_path):
        """A program that knows but the affine writes the unit sform of ACDC without pixdim."""
        loaded = self.load(tmp_path, KINDS["unit sform"], header(np.diag([-1.0, -1, 1, 1])))
        torch.testing.assert_close(loaded["label"].affine, loaded["image"].affine)
        assert loaded["label"].pixdim.tolist() == [2, 2, 3]

    def test_a_label_with_the_true_size_in_its_affine_lies_there_too(self, tmp_path):
        loaded = self.load(tmp_path, KINDS["unit sform"], header(np.diag([-2.0, -2, 3, 1])))
        torch.testing.assert_close(loaded["label"].affine, loaded["image"].affine)

    def test_another_place_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="the affines of image and label differ, by 1.5 voxels"):
            self.load(tmp_path, KINDS["oblique"], header(headers.OBLIQUE @ np.diag([1, 1, 1.75, 1])))

    def test_an_affine_with_nan_is_not_near_to_anything(self):
        unknown = np.diag([1, 1, np.nan, 1])
        assert not corner_distance(np.eye(4), unknown, SHAPE) <= 1


def test_micrometres_are_not_millimetres(tmp_path):
    path = write(tmp_path / "a.nii.gz", ZEROS, KINDS["micrometres"])
    assert LoadCased()({"case": "a", "image": path})["image"].pixdim.tolist() == [2, 2, 3]
