"""Several seeds: a hierarchical bootstrap over seeds and cases against loops, and which seeds are drawn together."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from tests.compare.made_evaluations import make_evaluation
from tests.compare.test_comparison import compared, row_of

from medcalib.compare import bca_intervals
from medcalib.compare.metric_draws import trainings_of


def seeds_of(name, seeds, shift=0.0, checkpoint=None, **options):
    named = [{"checkpoint_digest": f"{checkpoint}{seed}"} if checkpoint else {} for seed in seeds]
    return [
        make_evaluation(name, shift=shift, seed=seed, **options, **extra)
        for seed, extra in zip(seeds, named, strict=True)
    ]


def values_of(evaluations, metric="macro_ace"):
    return np.array([one.metrics[metric]["mean"] for one in evaluations])


@pytest.fixture(scope="module")
def several():
    return {"base": seeds_of("base", (1, 2, 3)), "soft": seeds_of("soft", (1, 2, 3, 4), 0.2)}


def test_draws_by_hand(several):
    """A loop that draws the seeds of each side and, once for both, the cases."""
    found = row_of(compared(several, num_samples=9999).table)
    base, soft = (values_of(several[name]) for name in ("base", "soft"))
    difference = soft.mean() - base.mean()
    assert found.difference == pytest.approx(difference)
    rng, draws = np.random.default_rng(77), []
    for _ in range(9999):
        rows = rng.integers(0, 20, 20)
        of_soft, of_base = rng.integers(0, 4, 4), rng.integers(0, 3, 3)
        draws.append(soft[of_soft][:, rows].mean() - base[of_base][:, rows].mean())
    jackknives = [
        [[np.delete(soft, i, 1).mean() - np.delete(base, i, 1).mean() for i in range(20)]],
        [[np.delete(soft, i, 0).mean() - base.mean() for i in range(4)]],
        [[soft.mean() - np.delete(base, i, 0).mean() for i in range(3)]],
    ]
    low, high = bca_intervals([difference], [draws], [np.array(one) for one in jackknives])
    width = high[0] - low[0]
    assert found.difference_low == pytest.approx(low[0], abs=0.04 * width)
    assert found.difference_high == pytest.approx(high[0], abs=0.04 * width)


def test_tests_are_of_the_means_over_seeds(several):
    row = row_of(compared(several).table)
    base, soft = (values_of(several[name]).mean(0) for name in ("base", "soft"))
    assert row.p_t == pytest.approx(stats.ttest_rel(soft, base).pvalue)
    assert row.p_wilcoxon == pytest.approx(stats.wilcoxon(soft, base).pvalue)
    assert row.percent_per_case_sd == pytest.approx(np.std(100 * (soft / base - 1)))


def test_levels_say_how_seeds_differ(several):
    found = compared(several)
    for name, seeds in several.items():
        row, values = row_of(found.levels, method=name), values_of(seeds)
        assert row.num_seeds == len(seeds)
        assert row["mean"] == pytest.approx(values.mean())
        assert row.seed_sd == pytest.approx(values.mean(1).std(ddof=1))
        assert row.sd == pytest.approx(values.mean(0).std())


def test_a_difference_within_the_spread_of_seeds_is_said(several):
    apart = {
        "base": several["base"],
        "soft": [make_evaluation("soft", shift=s, seed=i) for i, s in enumerate((0, 0.4))],
    }
    spread = row_of(compared(apart).levels).seed_sd
    found = compared({"base": [make_evaluation("other", shift=0.2)], "soft": apart["soft"]})
    row = row_of(found.table)
    assert abs(row.difference) < spread
    assert f"smaller than the standard deviation between the seeds of one method, {spread:.3g}" in row.warning
    assert any("difference in ACE of soft is smaller than the spread between" in note for note in found.notes)
    assert any("base has one seed" in note for note in found.notes)
    assert row_of(compared({"base": several["base"], "soft": seeds_of("soft", (1, 2), 0.5)}).table).warning == ""


def test_the_order_of_seeds_does_not_matter(several):
    turned = {name: seeds[::-1] for name, seeds in several.items()}
    one, other = row_of(compared(several).table), row_of(compared(turned).table)
    assert (one.difference_low, one.difference_high) == pytest.approx((other.difference_low, other.difference_high))


def test_the_same_trainings_are_drawn_together_and_equal_seeds_are_not():
    """A calibrator on top of a training shares its luck, so that the difference does not hold it."""
    luck = {1: 0.3, 2: 0.0, 3: -0.3}

    def lucky(name, shift, checkpoint):
        return [
            make_evaluation(name, shift=shift + luck[seed], seed=seed, checkpoint_digest=f"{checkpoint}{seed}")
            for seed in (3, 1, 2)
        ]

    base = lucky("base", 0.0, "training")
    found = compared({"base": base, "same": lucky("same", 0.1, "training"), "else": lucky("else", 0.1, "another")})
    widths = {
        name: row_of(found.table, method=name).difference_high - row_of(found.table, method=name).difference_low
        for name in ("same", "else")
    }
    assert widths["else"] > 3 * widths["same"]


def test_trainings_are_known_by_their_checkpoints():
    one = seeds_of("a", (2, 1), checkpoint="x")
    trainings, in_order = trainings_of("a", one)
    assert (trainings.number, [e.seed for e in in_order]) == (2, [1, 2])
    assert trainings_of("b", seeds_of("b", (1, 2), checkpoint="x"))[0] == trainings
    assert trainings_of("b", seeds_of("b", (1, 2), checkpoint="y"))[0] != trainings
    # of folders that do not say it, each method has trainings of its own
    unknown = [seeds_of(name, (1, 2), checkpoint_digest=None) for name in ("a", "b")]
    assert len({trainings_of(name, seeds)[0] for name, seeds in zip("ab", unknown, strict=True)}) == 2
    # one training that was evaluated twice cannot tell its seeds apart
    assert trainings_of("a", [one[0], one[0]])[0].name == "method a"


def test_equal_seeds_have_no_spread():
    one = make_evaluation("base", seed=1)
    again = [dataclasses.replace(one, folder=one.folder / str(number)) for number in range(3)]
    other = dataclasses.replace(one, folder=one.folder / "other")
    found = compared({"base": [other], "again": again}, "base", num_samples=99)
    assert set(found.levels.query("method == 'again'")["seed_sd"].dropna()) <= {0.0}
    assert not found.table["warning"].str.contains("between the seeds").any()
