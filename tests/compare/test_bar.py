"""A bar stated beforehand: percents of the reference with intervals, and who passes."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.compare.made_evaluations import make_evaluation

from medcalib.compare import compare, comparison_text, write_tables
from medcalib.compare.bar import BAR_COLUMNS, bar_rows, bar_sentence, demands_of
from medcalib.errors import UserError

MARGINS = {"mean_dice": 0.005}
BAR = {"macro_ace": "-10%", "nll": 0}


def scaled(evaluation, factor, name="b"):
    """The same with every value of every case times a factor."""
    metrics = {metric: table * factor for metric, table in evaluation.metrics.items()}
    return dataclasses.replace(evaluation, metrics=metrics, folder=evaluation.folder.parent / name)


def row_of(comparison, metric, method="b"):
    table = comparison.table
    found = table[(table["metric"] == metric) & (table["class"] == "mean") & (table["method"] == method)]
    return found.iloc[0]


def test_a_change_that_is_the_same_in_every_case_has_no_spread_in_percent():
    one = make_evaluation(cases=30)
    found = compare({"a": [one], "b": [scaled(one, 0.8)]}, "a", num_samples=999)
    row = row_of(found, "macro_ace")
    assert [row["percent_of_means"], row["percent_low"], row["percent_high"]] == pytest.approx([-20] * 3, abs=1e-9)
    assert row["difference_high"] - row["difference_low"] > 0.001


def test_percents_do_not_depend_on_the_unit():
    one, other = make_evaluation(cases=30), make_evaluation("other", cases=30, shift=0.2)
    percents = []
    for factor in (1, 1000):
        given = {"a": [scaled(one, factor)], "b": [scaled(other, factor)]}
        row = row_of(compare(given, "a", num_samples=999, non_inferior={}), "macro_ace")
        percents.append([row["percent_low"], row["percent_of_means"], row["percent_high"]])
    assert percents[0] == pytest.approx(percents[1])
    assert percents[0][0] < percents[0][1] < percents[0][2] < 0


def test_the_interval_is_that_of_scipy_for_the_ratio_of_means():
    one, other = make_evaluation(cases=40), make_evaluation("other", cases=40, shift=0.2)
    row = row_of(compare({"a": [one], "b": [other]}, "a"), "macro_ace")
    pair = (other.values("macro_ace"), one.values("macro_ace"))

    def percent(mine, reference, axis=-1):
        return 100 * (mine.mean(axis) / reference.mean(axis) - 1)

    wanted = stats.bootstrap(pair, percent, paired=True, n_resamples=9999, rng=np.random.default_rng(1))
    width = wanted.confidence_interval.high - wanted.confidence_interval.low
    ends = [row["percent_low"], row["percent_high"]]
    assert ends == pytest.approx(list(wanted.confidence_interval), abs=0.05 * width)


def test_the_spread_between_seeds_widens_it():
    same = [make_evaluation(cases=30, seed=seed) for seed in (1, 2, 3)]
    apart = [scaled(one, factor, "b") for one, factor in zip(same, (0.5, 0.8, 1.1), strict=True)]
    apart = [
        dataclasses.replace(one, summary={"provenance": one.provenance | {"checkpoint_digest": f"other{place}"}})
        for place, one in enumerate(apart)
    ]
    several = row_of(compare({"a": same, "b": apart}, "a", num_samples=999), "macro_ace")
    assert several["percent_high"] - several["percent_low"] > 10


def table_of(**changes):
    """Rows of one method: by metric mean, low and high, of percents for the calibration error."""
    rows = []
    for metric, (change, low, high) in changes.items():
        percent = metric == "macro_ace"
        ends = {"percent_of_means": change, "percent_low": low, "percent_high": high} if percent else {}
        plain = {} if percent else {"difference": change, "difference_low": low, "difference_high": high}
        empty = dict.fromkeys(
            ("percent_of_means", "percent_low", "percent_high", "difference", "difference_low", "difference_high"),
            np.nan,
        )
        rows.append({"metric": metric, "class": "mean", "method": "b"} | empty | ends | plain)
    return pd.DataFrame(rows)


GOOD = {"macro_ace": (-20, -25, -12), "nll": (-0.2, -0.3, -0.1), "mean_dice": (0.0, -0.004, 0.004)}


@pytest.mark.parametrize(
    ("changes", "verdicts", "passes"),
    [
        ({}, ["shown", "shown", "shown"], True),
        ({"macro_ace": (-11, -16, -6)}, ["reached", "shown", "shown"], True),
        ({"macro_ace": (-9, -16, -2)}, ["not reached", "shown", "shown"], False),
        ({"macro_ace": (-5, -8, -2)}, ["missed", "shown", "shown"], False),
        ({"nll": (-0.01, -0.1, 0.1)}, ["shown", "reached", "shown"], True),
        ({"nll": (0.0, 0.0, 0.0)}, ["shown", "shown", "shown"], True),
        ({"nll": (0.01, -0.1, 0.1)}, ["shown", "not reached", "shown"], False),
        ({"nll": (0.2, 0.1, 0.3)}, ["shown", "missed", "shown"], False),
        # that Dice is kept must be shown
        ({"mean_dice": (0.0, -0.006, 0.006)}, ["shown", "shown", "reached"], False),
        ({"mean_dice": (-0.02, -0.03, -0.01)}, ["shown", "shown", "missed"], False),
        ({"nll": (-0.1, np.nan, np.nan)}, ["shown", "reached", "shown"], True),
        ({"nll": (np.nan, np.nan, np.nan)}, ["shown", "unknown", "shown"], False),
    ],
)
def test_verdicts(changes, verdicts, passes):
    rows = bar_rows(table_of(**GOOD | changes), demands_of(BAR), MARGINS)
    assert tuple(rows.columns) == BAR_COLUMNS
    assert rows["verdict"].tolist() == verdicts
    assert rows["unit"].tolist() == ["percent", "", "margin"]
    assert rows["passes"].tolist() == [passes] * 3


def test_more_of_a_metric_can_be_asked_for():
    table = table_of(mean_dice=(0.02, 0.011, 0.03))
    assert bar_rows(table, demands_of({"mean_dice": 0.01}), {})["verdict"].tolist() == ["shown"]
    assert bar_rows(table, demands_of({"mean_dice": 0.03}), {})["verdict"].tolist() == ["not reached"]


def test_it_is_told_and_written(tmp_path):
    one = make_evaluation(cases=30)
    given = {"a": [one], "b": [scaled(one, 0.8)], "c": [scaled(one, 0.95, "c")]}
    found = compare(given, "a", num_samples=999, bar=BAR, non_inferior={"brier": 0.1})
    wanted = (
        "The bar was that ACE falls by 10 % or more, NLL does not rise and Brier is kept within 0.1: 1 of 2 methods "
        "pass, b; of b every interval as a whole lies beyond its bound."
    )
    assert bar_sentence(found.bar) == wanted
    assert wanted in comparison_text(found)
    write_tables(found, tmp_path)
    read = pd.read_csv(tmp_path / "bar.csv")
    assert read[read["method"] == "c"]["verdict"].tolist() == ["missed", "shown", "shown"]


def test_without_one_nothing_is_said_or_written(tmp_path):
    one = make_evaluation(cases=10)
    found = compare({"a": [one], "b": [scaled(one, 0.8)]}, "a", num_samples=99)
    assert bar_sentence(found.bar) == ""
    assert "The bar" not in comparison_text(found)
    write_tables(found, tmp_path)
    assert not (tmp_path / "bar.csv").exists()


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ({"macro_aec": -1}, "bar names 'macro_aec', which is no metric of all; did you mean macro_"),
        ({"macro_ace": "ten"}, "the change of macro_ace must be a number, or percents such as -10%, not 'ten'"),
        ({"macro_ace": True}, "not True"),
        ({"macro_ace": float("nan")}, "not nan"),
        (["macro_ace"], "must be changes by metric"),
    ],
)
def test_a_mistake_is_one_sentence(bar, message):
    one = make_evaluation(cases=6)
    with pytest.raises(UserError) as error:
        compare({"a": [one], "b": [scaled(one, 1)]}, "a", num_samples=99, bar=bar)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
