"""The figure of promised and realised risks shows every number where it belongs."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from tests.visualize.printed import assert_on_the_page

from medcalib.metrics import MeanRisk, mean_risk
from medcalib.visualize import GuaranteeRow, draw_guarantees


def risk(mean, low, high, number=40):
    return MeanRisk(mean, low, high, number, "betting")


def rows():
    random = np.random.default_rng(0)

    def row(name, found, group=None):
        number = found.num_cases
        sizes = {"stretch": random.uniform(1, 2, number), "added volume (ml)": random.gamma(2, 4, number)}
        return GuaranteeRow(name, 0.1, found, group, sizes)

    return [
        row("liver", risk(0.05, 0.03, 0.2)),
        row("liver", risk(0.12, 0.09, 0.3, 20), "vendor A"),
        row("kidney_of_$which_{", risk(0.3, 0.2, 0.4)),
        row("pancreas", mean_risk([])),
    ]


def line(axes, place):
    """Points of the lines at a height, without what was promised."""
    return [one for one in axes.lines if len(one.get_ydata()) and set(one.get_ydata()) == {place}]


def test_every_row_has_its_point_its_interval_and_what_was_promised():
    figure = draw_guarantees(rows(), "missed share")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "missed share (%)"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "liver",
        "vendor A",
        "kidney_of_$which_{",
        "pancreas",
    ]
    for place, (found, shape) in enumerate([((5, 3, 20), "o"), ((12, 9, 30), "o"), ((30, 20, 40), "D")]):
        interval, point = line(axes, place)
        np.testing.assert_allclose(interval.get_xdata(), found[1:])
        np.testing.assert_allclose(point.get_xdata(), found[:1])
        assert point.get_marker() == shape
    assert to_hex(line(axes, 1)[1].get_markerfacecolor()) == "#ffffff"
    assert len({to_hex(line(axes, place)[1].get_markerfacecolor()) for place in range(3)}) == 3
    assert line(axes, 3) == []
    promised = [one for one in axes.lines if list(one.get_xdata()) == [10, 10]]
    np.testing.assert_allclose([np.mean(one.get_ydata()) for one in promised], range(4))
    assert [text.get_text() for text in axes.texts] == [
        "5.0 [3.0, 20.0], n = 40",
        "12.0 [9.0, 30.0], n = 20",
        "30.0 [20.0, 40.0], n = 40",
        "no cases",
    ]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_every_case_has_its_size_and_the_line_is_the_median():
    given = rows()
    _, stretch, _ = draw_guarantees(given, references={"stretch": 1.0}).axes
    points = [one for one in stretch.lines if one.get_linestyle() == "None"]
    medians = [one for one in stretch.lines if one.get_color() == "black"]
    assert len(points) == len(medians) == 3
    for place, (row, cases, median) in enumerate(zip(given, points, medians, strict=False)):
        np.testing.assert_allclose(cases.get_xdata(), np.sort(row.sizes["stretch"]))
        assert np.abs(cases.get_ydata() - place).max() < 0.5
        np.testing.assert_allclose(median.get_xdata(), np.median(row.sizes["stretch"]))
    assert sum(list(one.get_xdata()) == [1.0, 1.0] for one in stretch.lines) == 1


def test_the_legend_names_what_is_there():
    def texts(chosen):
        (legend,) = draw_guarantees(chosen, confidence=0.9).legends
        assert legend.get_title().get_text() == "mean over test cases, with its 90 % interval"
        return [text.get_text() for text in legend.get_texts()]

    assert texts(rows()) == ["promised: at most", "mean not above", "mean above, interval not", "interval above"]
    assert texts(rows()[:1]) == ["promised: at most", "mean not above"]
    assert texts(rows()[3:]) == ["promised: at most"]


def test_sizes_of_very_different_magnitude_and_none():
    given = [row._replace(sizes={"ml": [1.0, np.nan, 1000.0]}) for row in rows()]
    assert draw_guarantees(given).axes[1].get_xscale() == "log"
    given = [row._replace(sizes={"ml": [0.0, 1000.0]}) for row in rows()]
    assert draw_guarantees(given).axes[1].get_xscale() == "linear"
    given = [row._replace(sizes={"ml": [np.nan]}) for row in rows()]
    draw_guarantees(given).draw_without_rendering()


@pytest.mark.parametrize("with_sizes", [True, False])
@pytest.mark.parametrize("number", [1, 8])
def test_everything_is_readable_and_inside(with_sizes, number):
    given = (rows() * 4)[:number]
    if not with_sizes:
        given = [row._replace(sizes={}) for row in given]
    figure = draw_guarantees(given, "share of the class that is missed", title="phantom")
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert_on_the_page(figure)
    assert figure.get_size_inches()[0] <= 7


def test_pyplot_is_left_alone():
    before = dict(matplotlib.rcParams)
    draw_guarantees(rows())
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="at least one row"):
        draw_guarantees([])
