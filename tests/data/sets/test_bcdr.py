import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.layouts import everyone, message, names, reverse_file_system
from tests.data.layouts_2d import BCDR_COLUMNS, make_bcdr, read_table, write_bcdr_table, write_table

from medcalib.data import bcdr_cases, split_digest
from medcalib.errors import UserError
from medcalib.transforms import LoadPictured

TABLE = "BCDR-D01_dataset/bcdr_d01_outlines.csv"


@pytest.fixture
def root(tmp_path):
    return make_bcdr(tmp_path / "bcdr")


@pytest.fixture
def by_name(root):
    return {case["case"]: case for case in everyone(bcdr_cases(root))}


def change(path, function):
    """Change the rows of a table, given as dictionaries of column and value."""
    columns, rows = read_table(path)
    columns = [column.strip() for column in columns]
    changed = function([dict(zip(columns, row, strict=True)) for row in rows])
    write_table(path, columns, [[row[column] for column in columns] for row in changed])


def patient_of(case):
    return Path(case["image"]).parts[-3].removeprefix("patient_")


class TestCases:
    def test_every_mass_in_every_image_is_a_case(self, by_name):
        """24 images with a mass each, two of them with one more."""
        assert len(by_name) == 26
        assert "d01_img_3_5_1_LCC_lesion13" in by_name
        assert "d02_img_7_9_1_RCC_lesion18" in by_name

    def test_what_is_no_mass_is_left_out(self, by_name):
        assert not [name for name in by_name if name in ("d01_img_1_3_1_RCC_lesion13", "d02_img_7_9_1_RCC_lesion19")]

    @pytest.mark.parametrize("value", ["0", " 0", "0.0"])
    def test_however_the_table_says_so(self, root, value):
        def no_mass_in_patient_two(rows):
            return [row | {"mammography_nodule": value} if row["patient_id"].strip() == "2" else row for row in rows]

        change(root / TABLE, no_mass_in_patient_two)
        assert "2" not in {patient_of(case) for case in everyone(bcdr_cases(root))}

    def test_files_and_attributes(self, root, by_name):
        case = by_name["d01_img_2_4_1_LCC_lesion12"]
        folder = root / "BCDR-D01_dataset"
        assert case["image"] == str(folder / "patient_2/study_4/img_2_4_1_LCC.tif")
        assert case["label"] == str(folder / "bcdr_d01_outlines.csv")
        assert case["attributes"] == {"dataset": "d01", "classification": "benign"}

    def test_tables_without_further_columns_do(self, root):
        expected = names(everyone(bcdr_cases(root)))
        for table in root.glob("*/*.csv"):
            needed = [*BCDR_COLUMNS[:4], *BCDR_COLUMNS[6:9]]
            columns, rows = read_table(table)
            columns = [column.strip() for column in columns]
            mass = columns.index("mammography_nodule")
            kept = [[row[columns.index(column)] for column in needed] for row in rows if row[mass].strip() == "1"]
            write_table(table, needed, kept)
        cases = everyone(bcdr_cases(root))
        assert names(cases) == expected
        assert {case["attributes"]["classification"] for case in cases} == {"unknown"}

    def test_the_root_may_be_one_dataset(self, root):
        cases = everyone(bcdr_cases(root / "BCDR-D01_dataset"))
        assert {case["attributes"]["dataset"] for case in cases} == {"d01"}

    def test_a_dataset_one_folder_further_down(self, root):
        """As the third dataset of films comes."""
        expected = names(everyone(bcdr_cases(root)))
        inner = root / "BCDR-D02_dataset" / "BCDR-D02"
        inner.mkdir()
        for path in list(inner.parent.iterdir()):
            if path != inner:
                path.rename(inner / path.name)
        assert names(everyone(bcdr_cases(root))) == expected

    def test_a_lesion_outlined_twice_is_two_cases(self, root):
        def outlined_again(rows):
            again = rows[4] | {"lw_x_points": " 60 80 70", "lw_y_points": " 60 60 80"}
            return [*rows, again]

        expected = names(everyone(bcdr_cases(root)))
        change(root / TABLE, outlined_again)
        added = set(names(everyone(bcdr_cases(root)))) - set(expected)
        assert len(added) == 1
        assert added.pop().endswith("_2")

    def test_a_row_that_comes_again_is_one_case(self, root):
        expected = names(everyone(bcdr_cases(root)))
        change(root / TABLE, lambda rows: [*rows, rows[3]])
        assert names(everyone(bcdr_cases(root))) == expected

    def test_a_dataset_that_shares_images_with_another(self, root):
        """What is the same in both is listed once; the same outline in another image is another lesion."""
        expected = names(everyone(bcdr_cases(root)))
        copy = shutil.copytree(root / "BCDR-D01_dataset", root / "BCDR-F03_dataset")
        (copy / "bcdr_d01_outlines.csv").rename(copy / "bcdr_f03_outlines.csv")
        assert names(everyone(bcdr_cases(root))) == expected
        image = copy / "patient_2/study_4/img_2_4_1_LCC.tif"
        shutil.copy(root / "BCDR-D02_dataset/patient_8/study_10/img_8_10_1_LCC.tif", image)
        added = set(names(everyone(bcdr_cases(root)))) - set(expected)
        assert added == {"f03_img_2_4_1_LCC_lesion12"}


