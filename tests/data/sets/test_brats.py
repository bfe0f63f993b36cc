import shutil
from importlib.resources import files

import pytest
from tests.data.layouts import (
    BRATS21_TEST,
    BRATS21_TRAIN_VAL,
    everyone,
    files_of,
    make_brats18,
    make_brats18_flat,
    make_brats21,
    message,
    names,
    reverse_file_system,
)

from medcalib.data import brats18_cases, brats21_cases


def published(name):
    return files("medcalib.data").joinpath("published_splits", name).read_text().split()


class TestPublishedLists:
    def test_cover_the_1251_cases_once(self):
        train_val, test = published("brats21_train_val.txt"), published("brats21_test.txt")
        assert (len(train_val), len(test)) == (1051, 200)
        assert len(set(train_val) | set(test)) == 1251

    def test_the_tiny_dataset_uses_them(self):
        assert {f"BraTS2021_{number}" for number in BRATS21_TRAIN_VAL} <= set(published("brats21_train_val.txt"))
        assert {f"BraTS2021_{number}" for number in BRATS21_TEST} <= set(published("brats21_test.txt"))


class TestBrats21:
    @pytest.fixture
    def root(self, tmp_path):
        return make_brats21(tmp_path / "BraTS2021")

    def test_divides_by_the_published_lists(self, root):
        split = brats21_cases(root)
        assert names(split["test"]) == [f"BraTS2021_{number}" for number in BRATS21_TEST]
        assert names(split["training"] + split["validation"]) == [f"BraTS2021_{number}" for number in BRATS21_TRAIN_VAL]
        assert len(split["validation"]) == 1

    def test_cases_that_are_not_there_are_counted(self, root):
        with pytest.warns(UserWarning, match="holds 8 of the 1251 published cases of BraTS 2021"):
            brats21_cases(root)

    def test_channels_in_order(self, root):
        for case in everyone(brats21_cases(root)):
            name = case["case"]
            assert [path.name for path in files_of(case)] == [
                f"{name}_{suffix}.nii.gz" for suffix in ("t1", "t1ce", "t2", "flair", "seg")
            ]
            assert all(path.is_file() for path in files_of(case))

    def test_does_not_depend_on_the_order_of_the_file_system(self, root, monkeypatch):
        expected = brats21_cases(root)
        reverse_file_system(monkeypatch)
        assert brats21_cases(root) == expected

    def test_missing_folder(self, tmp_path):
        assert "brats2021" in message(brats21_cases, tmp_path / "nowhere")

    def test_other_folder(self, root):
        text = message(brats21_cases, root.parent)
        assert "0 cases matched BraTS2021_*/BraTS2021_*_{t1,t1ce,t2,flair,seg}.nii.gz" in text
        assert "which holds BraTS2021/" in text

    @pytest.mark.parametrize("suffix", ["t2", "seg"])
    def test_half_extracted(self, root, suffix):
        gone = root / "BraTS2021_00005" / f"BraTS2021_00005_{suffix}.nii.gz"
        gone.unlink()
        text = message(brats21_cases, root)
        assert text.startswith(f"Case 'BraTS2021_00005' has no '{gone}' (7 cases matched")

    def test_an_empty_case_folder(self, root):
        (root / "BraTS2021_00012").mkdir()
        assert "Case 'BraTS2021_00012' has no" in message(brats21_cases, root)

    def test_case_in_no_list(self, root):
        folder = shutil.copytree(root / "BraTS2021_00000", root / "BraTS2021_00001")
        for path in list(folder.iterdir()):
            path.rename(folder / path.name.replace("00000", "00001"))
        assert "Case 'BraTS2021_00001'" in message(brats21_cases, root)

    def test_no_test_case(self, root):
        for number in BRATS21_TEST:
            shutil.rmtree(root / f"BraTS2021_{number}")
        assert "The test part of the split is empty" in message(brats21_cases, root)


class TestBrats18:
    @pytest.fixture(params=[make_brats18, make_brats18_flat], ids=["download", "flat"])
    def root(self, request, tmp_path):
        return request.param(tmp_path / "BraTS2018", num_cases=11)

    def test_every_case_is_tested_once(self, root):
        tested = [case for fold in range(5) for case in brats18_cases(root, fold=fold)["test"]]
        assert len(tested) == 11
        assert names(tested) == names(everyone(brats18_cases(root)))

    def test_does_not_depend_on_the_order_of_the_file_system(self, root, monkeypatch):
        expected = brats18_cases(root, fold=3)
        reverse_file_system(monkeypatch)
        assert brats18_cases(root, fold=3) == expected

    def test_files_exist(self, root):
        for case in everyone(brats18_cases(root)):
            assert len(files_of(case)) == 5
            assert all(path.is_file() for path in files_of(case))

    def test_half_extracted(self, root):
        victim = brats18_cases(root)["test"][0]
        gone = files_of(victim)[2]
        gone.unlink()
        assert message(brats18_cases, root).startswith(f"Case '{victim['case']}' has no '{gone}' (10 cases matched")

    def test_case_without_label(self, root):
        victim = brats18_cases(root)["training"][0]
        files_of(victim)[-1].unlink()
        assert message(brats18_cases, root).startswith(f"Case '{victim['case']}' has no '{victim['label']}'")

    def test_no_such_fold(self, root):
        assert message(brats18_cases, root, fold=5) == "fold is 5: give a whole number from 0 to 4."

    def test_other_folder(self, root):
        text = message(brats18_cases, root.parent)
        assert "0 cases matched {HGG,LGG}/Brats18_*" in text
        assert "case_*/FLAIR_2mm.nii.gz" in text
        assert "which holds BraTS2018/" in text
        assert "brats2018" in text


@pytest.mark.parametrize("grade", ["HGG", "LGG"])
def test_a_grade_that_is_not_there(tmp_path, grade):
    """Folds of one grade alone are not those of the published work."""
    shutil.rmtree(make_brats18(tmp_path) / grade)
    assert f"0 cases matched {grade}/Brats18_*/Brats18_*_flair.nii.gz" in message(brats18_cases, tmp_path)


def test_channels_and_names_of_the_download(tmp_path):
    cases = everyone(brats18_cases(make_brats18(tmp_path)))
    assert {path.parent.parent.name for case in cases for path in files_of(case)} == {"HGG", "LGG"}
    for case in cases:
        assert [path.name for path in files_of(case)] == [
            f"{case['case']}_{suffix}.nii.gz" for suffix in ("flair", "t1", "t1ce", "t2", "seg")
        ]


def test_channels_and_names_of_the_flat_form(tmp_path):
    cases = everyone(brats18_cases(make_brats18_flat(tmp_path)))
    assert names(cases) == [f"case_{i}" for i in range(7)]
    for case in cases:
        assert [path.name for path in files_of(case)] == [
            f"{name}_2mm.nii.gz" for name in ("FLAIR", "T1", "T1_CE", "T2", "GT_W")
        ]
