"""Folds that a column gives, and folds by chance: every case is held out once, and no patient is on both sides."""

import json

import pytest
from tests.data.layouts import with_pairs

from medcalib.data import decathlon_cases, nnunet_cases, pattern_cases, split_in_folds
from medcalib.errors import UserError

CASES = [f"case_{number}" for number in range(8)]
FOLDS = ["0", "1", "2", "0", "1", "2", "0", "1"]
PATTERNS = {"image": "{case}.png", "label": "{case}_mask.png"}
COLUMN = {"table": "cases.csv", "fold_column": "fold"}


@pytest.fixture
def folder(tmp_path):
    return with_pairs(tmp_path, CASES)


def write(folder, folds, splits=None, patients=None):
    columns = {"case": CASES, "fold": folds, "split": splits or [""] * 8, "patient": patients or CASES}
    rows = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    (folder / "cases.csv").write_text("\n".join(rows))


def ids(split):
    return {part: sorted(case["case"] for case in cases) for part, cases in split.items()}


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_column_divides_as_the_same_folds_of_nnunet_do(fold, folder):
    write(folder, FOLDS)
    val = [[case for case, own in zip(CASES, FOLDS, strict=True) if own == str(k)] for k in range(3)]
    splits = [{"train": [case for case in CASES if case not in held_out], "val": held_out} for held_out in val]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    by_column = pattern_cases(folder, **PATTERNS, **COLUMN, fold=fold)
    assert ids(by_column) == ids(pattern_cases(folder, **PATTERNS, splits="splits_final.json", fold=fold))
    assert ids(by_column)["test"] == val[fold]


def test_beside_test_cases_of_their_own_the_fold_is_the_validation_part(folder):
    write(folder, [*FOLDS[:6], "", ""], splits=[*["training"] * 3, *[""] * 3, "test", "calibration"])
    split = ids(pattern_cases(folder, **PATTERNS, **COLUMN, split_column="split", fold=1))
    assert split["validation"] == ["case_1", "case_4"]
    assert (split["test"], split["calibration"]) == (["case_6"], ["case_7"])
    assert split["training"] == ["case_0", "case_2", "case_3", "case_5"]


@pytest.mark.parametrize(
    ("folds", "changes", "message"),
    [
        (["0", "1", "3", "0", "1", "3", "0", "1"], {}, "has the folds 0, 1, 3, so that fold 2 is empty: number them"),
        (["1", "2"] * 4, {}, "has the folds 1, 2, so that fold 0 is empty"),
        (["0"] * 8, {}, "has the single fold 0, but two are needed"),
        (["a"] + ["0", "1"] * 3 + ["0"], {}, "has the fold 'a' of case 'case_0': number folds 0, 1, 2"),
        (["-1"] + ["0", "1"] * 3 + ["0"], {}, "has the fold '-1' of case 'case_0'"),
        (["", *FOLDS[1:]], {}, r"no fold for case 'case_0' \(1 such case\): add it, or make it a test case"),
        (FOLDS, {"fold": 3}, "fold is 3, but the column 'fold' of the table has the folds 0 to 2"),
        (FOLDS, {"fold": True}, "fold is True"),
        (FOLDS, {"fold": -1}, "fold is -1"),
        (FOLDS, {"fold_column": "part"}, "lacks the column 'part'"),
        (FOLDS, {"table": None}, "names the column 'fold', but no table"),
        (FOLDS, {"splits": "splits_final.json"}, "divides the cases in 2 ways"),
        (FOLDS, {"group": "patient"}, "case 'case_0' in fold 0 and case 'case_1' in fold 1, but both are of 'p'"),
    ],
)
def test_what_is_no_division_in_folds_is_one_sentence(folds, changes, message, folder):
    write(folder, folds, patients=["p", "p", *CASES[2:]])
    with pytest.raises(UserError, match=message) as raised:
        pattern_cases(folder, **{**PATTERNS, **COLUMN, **changes})
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", "in fold 0, but it is for test, whose cases are in no fold"),
        ("val", "is for validation, but the column"),
    ],
)
def test_a_case_is_in_a_fold_or_in_a_part_of_its_own(split, message, folder):
    write(folder, FOLDS, splits=[split, *[""] * 7])
    with pytest.raises(UserError, match=message):
        pattern_cases(folder, **PATTERNS, **COLUMN, split_column="split")


