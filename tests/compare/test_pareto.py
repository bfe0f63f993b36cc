"""The Pareto front against its definition."""

import numpy as np
import pytest

from medcalib.compare import pareto_front


def beaten(x, y, place):
    for other in range(len(x)):
        if x[other] <= x[place] and y[other] >= y[place] and (x[other] < x[place] or y[other] > y[place]):
            return True
    return False


@pytest.mark.parametrize("seed", range(20))
def test_brute_force(seed):
    rng = np.random.default_rng(seed)
    # few different values, so that there are ties
    x, y = rng.integers(0, 6, (2, 25)) / 10
    expected = [not beaten(x, y, place) for place in range(25)]
    assert pareto_front(x, y).tolist() == expected
    assert any(expected)
    assert not all(expected)


def test_order_does_not_matter_and_equal_points_share_their_fate():
    x, y = np.array([0.3, 0.1, 0.2, 0.1, 0.25]), np.array([0.9, 0.5, 0.8, 0.5, 0.8])
    front = pareto_front(x, y)
    assert front.tolist() == [True, True, True, True, False]
    order = np.random.default_rng(0).permutation(5)
    assert pareto_front(x[order], y[order]).tolist() == front[order].tolist()


def test_unknown_points_neither_win_nor_beat():
    assert pareto_front([0.0, np.nan, 0.1], [np.nan, 1.0, 0.5]).tolist() == [False, False, True]
    assert pareto_front([], []).tolist() == []


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="common shape"):
        pareto_front([0.1, 0.2], [0.1])
