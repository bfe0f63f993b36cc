"""Several label files per case, found by one pattern."""

import pytest
from tests.data.layouts import everyone, message

from medcalib.data import pattern_cases
from medcalib.data.cases import checked_split
from medcalib.errors import UserError

RATED = {"a_1": ["ann", "bob"], "a_10": ["ann"], "b": ["ann", "bob", "eve"], "c": ["bob"], "d": ["ann"]}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{case}.png", "labels/{case}_{rater}.png"),
        ("images/{case}.png", "{rater}/{case}.png"),
        ("images/{case}.png", "labels/{rater}_{case}.png"),
        ("{case}.png", "{case}_{rater}.png"),
        ("{case}/image.png", "{case}/{rater}.label.png"),
        ("{case}.nii.gz", "{case}/{case}-{rater}.nii.gz"),
    ],
)
def test_raters_may_differ_in_number_and_are_named(tmp_path, image, label):
    for case, raters in RATED.items():
        for path in (image.format(case=case), *(label.format(case=case, rater=rater) for rater in raters)):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
    cases = everyone(checked_split(pattern_cases(tmp_path, image, label)))
    assert {case["case"]: case["raters"] for case in cases} == RATED
    for case in cases:
        files = [tmp_path / label.format(case=case["case"], rater=rater) for rater in case["raters"]]
        assert case["label"] == [str(path) for path in files]


def make(folder, cases):
    for case, raters in cases.items():
        for name in (f"images/{case}.png", *(f"labels/{case}_{rater}.png" for rater in raters)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()


def test_a_case_that_nobody_labelled_is_named_or_left_out(tmp_path):
    make(tmp_path, RATED | {"e": []})
    patterns = {"image": "images/{case}.png", "label": "labels/{case}_{rater}.png"}
    assert message(pattern_cases, tmp_path, **patterns).startswith(
        f"Case 'e' has no '{tmp_path}/labels/e_{{rater}}.png' (5 cases matched images/*.png with labels/*_*.png, 1 did"
    )
    assert len(everyone(pattern_cases(tmp_path, **patterns, skip_unlabelled=True))) == 5


def test_a_rater_of_images_is_refused(tmp_path):
    make(tmp_path, RATED)
    with pytest.raises(
        UserError, match=r"The pattern 'images/{case}_{rater}.png' in data::cases holds {rater}, but only"
    ):
        pattern_cases(tmp_path, "images/{case}_{rater}.png", "labels/{case}_{rater}.png")
