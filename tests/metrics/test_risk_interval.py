"""Intervals of a mean loss: SciPy's for shares, and coverage, a slow search and laws for losses in between."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from medcalib.functional import hoeffding_bentkus_p_values
from medcalib.metrics import mean_risk


@pytest.mark.parametrize(("events", "number"), [(0, 1), (0, 40), (3, 40), (20, 40), (40, 40), (7, 300)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_shares_have_the_interval_of_scipy(events, number, confidence):
    found = mean_risk(np.repeat([1, 0], [events, number - events]), binary=True, confidence=confidence)
    expected = binomtest(events, number).proportion_ci(confidence, method="exact")
    np.testing.assert_allclose(found[:3], [events / number, *expected], atol=1e-12)
    assert found[3:] == (number, "Clopper-Pearson")


def test_the_ends_are_where_a_player_would_have_won_enough():
    """A search over many expectations, with the capital as the plain mean of products."""
    losses = np.random.default_rng(0).beta(1, 8, 30)
    found = mean_risk(losses, confidence=0.9)
    bets = np.sin((np.arange(64) + 0.5) * np.pi / 128) ** 2

    def capital(values, expectation):
        return np.mean([np.prod(1 + bet * (values / expectation - 1)) for bet in bets])

    tried = np.linspace(0.005, 0.995, 199)
    held = [m for m in tried if capital(losses, m) < 20 and capital(1 - losses, 1 - m) < 20]
    np.testing.assert_allclose([held[0], held[-1]], [found.low, found.high], atol=0.005)


LAWS = {
    "small": lambda random, shape: random.beta(2, 20, shape),
    "rare and large": lambda random, shape: (random.random(shape) < 0.06) * random.uniform(0.5, 1, shape),
    "shares": lambda random, shape: (random.random(shape) < 0.1) * 1.0,
}


@pytest.mark.parametrize("law", LAWS)
def test_the_expectation_is_held_as_often_as_promised(law):
    drawn = LAWS[law](np.random.default_rng(1), (300, 25))
    expectation = LAWS[law](np.random.default_rng(2), 10**6).mean()
    found = [mean_risk(losses, confidence=0.8) for losses in drawn]
    held = np.mean([one.low <= expectation <= one.high for one in found])
    assert held >= 0.8 - 4 * math.sqrt(0.8 * 0.2 / 300)
    assert all(0 <= one.low <= one.mean <= one.high <= 1 for one in found)


@pytest.mark.parametrize("law", ["small", "rare and large"])
def test_narrower_than_the_bound_of_hoeffding_and_bentkus(law):
    losses = LAWS[law](np.random.default_rng(3), 60)
    levels = np.linspace(0.01, 0.99, 99)
    of_losses = torch.from_numpy(losses)[:, None]
    refused = [hoeffding_bentkus_p_values(of_losses, level).item() <= 0.025 for level in levels]
    assert mean_risk(losses).high < levels[refused.index(True)]


def test_more_cases_tell_more_and_their_order_nothing():
    losses = np.random.default_rng(4).beta(1, 6, 40)
    found = mean_risk(losses)
    assert mean_risk(losses[::-1]) == found
    assert mean_risk(np.append(losses, np.nan)) == found
    more = mean_risk(np.tile(losses, 10))
    assert found.low < more.low < more.high < found.high
    wider = mean_risk(losses, confidence=0.99)
    assert wider.low < found.low < found.high < wider.high
    np.testing.assert_allclose(
        [1 - found.high, 1 - found.low], [mean_risk(1 - losses).low, mean_risk(1 - losses).high], atol=1e-9
    )


def test_losses_all_alike_and_none():
    assert mean_risk([np.nan])[3] == 0
    assert np.isnan(mean_risk([])[:3]).all()
    assert mean_risk([0.0] * 30).low == 0
    # no bound that holds for all losses can be below that of shares
    assert mean_risk([0.0] * 30).high >= 1 - 0.025 ** (1 / 30)
    assert mean_risk([1.0] * 30).high == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.1]],), "one number a case"),
        (([0.1, 1.2],), "between 0 and 1, got 0.1 to 1.2"),
        (([0.5], True), "0 or 1"),
        (([0.5], False, 1.0), "confidence must lie between"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        mean_risk(*arguments)
