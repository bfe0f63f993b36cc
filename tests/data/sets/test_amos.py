import shutil

import pytest
from tests.data.layouts import everyone, files_of, make_amos, message, names, reverse_file_system

from medcalib.data import amos_cases


@pytest.fixture
def root(tmp_path):
    return make_amos(tmp_path / "amos22", num_training=10, num_test=3)


def test_lists_ct_and_no_mri(root):
    split = amos_cases(root)
    assert names(split["test"]) == ["amos_0009", "amos_0012", "amos_0015"]
    assert names(split["training"] + split["validation"]) == [f"amos_{1 + 3 * i:04d}" for i in range(10)]
    for case in everyone(split):
        image, label = files_of(case)
        assert image.name == label.name == f"{case['case']}.nii.gz"
        assert image.parent.name.replace("images", "labels") == label.parent.name
        assert image.is_file()
        assert label.is_file()


def test_the_boundary_between_ct_and_mri(root):
    for number in (499, 500):
        for folder in ("imagesTr", "labelsTr"):
            shutil.copy(root / folder / "amos_0001.nii.gz", root / folder / f"amos_{number:04d}.nii.gz")
    listed = names(everyone(amos_cases(root)))
    assert "amos_0499" in listed
    assert "amos_0500" not in listed


def test_splits_nine_to_one(root):
    assert {part: len(cases) for part, cases in amos_cases(root).items()} == {
        "training": 9,
        "validation": 1,
        "test": 3,
        "calibration": 1,
    }


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = amos_cases(root)
    reverse_file_system(monkeypatch)
    assert amos_cases(root) == expected


class TestErrors:
    def test_missing_folder(self, tmp_path):
        text = message(amos_cases, tmp_path / "nowhere")
        assert "imagesTr, labelsTr, imagesVa and labelsVa" in text
        assert "amos22.grand-challenge.org" in text

    def test_other_folder(self, root):
        text = message(amos_cases, root.parent)
        assert "0 cases matched imagesTr/amos_*.nii.gz of CT (numbers below 500)" in text
        assert "which holds amos22/" in text

    def test_only_mri(self, root):
        for part in ("Tr", "Va"):
            for path in root.glob(f"*{part}/amos_00*.nii.gz"):
                path.unlink()
        assert "0 cases matched imagesTr/amos_*.nii.gz of CT" in message(amos_cases, root)

    @pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
    def test_half_extracted(self, root, folder):
        gone = root / folder / "amos_0010.nii.gz"
        gone.unlink()
        text = message(amos_cases, root)
        assert text.startswith(f"Case 'amos_0010' has no '{gone}' (9 cases matched")

    def test_no_labels_of_the_test_part(self, root):
        shutil.rmtree(root / "labelsVa")
        assert message(amos_cases, root).startswith("Case 'amos_0009' has no")