class TestCrop:
    def test_a_lesion_takes_half_of_its_side(self, by_name):
        for case in by_name.values():
            left, top, width, height = case["crop"]
            corners = np.array([corner.split(",") for corner in case["outline"].split()], int)
            extent = corners.max(0) - corners.min(0) + 1
            assert width == height == 2 * extent.max()
            middle = (corners.max(0) + corners.min(0) + 1) / 2
            assert np.all(np.abs(middle - (left + width / 2, top + height / 2)) <= 1)

    def test_the_margin_is_an_option(self, root):
        case, wider = (everyone(bcdr_cases(root, margin=margin))[0] for margin in (1.0, 3))
        assert wider["crop"][2] == 3 * case["crop"][2]

    def test_labels_lie_on_the_lesions(self, by_name):
        """Masses are brighter than what is around them; the second one of an image reaches into its corner."""
        load = LoadPictured(num_channels=1)
        borders = 0
        for case in by_name.values():
            loaded = load(case)
            image, label = loaded["image"], loaded["label"]
            assert image.shape == label.shape == (1, *case["crop"][2:])
            inside = label.bool()
            assert 0.1 < inside.float().mean() < 0.3
            outside = ~inside & (image > 0)
            assert image[inside].mean() > image[outside].mean() + 50
            borders += bool((image == 0).any())
        assert borders == 2


class TestSplit:
    def test_a_patient_is_in_one_part_only(self, root):
        for seed in range(5):
            split = bcdr_cases(root, seed=seed)
            groups = [{patient_of(case) for case in split[part]} for part in ("training", "validation", "test")]
            assert len(set.union(*groups)) == sum(map(len, groups)) == 12

    def test_60_20_20_of_the_patients(self, tmp_path):
        split = bcdr_cases(make_bcdr(tmp_path, datasets=("D01",), patients_each=20))
        parts = ("training", "validation", "test")
        assert [len({patient_of(case) for case in split[part]}) for part in parts] == [12, 4, 4]

    def test_a_patient_of_two_datasets_is_in_one_part_only(self, root):
        def renumbered(rows):
            return [row | {"patient_id": str(int(row["patient_id"]) - 6)} for row in rows]

        change(root / "BCDR-D02_dataset/bcdr_d02_outlines.csv", renumbered)
        for seed in range(5):
            split = bcdr_cases(root, seed=seed)
            patients = [
                {(int(patient_of(case)) - 1) % 6 for case in split[part]} for part in ("training", "validation", "test")
            ]
            assert sum(map(len, patients)) == 6

    def test_does_not_depend_on_the_order_of_the_file_system(self, root, monkeypatch):
        expected = bcdr_cases(root)
        reverse_file_system(monkeypatch)
        assert bcdr_cases(root) == expected
        assert split_digest(bcdr_cases(root, seed=1)) != split_digest(expected)


