import pytest
from tests.data.layouts import message

from medcalib.data import split_cases
from medcalib.data.dataset_folders import Download, describe_contents, incomplete_cases, make_case, visible

DOWNLOAD = Download("the folder that holds scans", "the data can be had from https://example.org")


def test_hidden_entries_are_not_seen(tmp_path):
    for name in ("b", "a", ".c", "._a"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path, "*")] == ["a", "b"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "nothing"), (2, "f0, f1"), (5, "f0, f1, f2, f3, f4"), (6, "f0, f1, f2, f3, f4 and 1 more")]
)
def test_contents_are_described_in_short(tmp_path, count, text):
    for number in range(count):
        (tmp_path / f"f{number}").touch()
    (tmp_path / ".hidden").touch()
    assert describe_contents(tmp_path) == text


def test_the_nearest_of_many_names_come_first(tmp_path):
    for name in ("SCAN_1.nii.gz", "scan2.nii", *(f"f{number}" for number in range(9))):
        (tmp_path / name).touch()
    text = message(DOWNLOAD.complete, [], tmp_path, "scan_*.nii.gz with seg_*.nii.gz")
    assert f"in '{tmp_path}', which holds SCAN_1.nii.gz, scan2.nii, f0, f1, f2 and 6 more: set" in text


def test_a_folder_with_a_space_is_followed(tmp_path):
    (tmp_path / "my scans").mkdir()
    (tmp_path / "my scans" / "a.nii").touch()
    assert "whose my scans/ holds a.nii:" in message(DOWNLOAD.complete, [], tmp_path, "my scans/*.nii.gz")


@pytest.mark.parametrize(
    ("name", "why"),
    [("..", "not of dots alone"), ("a/b", "without /"), ("x" * 161, "takes 161 bytes"), ("ü" * 81, "takes 162 bytes"),
     ("a\nb", "cannot be printed"), ("k\udcfc", "is no UTF-8"), (" ", "not of dots alone")],
)  # fmt: skip
def test_names_that_no_folder_of_results_can_have(tmp_path, name, why):
    text = message(DOWNLOAD.complete, [make_case(name, tmp_path / "i", tmp_path / "l")], tmp_path, "*")
    assert why in text
    text.encode()  # whatever the name, the message can be written to a file
    with incomplete_cases():  # a check of the data, which lists all that is wrong, stops there, too
        assert why in message(DOWNLOAD.complete, [make_case(name, tmp_path / "i", tmp_path / "l")], tmp_path, "*")
    assert why in message(split_cases, [make_case(c, tmp_path, tmp_path) for c in (name, *"abcdefghi")])


def test_folders_are_told_from_files(tmp_path):
    (tmp_path / "a").mkdir()
    assert describe_contents(tmp_path) == "a/"


def test_root_of_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scans").mkdir()
    assert DOWNLOAD.root("~/scans") == tmp_path / "scans"


def test_a_file_is_no_root(tmp_path):
    archive = tmp_path / "scans.zip"
    archive.touch()
    assert message(DOWNLOAD.root, archive).startswith(
        f"'{archive}' is a file: extract it if it is an archive, and set data::dataset_dir to the folder that holds"
    )


def test_complete_cases_come_sorted(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.touch()
    cases = [make_case(name, paths[:1], paths[1]) for name in ("z", "y")]
    assert [case["case"] for case in DOWNLOAD.complete(cases, tmp_path, "*")] == ["y", "z"]


def test_incomplete_cases_are_counted_and_the_first_is_named(tmp_path):
    (tmp_path / "a").touch()
    complete = make_case("x", tmp_path / "a", tmp_path / "a")
    lacking = [make_case(name, [tmp_path / "a", tmp_path / "b"], tmp_path / "a") for name in ("z", "y")]
    text = message(DOWNLOAD.complete, [*lacking, complete], tmp_path, "scans/*")
    assert text.startswith(f"Case 'y' has no '{tmp_path / 'b'}' (1 cases matched scans/*, 2 did not)")
    assert "https://example.org" in text


def test_no_case_at_all(tmp_path):
    text = message(DOWNLOAD.complete, [], tmp_path, "scans/*")
    assert text.startswith(
        f"0 cases matched scans/* in '{tmp_path}', which holds nothing: set data::dataset_dir to the"
    )


@pytest.mark.parametrize(
    ("pattern", "where"),
    [
        ("Tr/images/*.nii.gz", "whose Tr/images/ holds a.nii:"),
        ("Tr/images/*.nii.gz with Tr/labels/*.nii.gz", "whose Tr/images/ holds a.nii:"),
        ("Tr/labels/*.nii.gz", "whose Tr/ holds images/:"),
        ("*/images/*.nii.gz", "which holds Tr/:"),
        ("{Tr,Va}/images/*.nii.gz", "which holds Tr/:"),
        ("Va/images/*.nii.gz", "which holds Tr/:"),
    ],
)
def test_how_far_the_layout_is_the_one_that_was_looked_for(tmp_path, pattern, where):
    (tmp_path / "Tr" / "images").mkdir(parents=True)
    (tmp_path / "Tr" / "images" / "a.nii").touch()
    assert f"0 cases matched {pattern} in '{tmp_path}', {where} " in message(DOWNLOAD.complete, [], tmp_path, pattern)


@pytest.mark.parametrize(("wanted", "there"), [("b.nii.gz", "b.nii"), ("b.nii", "b.nii.gz"), ("b.nii.gz", "b.nii.gz")])
def test_a_file_that_is_packed_otherwise_is_taken(tmp_path, wanted, there):
    (tmp_path / there).touch()
    case = make_case("x", [tmp_path / wanted, tmp_path / there], tmp_path / wanted)
    assert case["image"] == [str(tmp_path / there)] * 2
    assert DOWNLOAD.complete([case], tmp_path, "*") == [case]


@pytest.mark.parametrize(("wanted", "there"), [("b.nii.gz", "c.nii"), ("b.png", "b.png.gz"), ("b.gz", "b")])
def test_another_file_is_not(tmp_path, wanted, there):
    (tmp_path / there).touch()
    case = make_case("x", tmp_path / wanted, tmp_path / there)
    assert case["image"] == str(tmp_path / wanted)
    assert "extract or download it, or remove" in message(DOWNLOAD.complete, [case], tmp_path, "*")


def test_the_file_of_the_name_comes_first(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).touch()
        assert make_case("x", tmp_path / name, tmp_path / name)["label"] == str(tmp_path / name)
