"""Divisions that others have made are taken as they are, whatever they are written in."""

import json

import pytest
from tests.data.layouts import with_pairs

from medcalib.data import pattern_cases
from medcalib.errors import UserError

CASES = [f"case_{number}" for number in range(6)]
PARTS = ("training", "training", "training", "validation", "test", "calibration")
PATTERNS = {"image": "{case}.png", "label": "{case}_mask.png"}


@pytest.fixture
def folder(tmp_path):
    return with_pairs(tmp_path, CASES)


def ids(split):
    return {part: [case["case"] for case in cases] for part, cases in split.items()}


def write_column(folder, parts, name="cases.csv"):
    rows = [f"{case},{part}" for case, part in zip(CASES, parts, strict=True)]
    (folder / name).write_text("\n".join(["case,split", *rows]))
    return {"table": name, "split_column": "split"}


def write_lists(folder, parts):
    lists = {}
    for part in set(parts):
        lists[part] = f"{part}.txt"
        chosen = [case for case, own in zip(CASES, parts, strict=True) if own == part]
        (folder / lists[part]).write_text("\n".join(["# ids", *chosen, ""]))
    return {"lists": lists}


@pytest.mark.parametrize("write", [write_column, write_lists])
def test_every_case_is_in_the_part_that_was_given(write, folder):
    split = pattern_cases(folder, **PATTERNS, **write(folder, PARTS))
    assert ids(split) == {
        part: [case for case, own in zip(CASES, PARTS, strict=True) if own == part]
        for part in ("training", "validation", "test", "calibration")
    }


@pytest.mark.parametrize("write", [write_column, write_lists])
def test_names_in_use_stand_for_the_parts_and_validation_is_set_aside_where_nobody_did(write, folder):
    split = pattern_cases(folder, **PATTERNS, **write(folder, ("Train", "tr", "train", "train", "Test", "ts")))
    assert ids(split)["test"] == CASES[4:]
    assert sorted(ids(split)["training"] + ids(split)["validation"]) == CASES[:4]
    assert len(split["validation"]) == 1


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_folds_of_nnunet_evaluate_every_case_once(fold, folder):
    folds = [{"train": CASES[:n] + CASES[n + 2 :], "val": CASES[n : n + 2]} for n in (0, 2, 4)]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    split = pattern_cases(folder, **PATTERNS, splits="splits_final.json", fold=fold)
    assert ids(split)["test"] == folds[fold]["val"]
    assert sorted(ids(split)["training"] + ids(split)["validation"]) == folds[fold]["train"]


def test_cases_in_no_list_are_left_out_and_named(folder):
    lists = write_lists(folder, PARTS)
    (folder / "training.txt").write_text("case_0\n")
    with pytest.warns(UserWarning, match="says nothing of case_1, case_2, which are left out"):
        split = pattern_cases(folder, **PATTERNS, **lists)
    assert ids(split)["training"] == ["case_0"]


def test_images_without_label_are_passed_over_where_that_is_asked_for(folder):
    (folder / "case_3_mask.png").unlink()
    with pytest.raises(UserError, match="Case 'case_3' has no"):
        pattern_cases(folder, **PATTERNS)
    split = pattern_cases(folder, **PATTERNS, skip_unlabelled=True)
    assert {case["case"] for cases in split.values() for case in cases} == set(CASES) - {"case_3"}


@pytest.mark.parametrize(
    ("arguments", "files", "message"),
    [
        ({"lists": {"training": "no.txt"}}, {}, "no.txt' does not exist"),
        ({"lists": {"trainign": "a.txt"}}, {"a.txt": "case_0"}, "did you mean training"),
        ({"lists": {"train": "a.txt", "test": "a.txt"}}, {"a.txt": "case_0"}, "'case_0' is in the lists of training"),
        ({"lists": {"train": "a.txt"}}, {"a.txt": "case_7"}, "names case 'case_7', of which there are no files"),
        ({"lists": {"train": "a.txt"}}, {"a.txt": "case_0\ncase_1"}, "names no test cases"),
        ({"splits": "a.json"}, {"a.json": "{}"}, "is no splits_final.json"),
        ({"splits": "a.json"}, {"a.json": "]"}, "cannot be read"),
        ({"splits": "a.json", "fold": 5}, {"a.json": '[{"train": ["case_0"], "val": ["case_1"]}]'}, "the folds 0 to 0"),
        ({"splits": "a.json"}, {"a.json": '[{"train": ["case_0"], "val": ["case_0"]}]'}, "both train and val"),
        ({"splits": "a.json", "lists": {"train": "a.txt"}}, {}, "in 2 ways"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*says nothing of")
def test_mistakes_are_named(arguments, files, message, folder):
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(UserError, match=message):
        pattern_cases(folder, **PATTERNS, **arguments)


def test_a_part_in_the_table_that_is_none_is_named(folder):
    columns = write_column(folder, (*PARTS[:5], "holdout"))
    with pytest.raises(UserError, match="has the part 'holdout', but a split has"):
        pattern_cases(folder, **PATTERNS, **columns)
