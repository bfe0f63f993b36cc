import shutil

import pytest
from tests.data.layouts import everyone, files_of, make_acdc, message, names, reverse_file_system

from medcalib.data import acdc_cases, split_digest


@pytest.fixture
def root(tmp_path):
    return make_acdc(tmp_path / "database", num_training=10, num_testing=2)


def patients(cases):
    return {case["case"].split("_")[0] for case in cases}


def test_lists_both_frames_of_every_patient(root):
    split = acdc_cases(root)
    assert names(split["test"]) == [
        "patient101_frame01",
        "patient101_frame10",
        "patient102_frame01",
        "patient102_frame11",
    ]
    assert len(everyone(split)) == 24
    for case in everyone(split):
        image, label = files_of(case)
        assert image.name == f"{case['case']}.nii.gz"
        assert label.name == f"{case['case']}_gt.nii.gz"
        assert image.is_file()
        assert label.is_file()


@pytest.mark.parametrize("seed", range(4))
def test_a_patient_is_on_one_side(root, seed):
    split = acdc_cases(root, validation_fraction=0.3, seed=seed)
    assert not patients(split["training"]) & patients(split["validation"])
    assert len(patients(split["validation"])) == 3
    assert patients(split["training"]) | patients(split["validation"]) == {f"patient{i:03d}" for i in range(1, 11)}


def test_one_patient_in_ten_is_for_validation(root):
    split = acdc_cases(root)
    assert {part: len(cases) for part, cases in split.items()} == {
        "training": 18,
        "validation": 2,
        "test": 4,
        "calibration": 2,
    }


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = acdc_cases(root)
    reverse_file_system(monkeypatch)
    assert acdc_cases(root) == expected


def test_seeds_change_validation_but_not_the_test_cases(root):
    first, second = acdc_cases(f"{root}/", seed=0), acdc_cases(root, seed=1)
    assert first["test"] == second["test"]
    assert split_digest(first) != split_digest(second)


def test_hidden_twins_are_passed_over(root):
    twin = root / "training" / "patient001" / "._patient001_frame01.nii.gz"
    twin.write_bytes(b"\0\5\x16\7")
    (root / "training" / "._patient001").write_bytes(b"\0\5\x16\7")
    assert len(everyone(acdc_cases(root))) == 24


class TestErrors:
    def test_missing_folder(self, tmp_path):
        text = message(acdc_cases, tmp_path / "nowhere")
        assert str(tmp_path / "nowhere") in text
        assert "training and testing" in text
        assert "humanheart-project" in text

    def test_parent_of_the_folder(self, root):
        text = message(acdc_cases, root.parent)
        assert "0 cases matched training/patient*/patient*_frame*.nii.gz" in text
        assert "which holds database/" in text
        assert "humanheart-project" in text

    def test_no_testing_folder(self, root):
        shutil.rmtree(root / "testing")
        assert "0 cases matched testing/patient*" in message(acdc_cases, root)

    @pytest.mark.parametrize("suffix", ["", "_gt"])
    def test_half_extracted(self, root, suffix):
        gone = root / "training" / "patient004" / f"patient004_frame13{suffix}.nii.gz"
        gone.unlink()
        text = message(acdc_cases, root)
        assert text.startswith(f"Case 'patient004_frame13' has no '{gone}' (19 cases matched")
        assert "1 did not" in text

    def test_a_patient_without_frames(self, root):
        for path in (root / "training" / "patient007").glob("*frame*"):
            path.unlink()
        assert "patient007/patient007_frame*.nii.gz'" in message(acdc_cases, root)

    def test_archives_of_patients_that_are_not_extracted(self, root):
        shutil.rmtree(root / "training")
        (root / "training").mkdir()
        (root / "training" / "patient001.zip").touch()
        text = message(acdc_cases, root)
        assert "0 cases matched training/patient*" in text
        assert "whose training/ holds patient001.zip" in text

    def test_one_patient_only(self, tmp_path):
        assert "1 case(s) or group(s)" in message(acdc_cases, make_acdc(tmp_path, num_training=1, num_testing=1))
