"""Which reader a file gets, and what is said where SimpleITK is missing."""

import sys

import nibabel as nib
import numpy as np
import pytest
from tests.image_files.written import PERMUTED, write_meta_image, write_nrrd

from medcalib.errors import UserError
from medcalib.image_files.nifti import NiftiFile
from medcalib.image_files.volumes_in_files import open_volume
from medcalib.transforms import LoadCased

VALUES = np.arange(24, dtype=np.int16).reshape(4, 3, 2)


def test_nifti_needs_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    nib.save(nib.Nifti1Image(VALUES, PERMUTED), tmp_path / "a.nii.gz")
    assert isinstance(open_volume(tmp_path / "a.nii.gz"), NiftiFile)


def test_without_simple_itk_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM1").write_bytes(bytes(128) + b"DICM")
    for path in (
        write_meta_image(tmp_path / "a.mha", VALUES, PERMUTED),
        write_nrrd(tmp_path / "a.nrrd", VALUES, PERMUTED),
        tmp_path / "series",
    ):
        with pytest.raises(UserError) as told:
            LoadCased()({"case": "a", "image": str(path)})
        assert str(told.value) == (
            f"Case a: {path} is read by SimpleITK, which is not installed; pip install 'medcalib[images]', or "
            f"convert it to NIfTI."
        )


def test_labels_of_a_dataset_may_have_another_format_than_images(tmp_path):
    pytest.importorskip("SimpleITK")
    nib.save(nib.Nifti1Image(VALUES, PERMUTED), tmp_path / "image.nii.gz")
    write_nrrd(tmp_path / "label.nrrd", VALUES % 3, PERMUTED)
    case = {"case": "a", "image": str(tmp_path / "image.nii.gz"), "label": str(tmp_path / "label.nrrd")}
    loaded = LoadCased(label_map={1: 1, 2: 1})(case)
    np.testing.assert_array_equal(loaded["label"][0], np.minimum(VALUES % 3, 1))
    write_nrrd(tmp_path / "label.nrrd", VALUES % 3, PERMUTED @ np.diag([1, -1, 1, 1]))
    with pytest.raises(UserError, match="the affines of image and label differ"):
        LoadCased()(case)
