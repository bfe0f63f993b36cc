"""Quality control where a prediction has no foreground: no score can be made of it, and it is the worst failure."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.metrics import DiceMetric

from medcalib.errors import UserError
from medcalib.functional import entropy
from medcalib.handlers import CalibrationErrorHandler, ResultFolder, UncertaintyScoresHandler
from medcalib.handlers.results import GUARANTEED_CASES, results_of
from medcalib.metrics import aurc
from medcalib.reports import EvaluationReportHandler, QualityControlHandler
from medcalib.task import Task

SCORE = "entropy_foreground_mean"
TASK = Task(["background", "square"])


def make_case(name, blur, found=True, present=True):
    """A square of label 1, predicted the less certain and the worse the larger ``blur`` is, or not at all."""
    label = torch.zeros(1, 12, 12)
    if present:
        label[:, 3:9, 3:9] = 1
    foreground = torch.full((1, 12, 12), 0.01)
    if found:
        foreground[:, 3 : 9 - int(10 * blur), 3:9] = 1 - blur
    pred = torch.cat([1 - foreground, foreground])
    maps = dict.fromkeys(("entropy", "mutual_information", "variance"), entropy(pred[None])[0])
    return {"case": name, "pred": pred, "seg": pred.argmax(0, keepdim=True), "label": label, **maps}


def attach_scores(engine):
    CalibrationErrorHandler(TASK, num_bins=10).attach(engine)
    UncertaintyScoresHandler(TASK, patch_size=3).attach(engine)


def evaluator(cases):
    """An engine over the cases, with Dice."""
    engine = Engine(lambda _engine, batch: batch)
    dice = DiceMetric(include_background=False, num_classes=2)
    values = [dice(case["seg"][None], case["label"][None]) for case in cases]
    engine.state.metric_details = {"mean_dice": torch.cat(values)}
    attach_scores(engine)
    run = engine.run
    engine.run = lambda: run([[case] for case in cases])
    return engine


TEST_CASES = [make_case("a", 0.05), make_case("b", 0.2), make_case("c", 0.3), make_case("missed", 0.0, found=False)]


def control(folder, cases, calibration, poor_below=0.7, figure_scores=(), guaranteed=None):
    engine = evaluator(cases)
    if guaranteed is not None:
        results_of(engine).offer(GUARANTEED_CASES, lambda: guaranteed)
    handler = QualityControlHandler(
        ResultFolder(folder),
        TASK,
        poor_below,
        threshold_evaluator=None if calibration is None else evaluator(calibration),
        figure_scores=figure_scores,
        formats=["png"],
    )
    EvaluationReportHandler(handler.folder).attach(engine)
    handler.attach(engine)
    handler.folder.attach(engine)
    engine.run()
    return json.loads((folder / "quality_control.json").read_text())


@pytest.fixture
def report(tmp_path, capsys):
    found = control(tmp_path / "evaluation", TEST_CASES, [make_case("k", 0.1), make_case("l", 0.3)])
    found["printed"] = capsys.readouterr().out
    return found


def test_a_case_without_a_score_counts_as_the_most_uncertain(report):
    score = report["scores"][SCORE]
    dice = np.array([1.0, 2 * 24 / 60, 2 * 18 / 54, 0.0])
    assert score["num_cases"] == 4
    assert score["aurc"] == pytest.approx(aurc([0.0, 1.0, 2.0, 3.0], 1 - dice))
    assert score["excess_aurc"] == pytest.approx(0)
    assert score["without_score"] == ["missed"]
    assert (score["spearman_dice"], score["spearman_cases"]) == (pytest.approx(-1), 3)
    assert report["scores"]["entropy_image_mean"]["without_score"] == []


def test_a_case_without_a_score_is_flagged(report):
    threshold = report["scores"][SCORE]["threshold"]
    assert "missed" in threshold["flagged_cases"]
    assert threshold["flagged"] == pytest.approx(len(threshold["flagged_cases"]) / 4)
    poor = {"c", "missed"}
    assert threshold["poor_left"] == pytest.approx(len(poor - set(threshold["flagged_cases"])) / 4)
    assert report["poor"] == 0.5


def test_it_is_said(report):
    assert "missed" in report["printed"]
    assert "No foreground was predicted in 1 of 4 cases (missed)" in report["printed"]


def test_scores_stand_in_the_table_of_cases_only(tmp_path):
    control(tmp_path / "evaluation", TEST_CASES, [make_case("k", 0.1), make_case("l", 0.3)])
    table = pd.read_csv(tmp_path / "evaluation" / "cases.csv", index_col="filename")
    assert np.isnan(table.loc["missed", SCORE])
    assert not list((tmp_path / "evaluation").glob(f"{SCORE}_*.csv"))
    for name in ("summary.json", "metrics.csv"):
        assert SCORE not in (tmp_path / "evaluation" / name).read_text()


@pytest.mark.parametrize(("poor_below", "said"), [(1, "All cases have a Dice below"), (0, "No case has a Dice below")])
def test_that_all_cases_are_alike_is_said(tmp_path, capsys, poor_below, said):
    """Then thresholds and flagging curves tell nothing."""
    control(tmp_path / "evaluation", TEST_CASES[1:], TEST_CASES, poor_below)
    printed = capsys.readouterr().out
    assert (
        f"{said} {poor_below} (as set), so flagging tells nothing here; --quality_control::poor_below sets another"
        in printed
    )


def test_a_message_names_the_option_that_the_command_has(tmp_path, capsys):
    engine = evaluator(TEST_CASES)
    handler = QualityControlHandler(ResultFolder(tmp_path), TASK, 0.0, figure_scores=(), option_prefix="--")
    EvaluationReportHandler(handler.folder).attach(engine)
    handler.attach(engine)
    handler.folder.attach(engine)
    engine.run()
    assert "flagging tells nothing here; --poor_below sets another limit" in capsys.readouterr().out
    with pytest.raises(UserError, match="^--max_poor must be a fraction"):
        QualityControlHandler(ResultFolder(tmp_path), TASK, max_poor=2, option_prefix="--")


CALIBRATION = [make_case("k", 0.1), make_case("l", 0.2), make_case("m", 0.3)]


def test_calibration_cases_decide_which_cases_are_poor(tmp_path, capsys):
    report = control(tmp_path / "evaluation", TEST_CASES, CALIBRATION, "10%")
    worst, second = 2 * 18 / 54, 2 * 24 / 60
    assert report["poor_below"] == pytest.approx(worst + 0.2 * (second - worst))
    assert report["poor_below_from"] == {"setting": "10%", "origin": "calibration cases", "calibration_cases": 3}
    assert report["poor"] == 0.5
    said = "Poor are 2 of 4 cases: their Dice is below 0.6933 (the 10% quantile of the Dice of 3 calibration cases)."
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("tested", [TEST_CASES[:1], TEST_CASES[2:], [make_case("bad", 0.4)]])
def test_test_cases_have_no_say_in_it(tmp_path, tested):
    expected = control(tmp_path / "all", TEST_CASES, CALIBRATION, "10%")
    found = control(tmp_path / "some", tested, CALIBRATION, "10%")
    assert found["poor_below"] == expected["poor_below"]
    for name, score in expected["scores"].items():
        assert found["scores"][name]["threshold"]["value"] == score["threshold"]["value"]


def test_without_calibration_cases_the_default_is_taken_and_said(tmp_path, capsys):
    """As where a guarantee brings a rule of its own."""
    report = control(tmp_path / "evaluation", TEST_CASES, None, "10%")
    assert (report["poor_below"], report["poor_below_from"]["origin"]) == (0.8, "default")
    assert "below 0.8 (the default, as no Dice of calibration cases is known)" in capsys.readouterr().out


def test_cases_without_dice_are_in_no_share_of_poor_cases(tmp_path):
    """Neither the label nor the prediction has the class."""
    empty = make_case("empty", 0.0, found=False, present=False)
    report = control(tmp_path / "evaluation", [*TEST_CASES, empty], [make_case("k", 0.1), make_case("l", 0.3)])
    assert report["without_dice"] == ["empty"]
    assert (report["num_cases"], report["poor"]) == (5, 0.5)
    threshold = report["scores"][SCORE]["threshold"]
    assert {"missed", "empty"} <= set(threshold["flagged_cases"])
    poor_left = {"c", "missed"} - set(threshold["flagged_cases"])
    assert threshold["poor_left"] == pytest.approx(len(poor_left) / 4)


def test_without_a_score_on_the_calibration_split_everything_is_flagged(tmp_path):
    report = control(tmp_path / "evaluation", TEST_CASES, [make_case("k", 0.0, found=False)])
    threshold = report["scores"][SCORE]["threshold"]
    assert threshold["value"] is None
    assert threshold["flagged_cases"] == ["a", "b", "c", "missed"]


def test_without_any_case_on_the_calibration_split_there_is_no_rule(tmp_path):
    report = control(tmp_path / "evaluation", TEST_CASES, [make_case("k", 0.0, found=False, present=False)])
    threshold = report["scores"][SCORE]["threshold"]
    assert threshold["value"] is threshold["flagged"] is threshold["poor_left"] is None
    assert threshold["flagged_cases"] is None


def test_a_score_that_only_some_cases_have_is_drawn(tmp_path):
    cases = [make_case("a", 0.1), make_case("b", 0.0, found=False)]
    control(tmp_path / "evaluation", cases, cases, figure_scores=[SCORE])
    assert (tmp_path / "evaluation" / "quality_control" / "scatter.png").is_file()


def test_poor_cases_that_a_guarantee_lets_pass_are_those_of_its_promise(tmp_path, capsys):
    """Its limit may be another one than that of quality control, 0.7 here."""
    sent = {"a": False, "b": False, "c": True}
    dice, limit = {"a": 0.75, "b": 0.85, "c": 0.1}, 0.8
    guaranteed = [
        {
            "filename": case,
            "values": {"send_to_human": sent[case], "score": SCORE},
            "losses": {"selective_control": [np.nan if sent[case] else float(dice[case] < limit)]},
            "dice": dice[case],
        }
        for case in sent
    ]
    report = control(tmp_path / "evaluation", TEST_CASES, [make_case("k", 0.1)], guaranteed=guaranteed)
    assert (report["rule"]["flagged_cases"], report["rule"]["poor_passing"]) == (["c"], ["a"])
    assert "flags 1 of 3 cases" in capsys.readouterr().out


def test_a_score_is_chosen_on_the_calibration_cases_alone(tmp_path, capsys):
    calibration = [make_case("k", 0.05), make_case("l", 0.2), make_case("m", 0.3)]
    report = control(tmp_path / "evaluation", TEST_CASES, calibration)
    areas = {name: result["calibration"]["aurc"] for name, result in report["scores"].items()}
    assert areas[report["chosen_score"]] == min(areas.values())
    dice = np.array([1.0, 2 * 24 / 60, 2 * 18 / 54])
    assert areas[SCORE] == pytest.approx(aurc([0.0, 1.0, 2.0], 1 - dice))
    assert report["scores"][SCORE]["calibration"]["num_cases"] == 3
    assert f"Chosen on 3 calibration cases by its AURC: {report['chosen_score']}" in capsys.readouterr().out
    other = control(tmp_path / "other", list(reversed(TEST_CASES[:2])), calibration)
    assert other["chosen_score"] == report["chosen_score"]
