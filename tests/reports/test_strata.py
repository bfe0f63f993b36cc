"""Results by attributes of the cases: columns of the case table and strata of the summary."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine

from medcalib.errors import UserError
from medcalib.handlers import CalibrationErrorHandler, ResultFolder
from medcalib.metrics import BrierScoreMetric
from medcalib.reports import EvaluationReportHandler
from medcalib.reports.strata import case_attributes, strata_text, with_attributes
from medcalib.task import Task

VENDORS = ["B", "A", "B", None, "A", "B"]
CENTRES = [10, 2, 10, 9, 2, 2]


def make_cases(seed=0):
    """Six cases of different sizes; the second one lacks a class, the fourth has no vendor."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for index, (vendor, centre) in enumerate(zip(VENDORS, CENTRES, strict=True)):
        shape = (4 + index, 5, 3)
        pred = torch.rand(3, *shape, generator=generator).softmax(0)
        label = torch.randint(0, 2 if index == 1 else 3, (1, *shape), generator=generator)
        attributes = {"centre": centre} if vendor is None else {"vendor": vendor, "centre": centre}
        cases.append({"case": f"case_{index}", "pred": pred, "label": label, "attributes": attributes})
    return cases


def evaluate(folder, cases, split="own", metric="brier", brier=None):
    """The folder of results of an engine whose output is the batch itself."""
    results = ResultFolder(folder)
    engine = Engine(lambda _engine, batch: batch)
    engine.state.metric_details = {}
    brier = BrierScoreMetric(include_background=False) if brier is None else brier
    IgniteMetricHandler(brier, output_transform=from_engine(["pred", "label"])).attach(engine, metric)
    handlers = [
        results,
        CalibrationErrorHandler(Task(["background", "left", "right"]), num_bins=5),
        EvaluationReportHandler(results, {"test": cases} if split == "own" else split),
    ]
    for handler in handlers:
        handler.attach(engine)
    engine.run([[case] for case in cases])
    return folder


def test_a_metric_with_other_columns_is_named(tmp_path):
    """Its first column would otherwise stand for all of it, without a word."""
    with_background = BrierScoreMetric(include_background=True)
    message = "The metric brier has 3 values for each case, but 2 classes are evaluated, left, right"
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "other", make_cases(), brier=with_background)
    assert not (tmp_path / "other" / "summary.json").exists()


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture
def results(tmp_path):
    return evaluate(tmp_path / "all", make_cases())


def test_attributes_are_columns_after_the_name_of_the_case(results, tmp_path):
    table = pd.read_csv(results / "cases.csv", dtype={"vendor": str})
    assert list(table.columns[:3]) == ["filename", "vendor", "centre"]
    assert table["vendor"].fillna("").tolist() == [vendor or "" for vendor in VENDORS]
    assert table["centre"].tolist() == CENTRES
    without = pd.read_csv(evaluate(tmp_path / "without", make_cases(), split=None) / "cases.csv")
    pd.testing.assert_frame_equal(table.drop(columns=["vendor", "centre"]), without)


def test_a_stratum_is_what_an_evaluation_of_its_cases_alone_gives(results, tmp_path):
    found = summary(results)["strata"]
    assert {name: list(values) for name, values in found.items()} == {
        "vendor": ["A", "B"],
        "centre": ["2", "9", "10"],  # numbers by size
    }
    for attribute, by_value in found.items():
        for value, part in by_value.items():
            cases = [case for case in make_cases() if str(case["attributes"].get(attribute)) == value]
            alone = summary(evaluate(tmp_path / f"{attribute}_{value}", cases, split=None))
            assert part.keys() >= {"num_cases", "brier", "macro_ece", "micro_ece", "micro_mce"}
            counts = part.pop("num_values")
            assert counts == {name: alone["num_values"][name] for name in counts}
            assert counts.keys() >= {"brier", "macro_ece"}
            assert part == {name: pytest.approx(alone[name], rel=1e-12, nan_ok=True) for name in part}


