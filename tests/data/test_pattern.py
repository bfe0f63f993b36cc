import json
import os

import pytest
from tests.data.layouts import everyone, message, names, reverse_file_system
from tests.data.layouts_2d import read_table, write_table

from medcalib.data import pattern_cases, split_digest

COLUMNS = ("case", "patient", "vendor", "diagnosis")
PLAIN = {"image": "images/{case}.png", "label": "masks/{case}_mask.png"}
GROUPED = PLAIN | {"table": "cases.csv", "group": "patient"}
IDS = ["007", "a b", "a.b", "a_mask", *(f"c{number}" for number in range(16))]


@pytest.fixture
def root(tmp_path):
    for name in IDS:
        for path in (tmp_path / "images" / f"{name}.png", tmp_path / "masks" / f"{name}_mask.png"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    (tmp_path / "images" / "._007.png").touch()
    rows = [
        [name, f"p{place // 2}", "AB"[place % 2], ("benign", "malign")[place % 3 > 0]] for place, name in enumerate(IDS)
    ]
    write_table(tmp_path / "cases.csv", COLUMNS, rows)
    return tmp_path


def test_ids_and_files_are_as_on_disk(root):
    cases = everyone(pattern_cases(root, **PLAIN))
    assert names(cases) == sorted(IDS)
    for case in cases:
        assert case["image"] == str(root / "images" / f"{case['case']}.png")
        assert case["label"] == str(root / "masks" / f"{case['case']}_mask.png")
        assert "attributes" not in case


@pytest.mark.parametrize(("image", "label"), [("{case}.png", "{case}_mask.png"), ("{case}_image.png", "{case}.png")])
def test_image_and_label_in_one_folder(tmp_path, image, label):
    for number in range(5):
        for pattern in (image, label):
            (tmp_path / pattern.format(case=number)).touch()
    assert names(everyone(pattern_cases(tmp_path, image, label))) == list("01234")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{case}.png", "mask_{case}.png"),
        ("{case}_0000.png", "{case}.png"),
        ("{case}.png", "{case}.label.png"),
        ("x[1]_{case}.png", "x[1]_{case}_seg.png"),
    ],
)
def test_no_label_is_taken_for_an_image(tmp_path, image, label):
    """Wherever the id stands, and with signs that a shell would read otherwise."""
    for number in range(5):
        for pattern in (image, label):
            (tmp_path / pattern.format(case=number)).touch()
    cases = everyone(pattern_cases(tmp_path, image, label))
    assert names(cases) == list("01234")
    assert all(case["image"] == str(tmp_path / image.format(case=case["case"])) for case in cases)


@pytest.mark.parametrize("prefix", ["./", "{root}/", "{root}/./"])
def test_patterns_may_begin_at_the_folder_or_above(root, prefix):
    begin = prefix.format(root=root)
    options = {name: begin + pattern for name, pattern in PLAIN.items()}
    assert pattern_cases(root, **options) == pattern_cases(root, **PLAIN)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_table_of_windows(root, encoding):
    rows = [";".join(row) for row in [COLUMNS, *([name, f"p{name}", "Köln", "benign"] for name in IDS)]]
    (root / "cases.csv").write_bytes("\r\n".join(rows).encode(encoding))
    cases = everyone(pattern_cases(root, **PLAIN, table="cases.csv", attributes=["vendor"]))
    assert {case["attributes"]["vendor"] for case in cases} == {"Köln"}


def test_classes_that_are_numbers(root):
    write_table(root / "cases.csv", ["case", "grade"], [[name, str(place % 3)] for place, name in enumerate(IDS)])
    options = {"table": "cases.csv", "class_column": "grade"}
    numbers, texts = (pattern_cases(root, PLAIN["image"], **options, class_names=n) for n in ([0, 1, 2], list("012")))
    assert numbers == texts
    assert "lists 0, 1: correct" in message(pattern_cases, root, PLAIN["image"], **options, class_names=[0, 1])


