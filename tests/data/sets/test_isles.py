import re
import shutil

import pytest
from tests.data.layouts import everyone, files_of, make_isles, make_isles_flat, message, names, reverse_file_system

from medcalib.data import isles_cases
from medcalib.data.dataset_folders import incomplete_cases

pytestmark = pytest.mark.filterwarnings("ignore:.*which of the .* cases are slabs of one patient")
CHANNELS = ("CT", "CT_Tmax", "CT_MTT", "CT_CBF", "CT_CBV", "OT")


@pytest.fixture(params=[make_isles, make_isles_flat], ids=["download", "flat"])
def root(request, tmp_path):
    return request.param(tmp_path / "ISLES2018", num_cases=11)


def test_every_case_is_tested_once(root):
    tested = [case for fold in range(5) for case in isles_cases(root, fold=fold)["test"]]
    assert len(tested) == 11
    assert set(names(tested)) >= set(names(everyone(isles_cases(root))))


def number(case):
    return int(case["case"].removeprefix("case_"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fold", range(5))
def test_neighbours_are_never_on_two_sides(tmp_path, fold, seed):
    """Slabs of one patient have consecutive numbers, in the download of 94 cases of 63 patients."""
    for index in range(1, 95):
        (tmp_path / "TRAINING" / f"case_{index}").mkdir(parents=True)
    with incomplete_cases():
        split = isles_cases(tmp_path, fold, seed=seed)
    sides = {part: {number(case) for case in split[part]} for part in ("training", "validation", "test")}
    assert len(sides["test"]) in (18, 19)
    assert len(sides["validation"]) in (7, 8)
    assert sum(map(len, sides.values())) >= 94 - 3
    for part, numbers in sides.items():
        others = set().union(*(found for name, found in sides.items() if name != part))
        assert not {n + step for n in numbers for step in (-1, 1)} & others


def test_seeds_and_folds_differ(root):
    tests = [tuple(names(isles_cases(root, seed=seed)["test"])) for seed in range(6)]
    assert len(set(tests)) > 1


def test_that_patients_are_unknown_is_said(root):
    with pytest.warns(UserWarning, match="which of the 11 cases are slabs of one patient") as caught:
        split = isles_cases(root)
    left_out = 11 - len(everyone(split))
    assert 0 < left_out <= 3
    assert f"{left_out} case(s)" in str(caught[0].message)
    assert "data::cases::patients" in str(caught[0].message)


class TestPatients:
    """Three slabs of the first patient, two of the second, and so on, in no order."""

    PATIENTS = (0, 1, 0, 2, 0, 1, 3, 4, 5, 3, 6)

    @pytest.fixture
    def table(self, root):
        cases = [
            f"case_{n}" for n in range(12) if (root / f"case_{n}").is_dir() or (root / f"TRAINING/case_{n}").is_dir()
        ]
        letters = [
            f"Train_{patient}" + "_" + "ABC"[self.PATIENTS[:n].count(patient)]
            for n, patient in enumerate(self.PATIENTS)
        ]
        rows = [f"{case},{letter}" for case, letter in zip(cases, letters, strict=True)]
        path = root / "patients.csv"
        path.write_text("\n".join(["case,patient", *rows]) + "\n", encoding="utf-8-sig")
        self.patient = {row.split(",")[0]: row.split(",")[1][:-2] for row in rows}
        return path

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("fold", range(5))
    def test_no_patient_is_on_two_sides(self, root, table, fold):
        for path in (table, table.name, str(table)):
            split = isles_cases(root, fold, patients=path)
            sides = [
                {self.patient[case["case"]] for case in split[part]} for part in ("training", "validation", "test")
            ]
            assert sum(map(len, sides)) == 7
            assert len(everyone(split)) == 11

    def test_a_case_that_the_list_lacks(self, root, table):
        lines = table.read_text(encoding="utf-8-sig").splitlines()
        table.write_text("\n".join(lines[:-1]) + "\n")
        lacking = lines[-1].split(",")[0]
        assert re.match(
            f"'.*patients.csv' has no patient for case '{lacking}'", message(isles_cases, root, patients=table)
        )

    @pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_as_windows_writes_it(self, root, table, encoding, delimiter):
        expected = isles_cases(root, patients=table)
        rows = table.read_text(encoding="utf-8-sig").splitlines()
        text = "\r\n".join(f"{row},größe".replace(",", delimiter) for row in rows)
        table.write_bytes(text.encode(encoding))
        assert isles_cases(root, patients=table) == expected

    def test_other_columns(self, root, table):
        table.write_text("scan;patient\ncase_1;1\n")
        assert "lacks the column 'case'" in message(isles_cases, root, patients=table)

    def test_no_such_list(self, root):
        text = message(isles_cases, root, patients="elsewhere.csv")
        assert "elsewhere.csv' does not exist" in text
        assert "data::cases::patients" in text

    def test_one_case_twice(self, root, table):
        table.write_text(table.read_text(encoding="utf-8-sig") + "case_1,Train_9\n")
        assert "has two rows for 'case_1'" in message(isles_cases, root, patients=table)


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = isles_cases(root, fold=1)
    reverse_file_system(monkeypatch)
    assert isles_cases(root, fold=1) == expected


def test_files_exist(root):
    for case in everyone(isles_cases(root)):
        assert len(files_of(case)) == 6
        assert all(path.is_file() for path in files_of(case))


def test_channels_and_names_of_the_download(tmp_path):
    make_isles(tmp_path)
    cases = [case for fold in range(5) for case in isles_cases(tmp_path, fold)["test"]]
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