def test_a_patient_in_a_fold_and_in_the_test_part_is_refused(folder):
    write(folder, [*FOLDS[:7], ""], splits=[*[""] * 7, "test"], patients=["p", *CASES[1:7], "p"])
    with pytest.raises(UserError, match="in fold 0 and case 'case_7' in part test, but both are of 'p'"):
        pattern_cases(folder, **PATTERNS, **COLUMN, split_column="split", group="patient")


@pytest.mark.parametrize("layout", ["decathlon", "nnunet"])
def test_a_table_divides_datasets_in_other_layouts(layout, tmp_path):
    nnunet = layout == "nnunet"
    for name in CASES:
        for part, file in (("imagesTr", f"{name}_0000" if nnunet else name), ("labelsTr", name)):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"{file}.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "channel_names": {"0": "CT"}}))
    write(tmp_path, FOLDS)
    cases = nnunet_cases if nnunet else decathlon_cases
    for fold in range(3):
        split = ids(cases(tmp_path, **COLUMN, fold=fold))
        assert split["test"] == [case for case, own in zip(CASES, FOLDS, strict=True) if own == str(fold)]
    if nnunet:
        for part, file in (("imagesTs", "new_0000"), ("labelsTs", "new")):
            (tmp_path / part).mkdir()
            (tmp_path / part / f"{file}.nii.gz").touch()
        split = ids(cases(tmp_path, **COLUMN, fold=1))
        assert (split["test"], split["validation"]) == (["new"], ["case_1", "case_4", "case_7"])


class TestByChance:
    @staticmethod
    def split(**groups):
        cases = [{"case": name, "image": f"{name}.png", "label": 0} for name in CASES]
        cases = [{**case, "group": groups[case["case"]]} if case["case"] in groups else case for case in cases]
        return {"training": cases[:5], "validation": cases[5:6], "test": cases[6:]}

    @pytest.mark.parametrize("num_folds", [2, 3, 8])
    def test_every_case_is_tested_once_and_never_by_a_network_that_saw_it(self, num_folds):
        folds = [ids(split_in_folds(self.split(), fold, num_folds)) for fold in range(num_folds)]
        assert sorted(case for fold in folds for case in fold["test"]) == CASES
        for fold in folds:
            assert sorted(fold["training"] + fold["validation"] + fold["test"]) == CASES
            assert fold["validation"]
            assert fold["calibration"] == fold["validation"]

    def test_patients_stay_together_and_a_seed_makes_other_folds(self):
        split = self.split(case_0="p", case_6="p", case_1="q", case_5="q")
        for fold in range(3):
            found = ids(split_in_folds(split, fold, 3))
            part = {case: part for part in ("training", "validation", "test") for case in found[part]}
            assert part["case_0"] == part["case_6"]
            assert part["case_1"] == part["case_5"]
        assert len({str(ids(split_in_folds(split, 0, 3, seed=seed))["test"]) for seed in range(5)}) > 1

    def test_the_order_of_cases_does_not_matter(self):
        split = self.split()
        turned = {part: cases[::-1] for part, cases in split.items()}
        assert ids(split_in_folds(turned, 1, 3)) == ids(split_in_folds(split, 1, 3))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"fold": 3, "num_folds": 3}, "fold is 3: give a whole number from 0 to 2"),
            ({"fold": 0, "num_folds": 1}, "num_folds is 1"),
            ({"fold": 0, "num_folds": 9}, "cannot fill 9 folds"),
        ],
    )
    def test_wrong_folds_are_one_sentence(self, options, message):
        with pytest.raises(UserError, match=message):
            split_in_folds(self.split(), **options)

    def test_a_case_without_label_is_refused(self):
        split = self.split()
        split["test"] = [{"case": "case_9", "image": "x.png"}]
        with pytest.raises(UserError, match="Case 'case_9' has no label"):
            split_in_folds(split, 0, 2)
