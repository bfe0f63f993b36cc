"""What label values mean, however they are listed."""

import pytest

from medcalib.errors import UserError
from medcalib.planning.label_names import LabelPlan, check_values, labels_by_name, labels_of_values

WHERE = "dataset.json"


@pytest.mark.parametrize(
    ("labels", "names", "label_map"),
    [
        ({"background": 0, "a": 1, "b": 2}, ("background", "a", "b"), None),
        ({"0": "background", "1": "a", "2": "b"}, ("background", "a", "b"), None),
        ({"b": 7, "background": 0, "a": 3}, ("background", "a", "b"), {3: 1, 7: 2}),
        ({"0": "background", "10": "ten", "9": "nine"}, ("background", "nine", "ten"), {9: 1, 10: 2}),
    ],
)
def test_classes_count_up_in_the_order_of_their_values(labels, names, label_map):
    plan = labels_by_name(labels, WHERE)
    assert (plan.class_names, plan.label_map, plan.regions) == (names, label_map, None)


def test_regions_are_unions_of_classes_each_of_which_has_a_name():
    plan = labels_by_name({"background": 0, "kidney": [1, 2, 4], "masses": [2, 4], "tumour": 2}, WHERE)
    assert plan.class_names == ("background", "label_1", "tumour", "label_4")
    assert plan.label_map == {4: 3}
    assert plan.regions == {"kidney": [1, 2, 3], "masses": [2, 3], "tumour": [2]}


def test_the_label_to_be_ignored_is_no_class():
    plan = labels_by_name({"background": 0, "whole": [1, 3], "core": 3, "ignore": 4}, WHERE)
    assert plan.class_names == ("background", "label_1", "core")
    assert (plan.label_map, plan.regions, plan.ignored) == ({3: 2}, {"whole": [1, 2], "core": [2]}, 4)
    check_values(plan, {"a": ("a.nii", [0, 1, 3, 4])}, WHERE)
    plan = labels_of_values([0, 1, 255], ignored=255)
    assert (plan.class_names, plan.label_map, plan.ignored) == (("background", "foreground"), None, 255)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "lacks labels"),
        ({"background": 0, "a": 2, "ignore": 1}, "the label 'ignore', .* make it a single value above"),
        ({"background": 0, "a": 1, "ignore": [2, 3]}, "the label 'ignore', .* make it a single value above"),
        ({"a": 1, "b": 2}, "no label of the value 0"),
        ({"background": 0}, "no label beside the background"),
        ({"background": 0, "a": 1, "b": 1}, "calls the value 1 both 'a' and 'b'"),
        ({"0": "background", "1": "a", "2": "a"}, "the label 'a' twice"),
        ({"background": 0, "a": "one"}, "gives the label 'a' the value 'one'"),
        ({"background": 0, "a": []}, "gives the label 'a' the value"),
    ],
)
def test_labels_that_cannot_be_used(labels, message):
    with pytest.raises(UserError, match=message):
        labels_by_name(labels, WHERE)


def test_values_of_files_without_names():
    assert labels_of_values([0, 255]).label_map == {255: 1}
    assert labels_of_values([1, 3]).class_names == ("background", "class_1", "class_3")
    assert labels_of_values([0, 2], ["background", "a", "b"]) == LabelPlan(("background", "a", "b"), (0, 1, 2))
    with pytest.raises(UserError, match="3 names, background first, but the labels hold the values 0, 1, 2, 5"):
        labels_of_values([0, 1, 2, 5], ["background", "a", "b"])
    with pytest.raises(UserError, match="the value 0 alone"):
        labels_of_values([0])


def test_a_value_that_is_not_listed_is_named_with_its_file():
    plan = labels_by_name({"background": 0, "a": 1, "b": 4}, WHERE)
    check_values(plan, {"x": ("x.nii", [0, 4])}, WHERE)
    # 2 is the index of b, and would be taken for it
    with pytest.raises(UserError, match="Case y: y.nii holds the label 2, which dataset.json lacks"):
        check_values(plan, {"x": ("x.nii", [0, 4]), "y": ("y.nii", [0, 2])}, WHERE)