def test_an_id_that_comes_twice_is_the_same_both_times(tmp_path):
    for folder, name in [*((f"s{n}", f"s{n}") for n in range(5)), ("s1", "s2"), ("s9", "x")]:
        for kind in ("t1", "t2", "seg"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{name}_{kind}.nii.gz").touch()
    channels = [f"{{case}}/{{case}}_{kind}.nii.gz" for kind in ("t1", "t2")]
    cases = everyone(pattern_cases(tmp_path, channels, "{case}/{case}_seg.nii.gz"))
    assert names(cases) == ["s0", "s1", "s2", "s3", "s4"]
    assert all(case["image"][1].endswith(f"{case['case']}_t2.nii.gz") for case in cases)


@pytest.mark.parametrize("fold", [None, 0, 1])
def test_groups_stay_together(root, fold):
    split = pattern_cases(root, **GROUPED, fold=fold, num_folds=3)
    patient = {row[0]: row[1] for row in read_table(root / "cases.csv")[1]}
    parts = [{patient[case["case"]] for case in split[part]} for part in ("training", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert all(parts)


def test_every_case_is_in_the_test_part_of_one_fold(root):
    tested = [case["case"] for fold in range(5) for case in pattern_cases(root, **PLAIN, fold=fold)["test"]]
    assert sorted(tested) == sorted(IDS)


def test_attributes(root):
    cases = everyone(pattern_cases(root, **PLAIN, table="cases.csv", attributes=["vendor", "diagnosis"]))
    found = {case["case"]: case["attributes"] for case in cases}
    assert found["007"] == {"vendor": "A", "diagnosis": "benign"}
    assert found["a b"] == {"vendor": "B", "diagnosis": "malign"}


def test_classes_of_whole_images(root):
    options = {"table": "cases.csv", "class_column": "diagnosis", "class_names": ["benign", "malign"]}
    cases = {case["case"]: case for case in everyone(pattern_cases(root, PLAIN["image"], **options))}
    assert cases.keys() == set(IDS)
    assert (cases["007"]["label"], cases["a b"]["label"]) == (0, 1)
    text = message(pattern_cases, root, PLAIN["image"], **options | {"class_names": ["benign"]})
    assert text.startswith("Case 'a b' is of the class 'malign' in the table, but data::class_names lists benign")


def test_fractions_and_seed(root):
    split = pattern_cases(root, **PLAIN, validation_fraction=0.25, test_fraction=0.5)
    assert [len(split[part]) for part in ("training", "validation", "test")] == [5, 5, 10]
    assert split_digest(split) != split_digest(
        pattern_cases(root, **PLAIN, validation_fraction=0.25, test_fraction=0.5, seed=1)
    )


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = pattern_cases(root, **GROUPED)
    assert json.loads(json.dumps(expected)) == expected
    reverse_file_system(monkeypatch)
    assert pattern_cases(root, **GROUPED) == expected


class TestErrors:
    def test_missing_folder(self, tmp_path):
        assert "does not exist: set data::dataset_dir" in message(pattern_cases, tmp_path / "nowhere", **PLAIN)

    def test_other_layout(self, root):
        text = message(pattern_cases, root, "images/{case}.tif", "masks/{case}.tif")
        assert text.startswith("0 cases matched images/*.tif with masks/*.tif")
        assert "whose images/ holds 007.png, a b.png" in text

    @pytest.mark.parametrize("gone", ["images/007.png", "masks/007_mask.png"])
    def test_half_a_case(self, root, gone):
        (root / gone).unlink()
        text = message(pattern_cases, root, **PLAIN)
        assert text.startswith(
            f"Case '007' has no '{root / gone}' (19 cases matched images/*.png with masks/*_mask.png"
        )

    def test_pattern_without_a_place_for_the_id(self, root):
        assert message(pattern_cases, root, "images/*.png", PLAIN["label"]).startswith(
            "The pattern 'images/*.png' in data::cases lacks {case}"
        )

    @pytest.mark.parametrize("sign", ["*", "?"])
    def test_wild_card(self, root, sign):
        text = message(pattern_cases, root, f"images/{{case}}{sign}.png", PLAIN["label"])
        assert text.startswith(
            f"The pattern 'images/{{case}}{sign}.png' in data::cases holds {sign}, which stands for nothing"
        )

    def test_pattern_elsewhere(self, root):
        text = message(pattern_cases, root, PLAIN["image"], "/elsewhere/{case}.png")
        assert text.startswith("The pattern '/elsewhere/{case}.png' in data::cases is not below the dataset folder")

    def test_image_and_label_are_the_same(self, root):
        assert "same pattern 'images/{case}.png'" in message(pattern_cases, root, PLAIN["image"], PLAIN["image"])

    def test_excel_dropped_the_zeros(self, root):
        rows = [[name.lstrip("0"), *rest] for name, *rest in read_table(root / "cases.csv")[1]]
        write_table(root / "cases.csv", COLUMNS, rows)
        assert "it has one for '7', since Excel drops leading zeros" in message(pattern_cases, root, **GROUPED)

    def test_name_that_is_no_utf8(self, root):
        name = os.fsdecode(b"k\xfc")
        for path in ("images/{}.png", "masks/{}_mask.png"):
            (root / path.format(name)).touch()
        text = message(pattern_cases, root, **PLAIN)
        assert text.startswith(f"A case in '{root}' is called 'k\\udcfc', which is no UTF-8")

    @pytest.mark.parametrize("more", [{}, {"label": "masks/{case}_mask.png", "class_column": "diagnosis"}])
    def test_neither_label_nor_class_or_both(self, root, more):
        assert "either a label" in message(pattern_cases, root, PLAIN["image"], table="cases.csv", **more)

    def test_column_without_table(self, root):
        text = message(pattern_cases, root, **PLAIN, group="patient")
        assert text == "data::cases names the column 'patient', but no table, the csv that has it."

    def test_missing_table(self, root):
        (root / "cases.csv").unlink()
        assert message(pattern_cases, root, **GROUPED).startswith(f"The table '{root / 'cases.csv'}' does not exist")

    @pytest.mark.parametrize("column", ["case", "patient"])
    def test_missing_column(self, root, column):
        write_table(root / "cases.csv", [f"{name}?" if name == column else name for name in COLUMNS], [])
        text = message(pattern_cases, root, **GROUPED)
        assert text.startswith(f"'{root / 'cases.csv'}' lacks the column '{column}', it has ")

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda rows: rows[1:], "has no row for case '007'"),
            (lambda rows: [*rows, rows[0]], "has two rows for '007'"),
            (
                lambda rows: [["007", " ", "A", "benign"], *rows[1:]],
                "has no value in the column 'patient' of case '007'",
            ),
            (lambda rows: [["007"], *rows[1:]], "has no value in the column 'patient' of case '007'"),
        ],
    )
    def test_rows_that_do_not_fit(self, root, change, expected):
        write_table(root / "cases.csv", COLUMNS, change(read_table(root / "cases.csv")[1]))
        assert message(pattern_cases, root, **GROUPED).startswith(f"'{root / 'cases.csv'}' {expected}")
