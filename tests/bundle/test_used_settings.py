"""The closure over references: which settings count, by which value, and under which name a difference is told."""

import json

import pytest
from monai.bundle import ConfigParser

from medcalib.bundle.used_settings import UsedSettings, differences, used_settings

CONFIG = {
    "bins": 20,
    "twice": "$2 * @bins",
    "unused": 1,
    "data": {"dataset_dir": "/data/x", "names": ["a", "b"], "map": {0: 0, 1: 2}, "other": 5},
    "loss": {"_target_": "torch.nn.SmoothL1Loss", "beta": "@twice"},
    "log": {"_target_": "monai.handlers.StatsHandler", "name": "@unused"},
    "loader": {"workers": {"num_workers": "@unused"}, "names": "@data::names", "asked": "$@data.get('map')"},
    "train": {"loss": "@loss", "handlers": "@handlers", "loader": "@loader", "where": "@data::dataset_dir"},
    "handlers": {"log": "@log", "count": "%unused", "off": None},
    "run": ["$@train"],
}


def used(roots=("run",), through_values=True, **changes):
    parser = ConfigParser(json.loads(json.dumps(CONFIG)))
    for id_, value in changes.items():
        parser[id_.replace("__", "::")] = value
    return used_settings(parser, roots, through_values)


def test_values_are_those_that_the_objects_get():
    values = used().values
    assert values["loss::beta"] == values["twice"] == 40
    assert values["bins"] == 20
    assert values["loader::names"] == ["a", "b"]
    assert values["handlers::count"] == 1, "macros are what they stand for"
    assert values["loss::_target_"] == "torch.nn.SmoothL1Loss"


def test_what_is_not_used_or_does_not_decide_is_left_out():
    values = used().values
    assert (
        not {"unused", "data::other", "data::dataset_dir", "log::name", "loader::workers::num_workers"} & values.keys()
    )
    assert not [id_ for id_ in values if id_.startswith(("log", "data::dataset"))]


def test_an_expression_that_asks_for_one_key_uses_that_key():
    assert {"data::map::0", "data::map::1"} <= used().values.keys()


def test_without_going_through_values_only_what_the_objects_get_counts():
    assert {"loss::beta"} <= used(["loss"], through_values=False).values.keys()
    assert not {"twice", "bins"} & used(["loss"], through_values=False).values.keys()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bins": 10}, "bins=20, not 10"),
        ({"twice": 10}, "twice=40, not 10"),
        ({"loss__beta": 10}, "loss::beta=40, not 10"),
        ({"data__names": ["a"]}, "data::names::1=b, not nothing"),
        ({"loss": {"_target_": "torch.nn.SmoothL1Loss"}}, "loss::beta=40, not nothing"),
    ],
)
def test_a_difference_is_told_where_it_comes_from(change, told):
    assert str(differences(used().values, used(**change))[0]) == told


def test_the_same_value_given_in_another_way_is_no_difference():
    plain, referred = used(loss__beta=40), used()
    assert not differences(referred.values, plain)
    assert not differences(plain.values, referred)


def test_only_what_this_run_uses_is_compared():
    recorded = {"loss::_target_": "torch.nn.SmoothL1Loss", "loss::beta": 40, "loss::gone": 1, "bins": 10, "train::x": 3}
    assert [difference.id for difference in differences(recorded, used(["loss"]))] == ["bins", "loss::gone"]


def test_a_file_is_known_by_what_it_holds(tmp_path):
    for folder, content in (("one", "a"), ("other", "a"), ("third", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.pt").write_text(content)
    one, other, third = (
        used(["bins"], bins=str(tmp_path / name / "weights.pt")).values for name in ("one", "other", "third")
    )
    assert one == other != third
    assert one["bins"].startswith("weights.pt (")


def test_values_that_are_not_equal_to_themselves_are_no_difference():
    assert differences({"a": float("nan")}, UsedSettings({"a": float("nan")}, visited={"a"})) == []