class TestErrors:
    def test_missing_folder(self, tmp_path):
        assert "bcdr.eu" in message(bcdr_cases, tmp_path / "nowhere")

    def test_other_folder(self, tmp_path):
        (tmp_path / "imagesTr").mkdir()
        text = message(bcdr_cases, tmp_path)
        assert "0 cases matched BCDR-*_dataset/bcdr_*_outlines.csv" in text
        assert "which holds imagesTr/" in text

    @pytest.mark.parametrize("column", ["patient_id", "lesion_id", "image_filename", "lw_x_points", "lw_y_points"])
    def test_missing_column(self, root, column):
        table = root / TABLE
        table.write_text(table.read_text().replace(column, "other"))
        text = message(bcdr_cases, root)
        assert text.startswith(f"'{table}' lacks the column '{column}', it has ")

    def test_empty_table(self, root):
        (root / TABLE).write_text("")
        assert "lacks the column 'patient_id', it has none" in message(bcdr_cases, root)

    def test_missing_image(self, root):
        image = root / "BCDR-D01_dataset/patient_3/study_5/img_3_5_1_LCC.tif"
        image.unlink()
        text = message(bcdr_cases, root)
        assert text.startswith(f"Case 'd01_img_3_5_1_LCC_lesion13' has no '{image}' (25 cases matched")

    def test_table_cut_short(self, root):
        table = root / TABLE
        lines = table.read_text().splitlines()
        table.write_text("\n".join([*lines[:6], lines[6][:30]]))
        text = message(bcdr_cases, root)
        assert text.startswith(f"Row 6 of '{table}' has no value in the column '")
        assert "cut short" in text

    @pytest.mark.parametrize(
        ("xs", "ys", "count"),
        [
            ("1 2 3", "1 2", "has 3 value(s) in 'lw_x_points' and 2 in 'lw_y_points'"),
            ("1 2", "1 2", "has 2 value(s)"),
            ("1 2 x", "1 2 3", ""),
            ("1 2 nan", "1 2 3", ""),
            ("1 2 inf", "1 2 3", ""),
        ],
    )
    def test_an_outline_that_is_no_polygon(self, root, xs, ys, count):
        change(root / TABLE, lambda rows: [rows[0] | {"lw_x_points": xs, "lw_y_points": ys}, *rows[1:]])
        text = message(bcdr_cases, root)
        assert text.startswith("Case 'd01_img_1_3_1_RCC_lesion11': its row in '")
        assert count in text
        assert "at least three numbers" in text

    def test_too_few_patients(self, tmp_path):
        text = message(bcdr_cases, make_bcdr(tmp_path, datasets=("D01",), patients_each=1))
        assert "1 case(s) or group(s) of cases cannot be divided" in text

    def test_tables_without_a_mass(self, root):
        (tables := sorted(root.glob("*/bcdr_*.csv")))[0].write_text(tables[0].read_text().splitlines()[0])
        change(tables[1], lambda rows: [row | {"mammography_nodule": "0"} for row in rows])
        assert message(bcdr_cases, root).startswith(f"0 masses are listed in '{tables[0]}' and 1 more: take the tables")

    @pytest.mark.parametrize("fraction", [0, 1, 1.5, "0.2", True])
    @pytest.mark.parametrize("name", ["validation_fraction", "test_fraction"])
    def test_unusable_fraction(self, root, name, fraction):
        assert message(bcdr_cases, root, **{name: fraction}).startswith(f"{name} is {fraction!r}: give a number")

    def test_fractions_that_leave_nothing_for_training(self, root):
        text = message(bcdr_cases, root, validation_fraction=0.3, test_fraction=0.7)
        assert text.startswith("validation_fraction and test_fraction are 0.3 and 0.7: let their sum be below 1")

    @pytest.mark.parametrize("margin", [0.5, "2", True, float("nan")])
    def test_unusable_margin(self, root, margin):
        assert message(bcdr_cases, root, margin=margin).startswith(f"margin is {margin!r}")

    def test_images_of_another_size_than_the_table_says(self, root):
        """Such as those that someone scaled down."""
        rows = [[1, 3, 1, 1, 0, 1, "patient_1/study_3/img_1_3_1_RCC.tif", [900, 950, 930], [800, 800, 880]]]
        rows += [[2, 4, 1, 1, 1, 1, "patient_2/study_4/img_2_4_1_RCC.tif", [9, 50, 30], [8, 8, 40]]]
        rows += [[3, 5, 1, 1, 2, 1, "patient_3/study_5/img_3_5_1_RCC.tif", [9, 50, 30], [8, 8, 40]]]
        write_bcdr_table(root / TABLE, rows, BCDR_COLUMNS[:9])
        wrong = next(case for case in everyone(bcdr_cases(root)) if "img_1_" in case["case"])
        with pytest.raises(UserError, match="the middle of its crop.*160 x 120 pixels"):
            LoadPictured()(wrong)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_that_excel_saved(root, encoding):
    expected = bcdr_cases(root)
    for table in root.glob("*/bcdr_*.csv"):
        table.write_bytes(table.read_text().replace(",", ";").encode(encoding))
    assert bcdr_cases(root) == expected
