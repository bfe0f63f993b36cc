import json
import shutil

import pytest
from tests.data.layouts import (
    MNMS_TABLE,
    everyone,
    files_of,
    make_mnms,
    make_mnms_frames,
    message,
    names,
    reverse_file_system,
)

from medcalib.data import mnms_cases


@pytest.fixture
def download(tmp_path):
    return make_mnms(tmp_path / "OpenDataset")


@pytest.fixture(params=[make_mnms, make_mnms_frames], ids=["download", "frames"])
def root(request, tmp_path):
    return request.param(tmp_path / "data" / "MnMs")


def test_ed_and_es_of_every_labelled_subject(root):
    split = mnms_cases(root)
    assert names(split["training"]) == ["A0S9V9_ed", "A0S9V9_es", "B3F0V9_ed", "B3F0V9_es", "C4S8W9_ed", "C4S8W9_es"]
    assert names(split["validation"]) == ["E3L8U8_ed", "E3L8U8_es", "F0K4T6_ed", "F0K4T6_es"]
    assert names(split["test"]) == ["G7N8R7_ed", "G7N8R7_es", "H1M5Y6_ed", "H1M5Y6_es"]
    assert all(path.is_file() for case in everyone(split) for path in files_of(case))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_table_that_excel_saved(root, encoding):
    expected = mnms_cases(root)
    table = next(root.parent.rglob("*.csv"))
    table.write_bytes(table.read_text().replace(",", ";").replace("Siemens", "Siemens Köln").encode(encoding))
    split = mnms_cases(root)
    assert [case["case"] for case in everyone(split)] == [case["case"] for case in everyone(expected)]
    assert "Siemens Köln" in {case["attributes"]["vendor"] for case in everyone(split)}


def test_vendor_and_centre_stay_with_the_case(root):
    attributes = {case["case"]: case["attributes"] for case in everyone(mnms_cases(root))}
    assert attributes["A0S9V9_ed"] == attributes["A0S9V9_es"] == {"vendor": "Siemens", "centre": "1"}
    assert attributes["F0K4T6_es"] == {"vendor": "Philips", "centre": "3"}
    assert attributes["G7N8R7_ed"] == {"vendor": "Canon", "centre": "5"}


def test_frames_of_4d_files(download):
    cases = {case["case"]: case for case in everyone(mnms_cases(download))}
    for phase, frame in (("ed", 1), ("es", 3)):
        case = cases[f"B3F0V9_{phase}"]
        assert case["frame"] == frame
        assert [path.name for path in files_of(case)] == ["B3F0V9_sa.nii.gz", "B3F0V9_sa_gt.nii.gz"]


def test_frames_in_files_of_their_own(tmp_path):
    for case in everyone(mnms_cases(make_mnms_frames(tmp_path / "data" / "MnMs"))):
        assert "frame" not in case
        assert [path.name for path in files_of(case)] == [f"{case['case']}.nii.gz", f"{case['case']}_gt.nii.gz"]


def test_a_split_can_be_written_down(root):
    split = mnms_cases(root)
    assert json.loads(json.dumps(split)) == split


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = mnms_cases(root)
    reverse_file_system(monkeypatch)
    assert mnms_cases(root) == expected


def test_frames_written_as_decimals(download):
    table = download / MNMS_TABLE
    table.write_text(table.read_text().replace(",A0S9V9,Siemens,A,1,0,2,", ",A0S9V9,Siemens,A,1,0.0,2.0,"))
    frames = {case["case"]: case["frame"] for case in everyone(mnms_cases(download))}
    assert (frames["A0S9V9_ed"], frames["A0S9V9_es"]) == (0, 2)


class TestErrors:
    def test_missing_folder(self, tmp_path):
        text = message(mnms_cases, tmp_path / "nowhere")
        assert "Training, Validation and Testing" in text
        assert "ub.edu/mnms" in text

    def test_other_folder(self, download):
        text = message(mnms_cases, download.parent)
        assert "0 cases matched Training/<code>/<code>_{sa,ed,es}.nii.gz" in text
        assert "which holds OpenDataset/" in text

    def test_no_labelled_subjects(self, download):
        shutil.rmtree(download / "Training" / "Labeled")
        assert "0 cases matched Training/<code>" in message(mnms_cases, download)

    def test_no_testing_folder(self, download):
        shutil.rmtree(download / "Testing")
        assert "0 cases matched Testing/<code>" in message(mnms_cases, download)

    def test_no_table(self, download):
        (download / MNMS_TABLE).unlink()
        text = message(mnms_cases, download)
        assert f"No file matched *M&Ms*.csv in '{download}' or its parent" in text

    @pytest.mark.parametrize("column", ["External code", "VendorName", "Vendor", "Centre", "ED", "ES"])
    def test_table_without_a_column(self, download, column):
        table = download / MNMS_TABLE
        header, rest = table.read_text().split("\n", 1)
        table.write_text(
            "\n".join([",".join(f"{name}?" if name == column else name for name in header.split(",")), rest])
        )
        text = message(mnms_cases, download)
        assert text.startswith(f"'{table}' lacks the column '{column}', it has ")
        assert f"{column}?" in text

    def test_empty_table(self, download):
        (download / MNMS_TABLE).write_text("")
        assert "lacks the column 'External code', it has none" in message(mnms_cases, download)

    def test_subject_without_a_row(self, download):
        table = download / MNMS_TABLE
        table.write_text(table.read_text().replace(",E3L8U8,", ",E3L8U9,"))
        assert message(mnms_cases, download).startswith(f"'{table}' has no row for 'E3L8U8'")

    @pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "nan"])
    def test_frame_that_is_no_number(self, download, value):
        table = download / MNMS_TABLE
        table.write_text(table.read_text().replace(",A0S9V9,Siemens,A,1,0,", f",A0S9V9,Siemens,A,1,{value},"))
        assert message(mnms_cases, download).startswith(f"'{table}' says {value!r} in the column 'ED' of 'A0S9V9'")

    @pytest.mark.parametrize(("column", "value"), [("VendorName", "Siemens"), ("Centre", "1")])
    @pytest.mark.parametrize("blank", ["", "  "])
    def test_subject_without_vendor_or_centre(self, root, column, value, blank):
        table = next(path for folder in (root, root.parent) for path in folder.glob("*.csv"))
        lines = table.read_text().splitlines()
        place = lines[0].split(",").index(column)
        for number, line in enumerate(lines):
            cells = line.split(",")
            if cells[1] == "A0S9V9":
                assert cells[place] == value
                cells[place] = blank
                lines[number] = ",".join(cells)
        table.write_text("\n".join(lines))
        assert message(mnms_cases, root) == f"'{table}' has no value in the column '{column}' of 'A0S9V9': add it."

    def test_a_row_that_is_cut_short(self, root):
        table = next(path for folder in (root, root.parent) for path in folder.glob("*.csv"))
        lines = table.read_text().splitlines()
        table.write_text("\n".join([lines[0], *(",".join(line.split(",")[:4]) for line in lines[1:])]))
        assert "has no value in the column 'Centre' of" in message(mnms_cases, root)

    @pytest.mark.parametrize("number", [0, 1])
    def test_half_extracted(self, root, number):
        victim = mnms_cases(root)["validation"][0]
        gone = files_of(victim)[number]
        gone.unlink()
        assert message(mnms_cases, root).startswith(f"Case 'E3L8U8_ed' has no '{gone}'")
