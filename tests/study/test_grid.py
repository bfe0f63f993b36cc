"""Names of what is compared, and the reference."""

import pytest

from medcalib.errors import UserError
from medcalib.study.grid import GridPoint, named_points, reference_name
from medcalib.study.study_file import Study

LOSSES = ("baseline_ce", "softl1ace_dice_ce")


def points(study, *ids):
    known = {
        (network, loss, method): ids if method != "tta" else ()
        for network in study.networks
        for loss in study.losses
        for method in study.methods
    }
    return named_points(study, known)


def test_a_name_is_made_of_what_differs():
    assert list(points(Study("s", "phantom", LOSSES))) == list(LOSSES)
    assert list(points(Study("s", "phantom", ("focal",), ("tta", "deterministic")))) == ["tta", "deterministic"]
    assert list(points(Study("s", "phantom", LOSSES, networks=("unet", "dynunet"))))[:2] == [
        "unet / baseline_ce",
        "unet / softl1ace_dice_ce",
    ]


def test_a_swept_id_is_named_by_its_end_unless_two_end_alike():
    one = Study("s", "phantom", ("focal",), sweep={"a::b::p": (0.1, [1, 2])})
    assert list(points(one, "a::b::p")) == ["p=0.1", "p=[1,2]"]
    two = Study("s", "phantom", ("focal",), sweep={"a::p": (1, 2), "b::p": (3,)})
    assert list(points(two, "a::p", "b::p")) == ["a::p=1 / b::p=3", "a::p=2 / b::p=3"]


def test_a_method_without_the_swept_id_is_there_once():
    study = Study("s", "phantom", ("focal",), ("tta", "mc_dropout"), sweep={"p": (1, 2)})
    assert list(points(study, "p")) == ["tta", "mc_dropout / p=1", "mc_dropout / p=2"]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (None, "baseline_ce / tta"),
        ("softl1ace_dice_ce / tta", "softl1ace_dice_ce / tta"),
        ({"loss": "softl1ace_dice_ce", "method": "mc_dropout", "p": 2}, "softl1ace_dice_ce / mc_dropout / p=2"),
        ({"loss": "softl1ace_dice_ce", "method": "tta"}, "softl1ace_dice_ce / tta"),
    ],
)
def test_the_reference(reference, name):
    study = Study("s", "phantom", LOSSES, ("tta", "mc_dropout"), sweep={"p": (1, 2)}, reference=reference)
    assert reference_name(study, points(study, "p")) == name


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("baseline_ce / tat", "is not in its grid; did you mean baseline_ce / tta"),
        ({"loss": "focal"}, "loss focal is not in its grid"),
        ({"los": "baseline_ce"}, "los is nothing that its grid has; did you mean loss"),
        ({"method": "tta"}, "fits baseline_ce / tta and softl1ace_dice_ce / tta; give more"),
        ({"method": "tta", "p": 1}, "fits nothing in its grid"),
    ],
)
def test_a_reference_that_is_not_in_the_grid(reference, message):
    study = Study("s", "phantom", LOSSES, ("tta", "mc_dropout"), sweep={"p": (1, 2)}, reference=reference)
    with pytest.raises(UserError, match=message):
        reference_name(study, points(study, "p"))


def test_what_picks_out_a_point():
    assert GridPoint("focal", "tta", sweep={"p": 1}).parts == {
        "network": None, "loss": "focal", "method": "tta", "p": 1,
    }  # fmt: skip
