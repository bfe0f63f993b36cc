import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.comparison_page import made_up

from medcalib.comparison_page.quality_charts import (
    area_table,
    case_scores,
    choice_table,
    correlation_tables,
    flagging,
    retention,
    risk,
)
from medcalib.metrics import aurc, flagging_curve


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_up.of_segmentations(tmp_path_factory.mktemp("runs"), seeds=(1, 2), num_cases=15)


def cells(table, method):
    row = next(row for row in table.rows if row[0].text == method)
    return dict(zip(table.columns, row, strict=True))


@pytest.mark.parametrize(("kind", "column"), [(0, "mean_dice"), (1, "mhd")])
def test_correlations_are_those_of_scipy_averaged_over_seeds(made, kind, column):
    table = correlation_tables(case_scores(made))[kind]
    for method, seeds in made.evaluations.items():
        for score, sign in (("entropy_image_mean", 1), ("mean_foreground_confidence", -1)):
            expected = np.mean([sign * spearmanr(one.cases[score], one.cases[column]).statistic for one in seeds])
            assert cells(table, method)[score.replace("_", " ")].value == pytest.approx(expected)


def test_areas_are_those_of_the_metric(made):
    table = area_table(case_scores(made))
    seeds = made.evaluations["soft"]
    expected = np.mean([aurc(one.cases["entropy_image_mean"], 1 - one.cases["mean_dice"]) for one in seeds])
    assert cells(table, "soft")["entropy image mean"].value == pytest.approx(expected)


def test_curves_are_means_over_seeds_of_those_of_the_metric(made):
    (chart,) = flagging(case_scores(made), 0.8, "0.8").charts
    found = [one for one in chart.parts if (one.method, one.variant) == ("soft", "entropy_image_mean")]
    expected = [
        flagging_curve(one.cases["entropy_image_mean"], one.cases["mean_dice"], 0.8, 60).remaining
        for one in made.evaluations["soft"]
    ]
    np.testing.assert_allclose(found[0].y, np.mean(expected, axis=0))


def test_risk_ends_at_that_of_all_cases(made):
    (chart,) = risk(case_scores(made)).charts
    for series in chart.parts:
        dice = np.mean([one.cases["mean_dice"].mean() for one in made.evaluations[series.method]])
        assert series.y[-1] == pytest.approx(1 - dice)


def test_there_is_no_quality_control_without_a_poor_case(made):
    assert flagging(case_scores(made), 0.01, "0.01") is None


def test_a_score_that_never_differs_is_left_out(tmp_path):
    found = case_scores(made_up.of_images(tmp_path))
    assert retention(found).variants == ["entropy"]


def test_all_that_is_kept_is_as_right_as_all_images(tmp_path):
    made = made_up.of_images(tmp_path)
    accuracy, kept = retention(case_scores(made)).charts
    for series in accuracy.parts:
        assert series.y[-1] == pytest.approx(made.evaluations[series.method][0].cases["correct"].mean())
    assert all(series.y[-1] == 1 for series in kept.parts)


def with_choice(made, chosen):
    """What the evaluations of a method say, one chosen score a seed."""
    scores = {
        "entropy_image_mean": {"aurc": 0.10, "spearman_dice": -0.5, "calibration": {"num_cases": 7}},
        "entropy_foreground_mean": {"aurc": 0.06, "spearman_dice": -0.9, "calibration": {"num_cases": 7}},
    }
    seeds = tuple(
        dataclasses.replace(one, quality_control={"chosen_score": name, "scores": scores})
        for one, name in zip(made.evaluations["soft"], chosen, strict=True)
    )
    return dataclasses.replace(made, evaluations={**made.evaluations, "soft": seeds})


def test_a_score_that_was_chosen_elsewhere_is_confirmed(made):
    found = with_choice(made, ["entropy_image_mean", "entropy_foreground_mean"])
    table = choice_table(found)
    assert [row[0].text for row in table.rows] == ["soft"]
    row = cells(table, "soft")
    assert row["Score chosen"].text == "entropy image mean (seeds: 1), entropy foreground mean (seeds: 1)"
    assert row["Score chosen"].detail == "of 7 calibration cases"
    assert row["AURC on test cases"].value == pytest.approx(0.08)
    assert row["Spearman with Dice there"].value == pytest.approx(-0.7)
    assert row["AURC of the best in hindsight"].value == pytest.approx(0.06)
    dice = np.mean([one.cases["mean_dice"].mean() for one in found.evaluations["soft"]])
    assert row["AURC without a score"].value == pytest.approx(1 - dice)
    assert choice_table(made) is None
