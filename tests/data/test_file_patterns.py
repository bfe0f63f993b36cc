"""What stands for case, part and class in the names of files."""

import pytest
from tests.data.layouts import everyone, message, names

from medcalib.data import pattern_cases
from medcalib.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def ids(split):
    return {part: names(cases) for part, cases in split.items()}


@pytest.mark.parametrize(
    ("folders", "spelt"),
    [
        (("train", "val", "test"), "{split}/images/{case}.png"),
        (("Training", "validation", "Testing"), "{split}/images/{case}.png"),
        (("tr", "valid", "ts"), "images/{split}/{case}.png"),
        (("Tr", "Val", "Ts"), "images{split}/{case}.png"),
        (("train", "val", "test"), "images/{split}_{case}.png"),
    ],
)
def test_folders_divide_the_cases_in_any_spelling(folders, spelt, tmp_path):
    cases = {"a_1": 0, "a_2": 0, "b_1": 1, "c_1": 2}
    label = spelt.replace("images", "labels")
    for case, part in cases.items():
        touch(tmp_path, *(text.format(split=folders[part], case=case) for text in (spelt, label)))
    split = pattern_cases(tmp_path, spelt, label)
    assert ids(split) == {
        "training": ["a_1", "a_2"],
        "validation": ["b_1"],
        "test": ["c_1"],
        "calibration": ["b_1"],
    }
    assert split["test"][0]["label"] == str(tmp_path / label.format(split=folders[2], case="c_1"))


def test_calibration_has_a_folder_and_labels_none(tmp_path):
    """The label may lie where nothing is divided."""
    for part, case in (("train", "a"), ("train", "e"), ("val", "b"), ("calibration", "c"), ("test", "d")):
        touch(tmp_path, f"{part}/{case}.png", f"labels/{case}.png")
    assert ids(pattern_cases(tmp_path, "{split}/{case}.png", "labels/{case}.png"))["calibration"] == ["c"]


def test_numbers_that_repeat_get_their_folders_as_names(tmp_path):
    for part in ("train", "val", "test"):
        touch(tmp_path, *(f"{part}/{kind}/{case}.png" for kind in "il" for case in (1, 2)))
    split = pattern_cases(tmp_path, "{split}/i/{case}.png", "{split}/l/{case}.png")
    assert ids(split)["training"] == ["train_1", "train_2"]
    assert split["training"][0]["image"] == str(tmp_path / "train/i/1.png")


def test_without_test_folder_validation_is_the_test_part(tmp_path):
    touch(
        tmp_path,
        *(f"{part}/{kind}{case}.png" for case, part in enumerate(["train"] * 9 + ["val"]) for kind in "il"),
    )
    found = ids(pattern_cases(tmp_path, "{split}/i{case}.png", "{split}/l{case}.png"))
    assert found["test"] == ["9"]
    assert len(found["validation"]) == 1
    assert len(found["training"]) == 8


def test_a_folder_that_is_no_part_is_left_out_and_said(tmp_path):
    parts = ["train", "train", "test", "trian", "extra"]
    touch(tmp_path, *(f"{part}/{kind}{case}.png" for case, part in enumerate(parts) for kind in "il"))
    with pytest.warns(UserWarning, match="extra, trian in the place of {split} stand for no part .* 2 cases"):
        split = pattern_cases(tmp_path, "{split}/i{case}.png", "{split}/l{case}.png")
    assert names(everyone(split)) == ["0", "1", "2"]


def test_classes_are_folders(tmp_path):
    for part in ("train", "train2", "val", "test"):
        touch(tmp_path, *(f"{part.strip('2')}/{name}/{part}{name}.jpg" for name in ("cat", "dog")))
    split = pattern_cases(tmp_path, "{split}/{class}/{case}.jpg", class_names=["dog", "cat"])
    assert {case["case"]: case["label"] for case in split["test"]} == {"testcat": 1, "testdog": 0}
    told = message(pattern_cases, tmp_path, "{split}/{class}/{case}.jpg", class_names=["dog"])
    assert "is of the class 'cat' in the name of its folder, but data::class_names lists dog" in told


def test_classes_are_folders_that_nobody_divided(tmp_path):
    touch(tmp_path, *(f"{name}/{number}.jpg" for name in ("cat", "dog") for number in range(5)))
    split = pattern_cases(tmp_path, "{class}/{case}.jpg", class_names=["cat", "dog"])
    assert names(everyone(split)) == [f"{name}_{number}" for name in ("cat", "dog") for number in range(5)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"image": "i/{case}.png", "label": "{split}/{case}.png", "split_column": "x", "table": "t.csv"}, "in 2 ways"),
        ({"image": "{split}/{case}.png"}, "Give data::cases either a label"),
        ({"image": "{class}/{case}.png", "label": "l/{case}.png"}, "Give data::cases either a label"),
        ({"image": "i/{case}.png", "label": "{clas}/{case}.png"}, "holds {clas}, but only .* did you mean {class}"),
        ({"image": "i/{case}/*.dcm", "label": "l/{case}.png"}, "of DICOM slices, name the folder that holds them"),
        ({"image": "{split}/i.png", "label": "{split}/l.png"}, "lacks {case}"),
    ],
)
def test_what_cannot_be(options, told, tmp_path):
    touch(tmp_path, *(f"{folder}/{case}.png" for folder in ("i", "train", "test") for case in "abc"))
    (tmp_path / "t.csv").write_text("case,x\na,train\nb,val\nc,test\n")
    with pytest.raises(UserError, match=told):
        pattern_cases(tmp_path, **options)
