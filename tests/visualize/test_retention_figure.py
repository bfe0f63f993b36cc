"""The figure of right and wrong predictions across uncertainty."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from tests.visualize.printed import assert_on_the_page

from medcalib.metrics import min_max, retained_accuracy
from medcalib.visualize import draw_retention


def example(count=80, seed=0):
    rng = np.random.default_rng(seed)
    correct = rng.random(count) < 0.7
    return {
        "sample_mean_uncertainty": rng.beta(2, 3, count) + 0.6 * ~correct,
        "variance": 0.01 * rng.random(count),
    }, correct


def test_bars_are_the_shares_of_right_and_wrong_predictions():
    uncertainties, correct = example()
    axes = draw_retention(uncertainties, correct, num_ranges=5).axes
    for above, values in zip(axes[:2], uncertainties.values(), strict=True):
        right, wrong = above.containers
        for bars, chosen in ((right, correct), (wrong, ~correct)):
            place = np.minimum((min_max(values)[chosen] * 5).astype(int), 4)
            expected = [np.mean(place == k) for k in range(5)]
            np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
            inside = [
                bar.get_x() >= k / 5 and bar.get_x() + bar.get_width() <= (k + 1) / 5 for k, bar in enumerate(bars)
            ]
            assert all(inside)


def test_lines_are_accuracy_and_retained_part():
    uncertainties, correct = example()
    axes = draw_retention(uncertainties, correct, thresholds=(0.25, 0.5)).axes
    for below, values in zip(axes[2:], uncertainties.values(), strict=True):
        kept, accuracy, points = below.lines
        scaled = np.sort(min_max(values))
        expected = retained_accuracy(values, correct, scaled)
        np.testing.assert_allclose(kept.get_xdata(), scaled)
        np.testing.assert_allclose(kept.get_ydata(), expected.retained)
        np.testing.assert_allclose(accuracy.get_ydata(), expected.accuracy)
        chosen = retained_accuracy(values, correct, (0.25, 0.5))
        np.testing.assert_allclose(points.get_xydata().T, [[0.25, 0.5], chosen.accuracy])
        assert [text.get_text() for text in below.texts] == [f"{value:.3f}" for value in chosen.accuracy]


def test_the_legend_counts():
    uncertainties, correct = example()
    (legend,) = draw_retention(uncertainties, correct).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:2] == [f"right ({correct.sum()})", f"wrong ({(~correct).sum()})"]


def test_nothing_wrong_and_nothing_to_tell():
    """All right, and an uncertainty that is the same for all cases."""
    figure = draw_retention({"variance": np.zeros(4), "entropy": np.arange(4.0)}, np.ones(4))
    assert figure.axes[0].texts[0].get_text() == "the same for all cases"
    assert not figure.axes[0].containers
    assert [bar.get_height() for bar in figure.axes[1].containers[1]] == [0] * 10


@pytest.mark.parametrize("number", [1, 2, 4])
def test_everything_is_readable_and_inside(number):
    uncertainties, correct = example()
    values = uncertainties["sample_mean_uncertainty"]
    figure = draw_retention({f"mutual_information_{i}": values for i in range(number)}, correct, title="phantom cells")
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert_on_the_page(figure)
    assert figure.get_size_inches()[0] <= 7


def test_pyplot_is_left_alone():
    before = dict(matplotlib.rcParams)
    draw_retention(*example())
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_retention({}, [True]), "at least one uncertainty"),
        (lambda: draw_retention({"a": [1.0]}, [True], num_ranges=0), "num_ranges must be at least 1, got 0"),
        (lambda: draw_retention({"a": [1.0, 2.0]}, [True]), "one number a case"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cases_without_uncertainty_are_counted_and_never_kept():
    values, correct = np.array([0.0, 0.2, 0.5, 1.0, np.nan]), np.array([1, 1, 1, 0, 0])
    above, below = draw_retention({"entropy": values}, correct, thresholds=[0.5, 1.0]).axes
    assert above.get_title() == "entropy (1 unknown)"
    np.testing.assert_allclose(below.lines[0].get_ydata()[-1], 0.8)
    assert [text.get_text() for text in below.texts] == ["1.000", "0.750"]
