import shutil

import pytest
from tests.data.layouts import everyone, files_of, make_isles, make_isles_flat, message, names, reverse_file_system

from medcalib.data import isles_cases

CHANNELS = ("CT", "CT_Tmax", "CT_MTT", "CT_CBF", "CT_CBV", "OT")


@pytest.fixture(params=[make_isles, make_isles_flat], ids=["download", "flat"])
def root(request, tmp_path):
    return request.param(tmp_path / "ISLES2018", num_cases=11)


def test_every_case_is_tested_once(root):
    tested = [case for fold in range(5) for case in isles_cases(root, fold=fold)["test"]]
    assert len(tested) == 11
    assert names(tested) == names(everyone(isles_cases(root)))


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = isles_cases(root, fold=1)
    reverse_file_system(monkeypatch)
    assert isles_cases(root, fold=1) == expected


def test_files_exist(root):
    for case in everyone(isles_cases(root)):
        assert len(files_of(case)) == 6
        assert all(path.is_file() for path in files_of(case))


def test_channels_and_names_of_the_download(tmp_path):
    cases = everyone(isles_cases(make_isles(tmp_path)))
    assert names(cases) == [f"case_{i}" for i in range(1, 8)]
    for case in cases:
        for channel, path in zip(CHANNELS, files_of(case), strict=True):
            assert path.stem.startswith(f"SMIR.Brain.XX.O.{channel}.3")
            assert path.parent.name == path.stem
            assert path.parent.parent.name == case["case"]
            assert path.parent.parent.parent.name == "TRAINING"


def test_the_training_folder_itself(tmp_path):
    root = make_isles(tmp_path)
    assert isles_cases(root / "TRAINING") == isles_cases(root)


def test_channels_and_names_of_the_flat_form(tmp_path):
    for case in everyone(isles_cases(make_isles_flat(tmp_path))):
        assert [path.name for path in files_of(case)] == [f"{channel}_2mm.nii.gz" for channel in CHANNELS]


class TestErrors:
    def test_missing_folder(self, tmp_path):
        text = message(isles_cases, tmp_path / "nowhere")
        assert "TRAINING" in text
        assert "isles-challenge.org" in text

    def test_other_folder(self, root):
        text = message(isles_cases, root.parent)
        assert "0 cases matched TRAINING/case_*/SMIR.Brain.*" in text
        assert "which holds ISLES2018/" in text

    @pytest.mark.parametrize("number", [1, 5])
    def test_half_extracted(self, root, number):
        victim = isles_cases(root)["test"][0]
        files_of(victim)[number].unlink()
        text = message(isles_cases, root)
        assert text.startswith(f"Case '{victim['case']}' has no '")
        assert CHANNELS[number] in text
        assert "(10 cases matched" in text

    def test_two_files_for_one_channel(self, tmp_path):
        root = make_isles(tmp_path)
        folder = next(root.glob("TRAINING/case_3/SMIR.Brain.XX.O.CT_CBF.*"))
        twin = shutil.copytree(folder, folder.with_name("SMIR.Brain.XX.O.CT_CBF.999999"))
        (twin / f"{folder.name}.nii").rename(twin / "SMIR.Brain.XX.O.CT_CBF.999999.nii")
        text = message(isles_cases, root)
        assert text.startswith("Case 'case_3' has 2 files for CT_CBF")
        assert "999999" in text

    def test_no_such_fold(self, root):
        assert message(isles_cases, root, fold=-1) == "fold is -1: give a whole number from 0 to 4."
