"""The comparison against loops, laws and published numbers."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.compare.made_evaluations import LOWER, case_names, make_evaluation

from medcalib.compare import compare, holm, read_evaluation
from medcalib.compare.comparison import COLUMNS
from medcalib.errors import UserError
from medcalib.functional import BinStatistics, every_calibration_error

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "published" / "acdc17"
SAMPLES = 800


def compared(evaluations, reference="base", **options):
    given = {name: one if isinstance(one, list) else [one] for name, one in evaluations.items()}
    return compare(given, reference, **{"num_samples": SAMPLES} | options)


def row_of(table, metric="macro_ace", of_class="mean", method="soft"):
    rows = table[(table["metric"] == metric) & (table["method"] == method)]
    return (rows[rows["class"] == of_class] if "class" in rows else rows).iloc[0]


@pytest.fixture(scope="module")
def three():
    return {
        "base": make_evaluation("base"),
        "hard": make_evaluation("hard", shift=0.05),
        "soft": make_evaluation("soft", shift=0.4),
    }


@pytest.fixture(scope="module")
def comparison(three):
    return compared(three, num_samples=9999)


def test_every_metric_class_and_method_has_a_row(comparison):
    assert tuple(comparison.table.columns) == COLUMNS
    micro = ["micro_ace", "micro_ece", "micro_mce"]
    keys = list(comparison.table[["metric", "class", "method"]].itertuples(index=False, name=None))
    expected = {
        (metric, of_class, method)
        for metric in ("mean_dice", *LOWER, *micro)
        for of_class in ("organ", "lesion", "mean")
        for method in ("hard", "soft")
    }
    assert set(keys) == expected
    assert len(keys) == len(expected)
    assert set(comparison.levels["method"]) == {"base", "hard", "soft"}
    assert (comparison.primary, comparison.margins, comparison.left_out) == ("macro_ace", {"mean_dice": 0.01}, {})
    assert comparison.higher_is_better("mean_dice")
    assert not comparison.higher_is_better("macro_ace")


@pytest.mark.parametrize("of_class", ["organ", "lesion", "mean"])
@pytest.mark.parametrize("metric", ["mean_dice", "macro_ace", "nll"])
def test_values_of_cases_by_hand(three, comparison, metric, of_class):
    base, values = {}, {}
    for name, one in three.items():
        values[name] = one.metrics[metric][of_class].to_numpy()
    base = values["base"]
    p_values = [stats.wilcoxon(values[name], base).pvalue for name in ("hard", "soft")]
    for name, corrected in zip(("hard", "soft"), holm(p_values), strict=True):
        row, differences = row_of(comparison.table, metric, of_class, name), values[name] - base
        assert (row.reference, row.num_cases, row.warning) == ("base", 20, "")
        assert row.reference_mean == pytest.approx(sum(base) / 20)
        assert row.method_mean == pytest.approx(sum(values[name]) / 20)
        assert row.difference == pytest.approx(sum(differences) / 20)
        ends = stats.bootstrap(
            (differences,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
        ).confidence_interval
        np.testing.assert_allclose([row.difference_low, row.difference_high], ends, rtol=1e-9)
        assert row.percent_of_means == pytest.approx(100 * (row.method_mean / row.reference_mean - 1))
        changes = [100 * (a - b) / b for a, b in zip(values[name], base, strict=True)]
        assert row.percent_per_case_mean == pytest.approx(np.mean(changes))
        assert row.percent_per_case_sd == pytest.approx(np.std(changes))
        assert row.p_t == pytest.approx(stats.ttest_rel(values[name], base).pvalue)
        assert row.p_wilcoxon == pytest.approx(stats.wilcoxon(differences).pvalue)
        assert row.p_holm == pytest.approx(corrected)
        assert row.effect_size == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_levels_by_hand(three, comparison):
    for metric, better in (("mean_dice", max), ("macro_ace", min)):
        means = {name: one.metrics[metric]["lesion"].mean() for name, one in three.items()}
        best = better(means, key=means.get)
        for name, one in three.items():
            row, values = row_of(comparison.levels, metric, "lesion", name), one.metrics[metric]["lesion"].to_numpy()
            assert (row.num_cases, row.num_seeds, row.best) == (20, 1, name == best)
            assert row["mean"] == pytest.approx(values.mean())
            assert row.sd == pytest.approx(values.std())
            assert np.isnan(row.seed_sd)
            rng = np.random.default_rng(0)
            ends = stats.bootstrap((values,), np.mean, method="BCa", rng=rng).confidence_interval
            np.testing.assert_allclose([row.low, row.high], ends, rtol=1e-9)
            apart = values - three[best].metrics[metric]["lesion"].to_numpy()
            if name != best:
                ends = stats.bootstrap((apart,), np.mean, method="BCa", rng=np.random.default_rng(0))
                low, high = ends.confidence_interval
                assert row.not_worse_than_best == (high >= 0 if better is max else low <= 0)
            else:
                assert row.not_worse_than_best


def pooled_ace(one, rows):
    pooled = BinStatistics(*(part[rows] for part in one.statistics)).pool()
    return every_calibration_error(pooled)["ace"][0, 1].item()


def test_pooled_values_are_drawn_by_cases(three):
    """Each draw by SciPy: the bins of the drawn cases, pooled."""
    found = compared(three, num_samples=400)

    def ends(statistic):
        every = (np.arange(20),)
        drawn = stats.bootstrap(every, statistic, n_resamples=400, vectorized=False, rng=np.random.default_rng(0))
        return drawn.confidence_interval

    for name, one in three.items():
        level = row_of(found.levels, "micro_ace", "lesion", name)
        assert level["mean"] == pytest.approx(one.metrics["micro_ace"]["lesion"].iloc[0], rel=1e-9)
        np.testing.assert_allclose([level.low, level.high], ends(lambda rows, one=one: pooled_ace(one, rows)))
    row = row_of(found.table, "micro_ace", "lesion", "soft")
    apart = ends(lambda rows: pooled_ace(three["soft"], rows) - pooled_ace(three["base"], rows))
    np.testing.assert_allclose([row.difference_low, row.difference_high], apart, rtol=1e-6)
    for column in ("p_t", "p_wilcoxon", "p_holm", "effect_size", "percent_per_case_mean"):
        assert np.isnan(row[column])
    assert row.percent_of_means == pytest.approx(100 * row.difference / row.reference_mean)


def test_ranks_by_hand(three, comparison):
    values = np.array([one.metrics["macro_ace"]["mean"].to_numpy() for one in three.values()])
    rng = np.random.default_rng(3)
    drawn = np.array([stats.rankdata(values[:, rng.integers(0, 20, 20)].mean(1), method="min") for _ in range(4000)])
    expected = stats.rankdata(values.mean(1), method="min")
    for place, name in enumerate(three):
        row = row_of(comparison.ranks, "macro_ace", method=name)
        assert row["rank"] == expected[place]
        assert row.share_first == pytest.approx((drawn[:, place] == 1).mean(), abs=0.04)
        assert row.rank_low <= row["rank"] <= row.rank_high
    assert comparison.ranks.groupby("metric")["share_first"].sum().tolist() == pytest.approx([1] * 8)


def test_the_order_of_cases_and_of_methods_does_not_matter(three, comparison):
    def turned(one):
        tables = {name: table[::-1] for name, table in one.metrics.items()}
        parts = BinStatistics(*(part.flip(0) for part in one.statistics))
        return dataclasses.replace(one, metrics=tables, cases=one.cases[::-1].reset_index(drop=True), statistics=parts)

    def in_order(table):
        return table.sort_values(["metric", "class", "method"]).reset_index(drop=True)

    # the cases of the first come first, so that the same ones are drawn
    some = {"soft": three["soft"], "base": turned(three["base"]), "hard": turned(three["hard"])}
    other = compared(some, num_samples=9999)
    pd.testing.assert_frame_equal(in_order(other.table), in_order(comparison.table))


def test_another_method_changes_only_what_is_corrected_for_the_number_of_tests(three, comparison):
    pair = compared({name: three[name] for name in ("base", "soft")}, num_samples=9999)
    expected = comparison.table[comparison.table["method"] == "soft"].drop(columns="p_holm").reset_index(drop=True)
    pd.testing.assert_frame_equal(pair.table.drop(columns="p_holm"), expected)
    np.testing.assert_array_equal(pair.table["p_holm"], pair.table["p_wilcoxon"])


def test_the_sides_can_be_exchanged(three):
    one, other = (compared(three, name, num_samples=9999) for name in ("base", "soft"))
    mine, theirs = row_of(one.table, method="soft"), row_of(other.table, method="base")
    assert mine.difference == pytest.approx(-theirs.difference)
    assert mine.difference_low == pytest.approx(-theirs.difference_high, rel=1e-3)
    assert mine.p_wilcoxon == pytest.approx(theirs.p_wilcoxon)


def test_equal_arguments_give_equal_numbers(three):
    one, again = compared(three), compared(three)
    pd.testing.assert_frame_equal(one.table, again.table)
    assert (compared(three, seed=1).table["difference_low"] != one.table["difference_low"]).any()
    narrow = compared(three, confidence=0.5).table
    assert (narrow["difference_low"] >= one.table["difference_low"]).all()


class TestNotInferior:
    @pytest.mark.parametrize("metric", ["mean_dice", "macro_ace"])
    def test_the_end_of_the_interval_decides(self, three, metric):
        row = row_of(compared(three, "soft").table, metric, method="hard")
        worst = -row.difference_low if metric == "mean_dice" else row.difference_high
        assert worst > 0
        for margin, kept in ((worst * 1.001, True), (worst * 0.999, False), (0, False)):
            found = row_of(compared(three, "soft", non_inferior={metric: margin}).table, metric, method="hard")
            assert (found.non_inferior, found.margin) == (kept, margin)

    def test_without_a_margin_it_is_empty(self, comparison):
        rows = comparison.table[comparison.table["metric"] != "mean_dice"]
        assert rows["non_inferior"].isna().all()
        assert rows["margin"].isna().all()
        assert comparison.table["non_inferior"].notna().sum() == 6
        assert set(compared_bools(comparison)) <= {True, False}

    def test_none_are_asked_for(self, three):
        assert compared(three, non_inferior={}).table["non_inferior"].isna().all()


def compared_bools(comparison):
    return [value for value in comparison.table["non_inferior"] if value is not None]


@pytest.mark.filterwarnings("error")
class TestCases:
    def test_those_that_not_all_have_are_listed(self, three):
        names = case_names(20)
        some = {**three, "hard": make_evaluation("hard", [*names[5:], "extra"], shift=0.05)}
        found = compared(some)
        assert found.left_out == {"base": names[:5], "hard": ["extra"], "soft": names[:5]}
        assert set(found.table["num_cases"]) == {15}
        assert row_of(found.levels, "micro_ece", method="hard")["mean"] == pytest.approx(
            np.nanmean(
                every_calibration_error(BinStatistics(*(part[:15] for part in some["hard"].statistics)).pool())["ece"]
            )
        )
        only = {name: make_evaluation(name, names[5:], shift=one) for name, one in (("base", 0), ("soft", 0.4))}
        pair = compared(only)
        for column in ("difference", "difference_low", "p_t"):
            # of 15 cases only
            assert row_of(found.table)[column] == pytest.approx(row_of(pair.table)[column])
        assert any("5 of the cases of base" in note and "case_000, case_001" in note for note in found.notes)

    def test_without_common_ones_there_is_nothing_to_compare(self, three):
        other = make_evaluation("soft", ["x", "y"])
        with pytest.raises(UserError, match=r"no case that all .*: base has case_000, .* and soft has x, y"):
            compared({"base": three["base"], "soft": other})

    def test_a_single_one_has_no_test(self):
        one = {name: make_evaluation(name, 1) for name in ("base", "soft")}
        found = compared(one)
        for column in ("difference_low", "difference_high", "p_t", "p_wilcoxon", "p_holm", "effect_size"):
            assert found.table[column].isna().all()
        row = row_of(found.table)
        assert row.difference == pytest.approx(one["soft"].values("macro_ace")[0] - one["base"].values("macro_ace")[0])
        assert "a single case, so no interval and no p-value" in row.warning
        assert any("one case only, case_000" in note for note in found.notes)
        assert row_of(found.table, "mean_dice").non_inferior is None
        assert found.ranks["share_first"].isna().all()

    def test_those_without_a_value_are_left_out_in_pairs(self, three):
        names = case_names(20)
        lacking = {
            "base": make_evaluation("base", missing=[(names[3], "lesion"), (names[4], "lesion")]),
            "soft": make_evaluation("soft", shift=0.4, missing=[(names[4], "lesion"), (names[9], "lesion")]),
        }
        found = compared(lacking, num_samples=2000)
        row = row_of(found.table, of_class="lesion")
        assert row.num_cases == 17
        assert "3 cases without a value left out" in row.warning
        kept = [index for index in range(20) if index not in (3, 4, 9)]
        values = {name: one.metrics["macro_ace"]["lesion"].to_numpy()[kept] for name, one in lacking.items()}
        differences = values["soft"] - values["base"]
        assert row.difference == pytest.approx(differences.mean())
        assert row.reference_mean == pytest.approx(values["base"].mean())
        assert row.p_wilcoxon == pytest.approx(stats.wilcoxon(differences).pvalue)
        ends = stats.bootstrap((differences,), np.mean, n_resamples=2000, rng=np.random.default_rng(0))
        np.testing.assert_allclose([row.difference_low, row.difference_high], ends.confidence_interval, rtol=1e-9)
        assert row_of(found.levels, of_class="lesion", method="base").num_cases == 18
        # the organ has all of its values, and so has the mean over what is there
        assert row_of(found.table, of_class="organ").num_cases == 20
        assert row_of(found.table).num_cases == 20

    def test_a_class_without_any_value_is_empty(self):
        names = case_names(4)
        lacking = {
            name: make_evaluation(name, 4, missing=[(case, "lesion") for case in names]) for name in ("base", "soft")
        }
        row = row_of(compared(lacking).table, of_class="lesion")
        assert row.num_cases == 0
        assert np.isnan([row.difference, row.difference_low, row.p_wilcoxon]).all()
        assert row.warning == "4 cases without a value left out"

    def test_equal_values_are_said(self, three):
        same = dataclasses.replace(three["base"], folder=Path("/made/copy"))
        found = compared({"base": three["base"], "soft": same})
        per_case = found.table[~found.table["metric"].str.startswith("micro")]
        assert (per_case["warning"] == "equal in every case, so that there is nothing to test").all()
        assert (per_case["p_wilcoxon"] == 1).all()
        assert (per_case["p_holm"] == 1).all()
        assert per_case["p_t"].isna().all()
        assert (found.table[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
        assert found.levels["best"].all()
        assert found.ranks["share_first"].tolist() == [0.5] * len(found.ranks)

    def test_few_say_what_a_test_can_reach(self):
        found = compared({name: make_evaluation(name, 5) for name in ("base", "soft")})
        assert "with 5 cases p of Wilcoxon's test cannot be below 0.0625" in row_of(found.table).warning

    def test_a_reference_near_0_is_said(self, three):
        table = three["base"].metrics["nll"].copy()
        table.iloc[2:4] = 1e-6
        near = dataclasses.replace(three["base"], metrics=three["base"].metrics | {"nll": table})
        found = compared({"base": near, "soft": three["soft"]})
        assert "the reference is near 0 in 2 cases" in row_of(found.table, "nll").warning
        assert row_of(found.table, "macro_ace").warning == ""


def test_folders_without_bins_have_no_interval_of_pooled_values(three):
    bare = {name: dataclasses.replace(one, statistics=None, cases=None, summary=None) for name, one in three.items()}
    found, full = compared(bare), compared(three)
    row = row_of(found.table, "micro_ace")
    assert row.warning == "no bin_statistics.npz of soft and base, so no interval"
    assert row.difference == pytest.approx(row_of(full.table, "micro_ace").difference)
    assert np.isnan(row.difference_low)
    columns = list(COLUMNS[:-1])
    rest = [table[~table["metric"].str.startswith("micro")][columns] for table in (found.table, full.table)]
    pd.testing.assert_frame_equal(*rest)


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"split_digest": "6" * 64},
                r"split_digest is 55555555\.\.\. in the first and 66666666\.\.\. in the second",
            ),
            ({"num_bins": 15}, None),
            ({"include_background": True}, "include_background is False in the first and True in the second"),
            ({"space": "original"}, "space is resampled in the first and original in the second"),
            ({"limit_cases": 20}, "limit_cases is None in the first and 20 in the second"),
        ],
    )
    def test_other_settings(self, three, changes, message):
        other = make_evaluation("soft", **changes)
        if message is None:
            other = dataclasses.replace(other, statistics=None)
            message = "num_bins is 10 in the first and 15 in the second"
        with pytest.raises(UserError, match=message) as refused:
            compared({"base": three["base"], "soft": other})
        for one in (three["base"], other):
            assert str(one.folder) in str(refused.value)

    def test_other_classes(self, three):
        with pytest.raises(UserError, match="class_names is organ, lesion in the first and organ, cyst in the second"):
            compared({"base": three["base"], "soft": make_evaluation("soft", classes=["organ", "cyst"])})

    def test_trial_runs_beside_others(self, three):
        trial = dataclasses.replace(three["soft"], folder=Path("/made/soft/seed_0_debug/evaluation"))
        with pytest.raises(UserError, match="debug is False in the first and True in the second"):
            compared({"base": three["base"], "soft": trial})

    def test_other_labels(self, three):
        parts = three["soft"].statistics
        changed = parts.sum_true.clone()
        changed[7, 1, 0] += 1
        other = dataclasses.replace(three["soft"], statistics=parts._replace(sum_true=changed))
        number = int(parts.sum_true[7, 1].sum())
        message = f"label of case case_007 has {number} voxels of lesion in the first and {number + 1} in the second"
        with pytest.raises(UserError, match=message):
            compared({"base": three["base"], "soft": other})

    def test_a_folder_twice(self, three):
        with pytest.raises(UserError, match="evaluation is given for base and for soft"):
            compared({"base": three["base"], "soft": three["base"]})
        with pytest.raises(UserError, match="evaluation is given twice for soft"):
            compared({"base": three["base"], "soft": [three["soft"], three["soft"]]})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"reference": "bas"}, "The reference 'bas' is none of the evaluations; did you mean base"),
            ({"primary": "macro_acc"}, "primary is 'macro_acc', which is no metric of all; did you mean macro_ace"),
            ({"non_inferior": {"dice": 0.01}}, "non_inferior names 'dice', which is no metric of all; did you mean"),
            ({"non_inferior": {"mean_dice": -1}}, "the margin of mean_dice must be a number from 0 on, not -1"),
            ({"non_inferior": {"mean_dice": "a"}}, "the margin of mean_dice must be a number from 0 on, not 'a'"),
            ({"non_inferior": 0.01}, "non_inferior must be margins by metric"),
            ({"confidence": 95}, "confidence must be a number between 0 and 1, such as 0.95, not 95"),
            ({"num_samples": 0}, "num_samples must be a whole number from 1 on, not 0"),
            ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ],
    )
    def test_wrong_options(self, three, options, message):
        with pytest.raises(UserError, match=message):
            compared(three, **options)

    def test_nothing_to_compare(self, three):
        with pytest.raises(UserError, match="nothing to compare base with"):
            compared({"base": three["base"]})
        with pytest.raises(UserError, match="soft has no evaluation"):
            compared({"base": three["base"], "soft": []})

    def test_no_common_metric(self, three):
        apart = [
            dataclasses.replace(three[name], metrics={metric: three[name].metrics[metric]})
            for name, metric in (("base", "nll"), ("soft", "brier"))
        ]
        with pytest.raises(UserError, match="no metric that all evaluations have"):
            compared({"base": apart[0], "soft": apart[1]})


def test_a_metric_that_one_lacks_is_said(three):
    less = dataclasses.replace(three["soft"], metrics={k: v for k, v in three["soft"].metrics.items() if k != "nll"})
    found = compared({"base": three["base"], "soft": less})
    assert "nll" not in set(found.table["metric"])
    assert "NLL (nll) is left out, since soft does not have it." in found.notes


def test_scores_of_cases_are_no_metrics(three):
    more = {
        name: dataclasses.replace(one, metrics=one.metrics | {"entropy_image_mean": one.metrics["nll"][["mean"]]})
        for name, one in three.items()
    }
    assert set(compared(more).table["metric"]) == set(compared(three).table["metric"])


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published results are not here")
def test_published_changes_and_p_values_come_out_to_the_digit():
    """arXiv 2506.03942: results of its code on ACDC, as they were written."""
    found = compare(
        {name: [read_evaluation(PUBLISHED / name)] for name in ("baseline", "hardl1ace", "softl1ace")}, "baseline"
    )
    assert (found.primary, set(found.table["num_cases"])) == ("macro_ace", {100})
    expected = {
        ("macro_ace", "hardl1ace"): ("-22.36", "15.05", "6.991e-26"),
        ("macro_ace", "softl1ace"): ("-41.18", "16.09", "1.385e-42"),
        ("mean_dice", "hardl1ace"): ("+0.07", "2.42", "0.981"),
        ("mean_dice", "softl1ace"): ("-1.09", "2.35", "1.148e-06"),
    }
    for (metric, method), numbers in expected.items():
        row = row_of(found.table, metric, method=method)
        told = f"{row.percent_per_case_mean:+.2f}", f"{row.percent_per_case_sd:.2f}", f"{row.p_t:.4g}"
        assert told == numbers


def test_pooled_values_of_other_cases_are_left_out(three):
    bare = dataclasses.replace(three["soft"], statistics=None, cases=None, summary=None)
    fewer = case_names(len(three["base"].case_ids))[:-3]
    base = make_evaluation("base", fewer)
    found = compared({"base": base, "soft": bare})
    row = row_of(found.table, "micro_ace")
    assert np.isnan(row.method_mean)
    assert np.isnan(row.difference)
    assert "the value of soft is of cases that not all have, so it is left out" in row.warning
    assert np.isfinite(row_of(found.table, "macro_ace").difference)


def test_few_cases_are_said_wherever_there_is_an_interval():
    found = compared({name: make_evaluation(name, 3) for name in ("base", "soft")})
    assert found.table["warning"].str.contains("with 3 cases intervals are too narrow").all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 39}, "num_samples is 39, too few for the ends of 95 % intervals; take 40 at least"),
        ({"num_samples": 999, "confidence": 0.999}, "take 2000 at least"),
    ],
)
def test_too_few_draws_are_refused(three, options, message):
    with pytest.raises(UserError, match=message):
        compared({name: three[name] for name in ("base", "soft")}, **options)


@pytest.mark.parametrize(("names", "message"), [((), "nothing to compare"), (("base", " "), "has no name")])
def test_methods_have_names(three, names, message):
    with pytest.raises(UserError, match=message):
        compare(dict.fromkeys(names, (three["base"],)), "base")
