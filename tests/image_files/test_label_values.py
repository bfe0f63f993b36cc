"""Labels hold what the files mean."""

import nibabel as nib
import numpy as np
import pytest
import torch

from medcalib.data_check.problems import CaseInspector
from medcalib.errors import UserError
from medcalib.image_files.label_values import disk_values
from medcalib.transforms import CheckLabeld, LoadCased

NAMES = ["background", "organ", "lesion"]
LABEL = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(float)


def integer_header(dtype=np.int16):
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    return header


STORED = {
    "float64 through int16": nib.Nifti1Image(LABEL, np.eye(4), integer_header()),
    "float64 through uint8": nib.Nifti1Image(LABEL, np.eye(4), integer_header(np.uint8)),
    "one unit in the last place": nib.Nifti1Image(np.nextafter(LABEL.astype("f4"), np.float32(9)), np.eye(4)),
    "0.9999": nib.Nifti1Image((LABEL * 0.9999).astype("f4"), np.eye(4)),
    "uint16": nib.Nifti1Image(LABEL.astype(np.uint16), np.eye(4)),
    "float32": nib.Nifti1Image(LABEL.astype(np.float32), np.eye(4)),
}


@pytest.mark.parametrize("stored", STORED)
def test_labels_that_are_whole_but_for_a_rounding(stored, tmp_path):
    path = tmp_path / "l.nii.gz"
    nib.save(STORED[stored], path)
    loaded = LoadCased(label_map={2: 1, 1: 2})({"case": "a", "label": str(path)})
    label = CheckLabeld("label", NAMES)(loaded)["label"]
    np.testing.assert_array_equal(label[0].numpy(), np.array([0, 2, 1])[LABEL.astype(int)])
    assert label.dtype == torch.uint8
    found = CaseInspector(LoadCased(), CheckLabeld("label", NAMES))({"case": "a", "image": str(path), "label": path})
    assert found.problems == []


@pytest.mark.parametrize(
    ("value", "text"), [(2.02, "2.02"), (1.5, "1.5"), (3, "3"), (-1, "-1"), (2.9899998, "2.9899998")]
)
def test_what_is_no_class_is_said_without_contradiction(value, text, tmp_path):
    label = torch.full((1, 2, 2, 2), value)
    with pytest.raises(UserError, match=f"holds the value {text}, but data::class_names lists 3 classes, 0 to 2;"):
        CheckLabeld("label", NAMES)({"case": "a", "label": label})
    path = tmp_path / "l.nii.gz"
    nib.save(nib.Nifti1Image(label[0].numpy().astype(np.float32), np.eye(4)), path)
    case = {"case": "a", "image": str(path), "label": str(path)}
    (problem,) = CaseInspector(LoadCased(), CheckLabeld("label", NAMES))(case).problems
    assert f"l.nii.gz holds {text} in 8 voxels" in problem


@pytest.mark.parametrize(("num_classes", "dtype"), [(256, torch.uint8), (257, torch.int32), (40_000, torch.int32)])
def test_many_classes_keep_their_numbers(num_classes, dtype):
    label = torch.arange(float(num_classes)).reshape(1, -1)
    checked = CheckLabeld("label", [str(number) for number in range(num_classes)])({"case": "a", "label": label})
    assert checked["label"].dtype == dtype
    assert torch.equal(checked["label"].long(), label.long())


@pytest.mark.parametrize(
    ("label_map", "num_classes", "expected"),
    [
        (None, 3, [0, 1, 2]),
        ({4: 3}, 4, [0, 1, 2, 4]),  # BraTS 2021
        ({2: 1, 3: 1, 4: 1}, 2, [0, 2]),  # the smallest; 1 is none of them
        ({1: 1, 2: 1}, 2, [0, 1]),
        ({255: 1}, 2, [0, 255]),
        ({1: 2, 2: 1}, 3, [0, 2, 1]),
        ({2: 1}, 3, [0, 2, 3]),  # 2 on disk is class 1, so class 2 has no value there
    ],
)
def test_each_class_has_a_value_on_disk_that_is_read_as_this_class(label_map, num_classes, expected):
    values = disk_values(label_map, num_classes)
    assert values == expected
    assert len(set(values)) == num_classes
    if len(label_map or {}) != 1 or 2 not in label_map:
        assert [(label_map or {}).get(value, value) for value in values] == list(range(num_classes))