def test_strata_of_all_cases_average_to_the_whole(results):
    whole = summary(results)
    parts = whole["strata"]["centre"].values()
    numbers = [part["num_cases"] for part in parts]
    assert sum(numbers) == whole["num_cases"] == 6
    for name in ("brier", "macro_ece", "macro_ace"):
        assert np.average([part[name] for part in parts], weights=numbers) == pytest.approx(whole[name], rel=1e-12)


def test_a_case_without_the_attribute_is_in_no_stratum(results):
    assert sum(part["num_cases"] for part in summary(results)["strata"]["vendor"].values()) == 5


def test_cases_without_attributes_leave_no_trace(tmp_path, capsys):
    cases = [{key: case[key] for key in ("case", "pred", "label")} for case in make_cases()]
    folder = evaluate(tmp_path / "evaluation", cases)
    assert "strata" not in summary(folder)
    printed = capsys.readouterr().out
    evaluate(tmp_path / "none", cases, split=None)
    assert capsys.readouterr().out == printed


def test_attributes_of_cases_that_are_not_evaluated_do_not_matter(tmp_path):
    split = {"training": [{"case": "other", "attributes": {"scanner": "X"}}], "test": make_cases()}
    folder = evaluate(tmp_path / "evaluation", make_cases(), split)
    assert list(summary(folder)["strata"]) == ["vendor", "centre"]
    assert "scanner" not in pd.read_csv(folder / "cases.csv").columns


def test_strata_are_printed(tmp_path, capsys):
    results = evaluate(tmp_path / "evaluation", make_cases())
    lines = capsys.readouterr().out.splitlines()
    heads = [
        index for index, line in enumerate(lines) if line.split()[:2] in (["vendor", "cases"], ["centre", "cases"])
    ]
    assert [lines[index + 1].split()[:2] for index in heads] == [["A", "2"], ["2", "3"]]
    assert lines[heads[0]].split() == ["vendor", "cases", "ECE", "ACE", "MCE", "Brier"]
    ece = summary(results)["strata"]["vendor"]["A"]["macro_ece"]
    assert lines[heads[0] + 1].split()[2] == f"{ece:.4f}"


def test_an_attribute_with_very_many_values_is_not_printed_row_by_row():
    found = {"age": {str(value): {"num_cases": 1, "nll": 0.5} for value in range(40)}}
    assert strata_text(found, {"nll": "NLL"}) == "\nage: 40 values, see summary.json."


@pytest.mark.parametrize("name", ["filename", "mean_dice", "nll"])
def test_an_attribute_called_like_a_known_column_is_refused_before_the_evaluation(tmp_path, name):
    split = {"test": [{"case": "a", "attributes": {name: 1}}]}
    with pytest.raises(UserError, match=f"attribute '{name}', which is also the name of a column") as caught:
        EvaluationReportHandler(ResultFolder(tmp_path / "evaluation"), split)
    assert "\n" not in str(caught.value)


def test_an_attribute_called_like_a_metric_of_this_evaluation_is_refused(tmp_path):
    with pytest.raises(UserError, match="attribute 'vendor', which is also the name of a column"):
        evaluate(tmp_path / "evaluation", make_cases(), metric="vendor")
    assert not list(tmp_path.iterdir())


def test_a_table_keeps_its_rows():
    table = pd.DataFrame({"filename": ["b", "a"], "nll": [1.0, 2.0]}, index=[7, 3])
    joined = with_attributes(table, {"a": {"vendor": "A"}})
    assert joined["filename"].tolist() == ["b", "a"]
    assert joined["vendor"].tolist() == [None, "A"]
    assert "vendor" not in table.columns


@pytest.mark.parametrize("wrong", ["A", ["A"], 3])
def test_attributes_that_are_no_mapping_are_refused(wrong):
    with pytest.raises(UserError, match="Case a: its attributes must be texts by name"):
        case_attributes({"test": [{"case": "a", "attributes": wrong}]})


def test_a_value_that_is_unknown_is_left_out():
    assert case_attributes({"test": [{"case": 7, "attributes": {"vendor": None, "centre": 0}}]}) == {
        "7": {"centre": "0"}
    }
