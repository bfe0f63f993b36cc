import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold
from tests.data.layouts import everyone, message, names, reverse_file_system
from tests.data.layouts_2d import CRIC_CLASSES, CRIC_COLUMNS, make_cric, read_table, write_table

from medcalib.data import cric_cases, split_digest
from medcalib.transforms import LoadPictured

PARTS = ("training", "validation", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_cric(tmp_path_factory.mktemp("cric") / "cric", num_images=20)


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "cric")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The five splits of a table half as large as the real one, with its shares of classes and empty images."""
    root = tmp_path_factory.mktemp("cric")
    rng = np.random.default_rng(0)
    shares = np.array([6779, 606, 1360, 925, 1703, 161]) / 11534
    rows = []
    for number in range(200):
        mixture = rng.dirichlet(3 * shares)
        (root / f"{number}.png").touch()
        for index in rng.choice(6, rng.poisson(29), p=mixture):
            rows.append([number, f"{number}.png", "", len(rows), CRIC_CLASSES[index], 500, 500])
    write_table(root / "classifications.csv", CRIC_COLUMNS, rows)
    return [cric_cases(root, fold=fold) for fold in range(5)]


def change(root, function):
    table = root / "classifications.csv"
    columns, rows = read_table(table)
    changed = function([dict(zip(columns, row, strict=True)) for row in rows])
    write_table(table, list(changed[0]), [list(row.values()) for row in changed])


def images(cases):
    return {case["image"] for case in cases}


def bethesda(cases):
    return [case["attributes"]["bethesda"] for case in cases]


class TestCases:
    def test_every_cell_is_a_case(self, root):
        cases = everyone(cric_cases(root))
        assert names(cases) == [f"cell_{number}" for number in range(1000, 1160)]
        assert all(Path(case["image"]).is_file() for case in cases)
        assert all(type(case["label"]) is int for case in cases)

    @pytest.mark.parametrize("num_classes", [2, 6])
    def test_classes(self, root, num_classes):
        _, rows = read_table(root / "classifications.csv")
        class_of = {f"cell_{row[3]}": row[4] for row in rows}
        order = ("Negative for intraepithelial lesion", "ASC-US", "LSIL", "ASC-H", "HSIL", "SCC")
        for case in everyone(cric_cases(root, num_classes=num_classes)):
            index = order.index(class_of[case["case"]])
            assert case["label"] == (index if num_classes == 6 else int(index > 0))
            assert case["attributes"] == {"bethesda": "negative" if index == 0 else order[index]}

    def test_the_split_does_not_depend_on_the_number_of_classes(self, root):
        assert split_digest(cric_cases(root, num_classes=6)) == split_digest(cric_cases(root))

    def test_crops_are_around_the_nuclei(self, root):
        """A nucleus is the one dark thing in the middle of its crop, also in a corner of the image."""
        load = LoadPictured(num_channels=3)
        padded = 0
        for case in everyone(cric_cases(root))[:60]:
            loaded = load(case)
            assert loaded["image"].shape == (3, 100, 100)
            assert loaded["image"][0, 48:53, 48:53].max() < 130
            assert loaded["label"].tolist() == [case["label"]]
            padded += bool((loaded["image"] == 0).all(0).any())
        assert 0 < padded < 60

    def test_crop_size(self, root):
        assert all(case["crop"][2:] == [80, 80] for case in everyone(cric_cases(root, crop_size=80)))
        wide, narrow = (
            {case["case"]: case["crop"] for case in everyone(cric_cases(root, crop_size=size))} for size in (100, 80)
        )
        assert all(narrow[name][0] == left + 10 for name, (left, *_) in wide.items())

    def test_images_may_lie_beside_the_table(self, root):
        expected = names(everyone(cric_cases(root)))
        for path in (root / "images").iterdir():
            path.rename(root / path.name)
        assert names(everyone(cric_cases(root))) == expected

    def test_other_tables_are_passed_over(self, root):
        expected = cric_cases(root)
        write_table(root / "a_segmentations.csv", ["image_filename", "cell_id", "x", "y"], [[1, 2, 3, 4]])
        assert cric_cases(root) == expected


class TestSplit:
    @pytest.mark.parametrize("fold", range(5))
    def test_an_image_is_in_one_part_only(self, root, fold):
        split = cric_cases(root, fold=fold)
        groups = [images(split[part]) for part in PARTS]
        assert len(set.union(*groups)) == sum(map(len, groups)) == 20

    def test_folds_share_the_test_part_and_cover_the_rest(self, root):
        splits = [cric_cases(root, fold=fold) for fold in range(5)]
        assert len({tuple(names(split["test"])) for split in splits}) == 1
        validated = Counter(name for split in splits for name in names(split["validation"]))
        assert set(validated.values()) == {1}
        assert len(validated) + len(splits[0]["test"]) == 160

    def test_shares_of_classes(self, large):
        """As even as whole images allow: off by less than the most cells of a class in one image."""
        cases = everyone(large[0])
        total = Counter(bethesda(cases))
        assert len(total) == 6
        together = Counter((case["image"], case["attributes"]["bethesda"]) for case in cases)
        most = {name: max(count for (_, other), count in together.items() if other == name) for name in total}
        for split in large:
            for part, share in (("training", 0.72), ("validation", 0.18), ("test", 0.1)):
                count = Counter(bethesda(split[part]))
                assert len(split[part]) / total.total() == pytest.approx(share, abs=0.01)
                for name, number in total.items():
                    assert abs(count[name] - share * number) < most[name], (part, name)

    def test_shares_are_as_even_as_those_of_scikit_learn(self, large):
        """The folds of the part that is not for testing."""
        cases = [case for part in PARTS[:2] for case in large[0][part]]
        classes = np.array(bethesda(cases))
        groups = [case["image"] for case in cases]
        theirs = [classes[fold] for _, fold in StratifiedGroupKFold(5).split(classes, classes, groups)]
        ours = [np.array(bethesda(split["validation"])) for split in large]

        def unevenness(folds):
            return max(
                abs((fold == name).sum() / (classes == name).sum() - 0.2) for fold in folds for name in set(classes)
            )

        assert unevenness(ours) <= unevenness(theirs)

    def test_first_cases_are_of_several_images(self, large):
        """So that a run with a few of them sees more than one slide."""
        for part in PARTS:
            assert len(images(large[0][part][:10])) > 5

    def test_cells_of_an_image_follow_each_other(self, large):
        """So that an image is read at most twice for all its cells."""
        for part in PARTS:
            paths = [case["image"] for case in large[0][part]]
            changes = sum(one != other for one, other in pairwise(paths))
            assert changes < 2 * len(set(paths))

    def test_does_not_depend_on_the_order_of_files_and_rows(self, root, monkeypatch):
        expected = cric_cases(root)
        reverse_file_system(monkeypatch)
        change(root, lambda rows: rows[::-1])
        assert cric_cases(root) == expected

    def test_does_not_depend_on_where_the_images_lie(self, root, tmp_path):
        expected = split_digest(cric_cases(root))
        assert split_digest(cric_cases(root.rename(tmp_path / "elsewhere"))) == expected

    def test_other_seed_other_split(self, root):
        assert split_digest(cric_cases(root, seed=1)) != split_digest(cric_cases(root))

    def test_a_few_images_do(self, tmp_path):
        """Fewer than folds: every image is one."""
        split = cric_cases(make_cric(tmp_path, num_images=3), fold=1)
        assert [len(images(split[part])) for part in PARTS] == [1, 1, 1]


class TestErrors:
    def test_missing_folder(self, tmp_path):
        assert "database.cric.com.br" in message(cric_cases, tmp_path / "nowhere")

    def test_other_folder(self, tmp_path):
        (tmp_path / "imagesTr").mkdir()
        text = message(cric_cases, tmp_path)
        assert "0 cases matched *.csv" in text
        assert "which holds imagesTr/" in text

    def test_no_images(self, root):
        for path in (root / "images").iterdir():
            path.unlink()
        text = message(cric_cases, root)
        assert f"0 cases matched the images that '{root / 'classifications.csv'}' names" in text

    @pytest.mark.parametrize("column", ["image_filename", "cell_id", "bethesda_system", "nucleus_x", "nucleus_y"])
    def test_missing_column(self, root, column):
        change(root, lambda rows: [{key: value for key, value in row.items() if key != column} for row in rows])
        write_table(root / "other.csv", ["a", "b"], [[1, 2]])
        assert message(cric_cases, root).startswith(f"'{root / 'classifications.csv'}' lacks the column '{column}'")

    def test_missing_image(self, root):
        image = min((root / "images").iterdir())
        image.unlink()
        text = message(cric_cases, root)
        assert f"names the image {image.name}, which is not in '{root}' (19 of 20 are)" in text

    def test_image_that_is_there_twice(self, root):
        image = min((root / "images").iterdir())
        (root / image.name).write_bytes(image.read_bytes())
        text = message(cric_cases, root)
        assert f"The image {image.name} is there twice" in text
        assert str(image) in text

    def test_unknown_class(self, root):
        change(root, lambda rows: [rows[0] | {"bethesda_system": "AGC"}, *rows[1:]])
        text = message(cric_cases, root)
        assert text.startswith("Case 'cell_1000': its row in '")
        assert "has the class 'AGC' in the column 'bethesda_system'" in text

    @pytest.mark.parametrize("value", ["left", "nan", "inf"])
    def test_coordinates_that_are_no_numbers(self, root, value):
        change(root, lambda rows: [*rows[:2], rows[2] | {"nucleus_y": value}, *rows[3:]])
        text = message(cric_cases, root)
        assert text.startswith("Case 'cell_1002': its row in '")
        assert f"says '{value}' in the column 'nucleus_y'" in text

    @pytest.mark.parametrize("column", ["image_filename", "bethesda_system", "nucleus_x"])
    def test_empty_value(self, root, column):
        change(root, lambda rows: [rows[0] | {column: " "}, *rows[1:]])
        assert f"has no value in the column '{column}'" in message(cric_cases, root)

    def test_cell_that_is_listed_twice(self, root):
        change(root, lambda rows: [*rows, rows[0]])
        assert "cell_1000" in message(cric_cases, root)

    @pytest.mark.parametrize(
        "options",
        [
            *({"num_classes": 3}, {"num_classes": "2"}, {"fold": 5}, {"fold": -1}, {"fold": "0"}, {"fold": True}),
            *({"crop_size": 0}, {"crop_size": 99.5}, {"seed": 0.5}),
        ],
    )
    def test_unusable_options(self, root, options):
        ((name, value),) = options.items()
        assert message(cric_cases, root, **options).startswith(f"{name} is {value!r}")

    @pytest.mark.parametrize(("count", "fold"), [(1, 0), (2, 0), (4, 3)])
    def test_too_few_images(self, tmp_path, count, fold):
        message(cric_cases, make_cric(tmp_path, num_images=count), fold=fold)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_that_excel_saved(root, encoding):
    expected = cric_cases(root)
    for table in root.glob("*.csv"):
        table.write_bytes(table.read_text().replace(",", ";").encode(encoding))
    assert cric_cases(root) == expected
