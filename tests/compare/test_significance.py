"""Paired tests against SciPy, Holm against statsmodels and against its definition."""

import numpy as np
import pytest
from scipy import stats

from medcalib.compare import holm, paired_tests, percent_change

multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests


@pytest.mark.parametrize("number", [2, 5, 13, 60, 400])
def test_p_values_are_those_of_scipy(number):
    rng = np.random.default_rng(number)
    reference = rng.gamma(2, size=number)
    values = reference + rng.normal(0.1, 0.3, number)
    found = paired_tests(values, reference)
    assert found.p_t == stats.ttest_rel(values, reference).pvalue
    assert found.p_t == pytest.approx(stats.ttest_1samp(values - reference, 0).pvalue)
    assert found.p_wilcoxon == stats.wilcoxon(values, reference).pvalue
    differences = values - reference
    assert found.effect_size == pytest.approx(differences.mean() / np.sqrt(differences.var(ddof=1)))
    # t is the effect size times the root of the number
    t = found.effect_size * np.sqrt(number)
    assert found.p_t == pytest.approx(2 * stats.t.sf(abs(t), number - 1), rel=1e-9)


def test_wilcoxon_by_brute_force():
    """Every assignment of signs is as likely where nothing differs."""
    differences = np.array([0.3, -0.1, 0.7, 0.2, 0.55, -0.05, 0.9])
    ranks = stats.rankdata(np.abs(differences))
    observed = abs((ranks * np.sign(differences)).sum())
    signs = 1 - 2 * ((np.arange(2**7)[:, None] >> np.arange(7)) & 1)
    expected = (np.abs((signs * ranks).sum(1)) >= observed).mean()
    assert paired_tests(differences, np.zeros(7)).p_wilcoxon == pytest.approx(expected)


def test_the_sides_can_be_exchanged():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30))
    one, other = paired_tests(a, b), paired_tests(b, a)
    assert one[:2] == pytest.approx(other[:2])
    assert one.effect_size == pytest.approx(-other.effect_size)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "reference", "p_t", "p_wilcoxon"),
    [
        ([0.5], [0.4], np.nan, np.nan),
        ([], [], np.nan, np.nan),
        ([0.1, 0.7, 0.3], [0.1, 0.7, 0.3], np.nan, 1),
        ([0.1, 0.7, 0.3], [0.1, 0.7 + 1e-16, 0.3], np.nan, 1),
        # all differ by the same, up to rounding
        (np.arange(9) / 10 + 0.1, np.arange(9) / 10, np.nan, 2 / 2**9),
        ([0.5, 0.5, 0.5, 0.6], [0.5, 0.5, 0.5, 0.5], 0.391002218955771, 1),
    ],
)
def test_what_cannot_be_tested_is_nan_without_a_warning(values, reference, p_t, p_wilcoxon):
    found = paired_tests(values, reference)
    np.testing.assert_allclose(found[:2], [p_t, p_wilcoxon])


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_that_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.beta(0.3, 1, rng.integers(1, 12)), 2)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_by_its_definition():
    """The k-th smallest of m is compared with alpha / (m - k + 1), until one is not rejected."""
    p = np.array([0.02, 0.004, 0.3, 0.013, 0.05])
    corrected = holm(p)
    for alpha in np.linspace(0.001, 0.999, 200):
        rejected = set()
        for step, index in enumerate(np.argsort(p)):
            if p[index] > alpha / (len(p) - step):
                break
            rejected.add(index)
        assert rejected == set(np.flatnonzero(corrected <= alpha))


def test_holm_counts_only_tests():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    assert np.isnan(holm([np.nan])).all()
    assert holm([]).tolist() == []


def test_percents_by_hand():
    values, reference = np.array([0.8, 1.2, 0.5]), np.array([1.0, 1.0, 2.0])
    found = percent_change(values, reference)
    assert found.of_means == pytest.approx(100 * (2.5 / 4 - 1))
    assert found.mean == pytest.approx((-20 + 20 - 75) / 3)
    assert found.sd == pytest.approx(np.std([-20, 20, -75]))
    assert found.near_zero == 0


@pytest.mark.filterwarnings("error")
def test_a_reference_near_0_is_counted_and_0_is_left_out():
    found = percent_change([0.2, 0.2, 0.3, 0.2], [0.1, 0.0, 0.2, 0.0001])
    assert found.near_zero == 2
    assert found.mean == pytest.approx(np.mean([100, 50, 100 * 0.1999 / 0.0001]))
    assert np.isnan(percent_change([0.1, 0.2], [0, 0])[:3]).all()
    assert percent_change([0.1, 0.2], [0, 0]).near_zero == 2
    assert np.isnan(percent_change([], [])[:3]).all()


def test_percents_have_the_sign_of_the_difference_also_below_0():
    change = percent_change([-0.5, -1.0], [-1.0, -2.0])
    assert (change.of_means, change.mean) == (50, 50)
