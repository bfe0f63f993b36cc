"""Below which Dice a case is poor."""

import json

import numpy as np
import pytest

from medcalib.errors import UserError
from medcalib.metrics.poor_limit import find_poor_limit, poor_limit_words, poor_share


@pytest.mark.parametrize("number", [2, 5, 10, 40])
@pytest.mark.parametrize("percent", [5, 10, 25])
def test_a_share_is_the_quantile_of_the_calibration_dice(number, percent):
    """Written out: between the two cases around the place (n - 1) * share, counted from the worst."""
    dice = np.random.default_rng(number).uniform(size=number)
    ordered, place = np.sort(dice), (number - 1) * percent / 100
    below = int(place)
    wanted = ordered[below] + (place - below) * (ordered[min(below + 1, number - 1)] - ordered[below])
    limit = find_poor_limit(f"{percent}%", dice)
    assert limit.value == pytest.approx(wanted)
    assert (limit.origin, limit.num_cases) == ("calibration cases", number)
    # the worst one is poor, however few there are
    assert np.sum(dice < limit.value) >= 1


def test_cases_without_dice_have_no_say():
    assert find_poor_limit("10%", [0.5, np.nan, 0.9]).value == pytest.approx(0.54)
    assert find_poor_limit("10%", [0.5, np.nan, 0.9]).num_cases == 2


@pytest.mark.parametrize("dice", [None, [], [np.nan]])
def test_without_calibration_cases_it_is_the_default_and_said_so(dice):
    limit = find_poor_limit("10%", dice)
    assert (limit.value, limit.origin) == (0.8, "default")
    words = poor_limit_words({"poor_below": limit.value, "poor_below_from": limit.recorded()})
    assert words == "0.8 (the default, as no Dice of calibration cases is known)"


def test_a_number_is_that_number():
    limit = find_poor_limit(0.65, [0.1, 0.2, 0.3])
    assert (limit.value, limit.origin, limit.num_cases) == (0.65, "given", 0)
    assert poor_limit_words({"poor_below": 0.65, "poor_below_from": limit.recorded()}) == "0.65 (as set)"


def test_what_is_recorded_survives_json():
    limit = find_poor_limit("10%", [0.5, 0.7, 0.9])
    assert json.loads(json.dumps(limit.recorded())) == limit.recorded()


@pytest.mark.parametrize("value", ["10", "ten%", "0%", "100%", "-5%", "", "%", "nan%", 1.5, -0.1, float("nan")])
def test_what_is_neither_a_dice_nor_a_share_is_refused(value):
    with pytest.raises(UserError, match=r"must be a Dice from 0 to 1, or a share of the calibration cases such as 10%"):
        poor_share(value)
