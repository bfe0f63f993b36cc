import numpy as np
import pytest
from tests.comparison_page import made_up

from medcalib.comparison_page import PageContext
from medcalib.comparison_page.comparison_charts import forest, profile, sweeps, trade_off

NAMES = ("a0", "a1", "a2", "b0", "b1", "b2")
SWEEP = {"method::skip_heads": dict(zip(NAMES, (0, 1, 2, 0, 1, 2), strict=True))}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_up.of_segmentations(tmp_path_factory.mktemp("runs"), NAMES, num_cases=8)


def test_every_axis_of_differences_holds_0_and_all_intervals(made):
    for chart in forest(made, ["macro_ace", "mean_dice"]).charts:
        ends = [0, *(float(end) for part in chart.parts for ends in part.x_ends or () for end in ends)]
        assert chart.x_range[0] < min(ends)
        assert chart.x_range[1] > max(ends)


def test_the_margin_lies_on_the_bad_side(made):
    (chart,) = forest(made, ["mean_dice"]).charts
    assert chart.parts[0].x == [-0.01, -0.01]


def test_filled_points_are_those_that_no_other_beats(made):
    (chart,) = trade_off(made, ["macro_ece"], "mean_dice").charts
    points = {part.method: part for part in chart.parts if part.method}
    for name, point in points.items():
        (x,), (y,) = point.x, point.y
        rivals = [(other.x[0], other.y[0]) for other in points.values()]
        beaten = any(u <= x and v >= y and (u, v) != (x, y) for u, v in rivals)
        assert point.filled != beaten, name


def test_a_profile_runs_from_worst_to_best(made):
    (chart,) = profile(made, ["macro_ace", "mean_dice"]).charts
    values = np.array([part.x for part in chart.parts])
    np.testing.assert_allclose([values.min(0), values.max(0)], [[0, 0], [1, 1]], atol=1e-12)
    lowest_error = min(NAMES, key=lambda name: made.evaluations[name][0].metrics["macro_ace"]["mean"].mean())
    assert values[NAMES.index(lowest_error), 0] == pytest.approx(1)


def test_a_sweep_has_a_line_for_each_group(made):
    context = PageContext(sweep=SWEEP, groups={name: name[0] for name in NAMES})
    (block,) = sweeps(made, context, ["macro_ace"])
    assert [part.method for part in block.charts[0].parts] == ["a0", "b0"]
    assert all(part.x == [0, 1, 2] for part in block.charts[0].parts)


def test_another_setting_that_was_varied_divides_lines(made):
    loss = {"loss::weight": dict(zip(NAMES, (1, 1, 1, 5, 5, 5), strict=True))}
    heads, weights = sweeps(made, PageContext(sweep=SWEEP | loss), ["macro_ace"])
    assert len(heads.charts[0].parts) == 2
    assert len(weights.charts[0].parts) == 3


def test_values_that_are_no_numbers_are_places(made):
    context = PageContext(sweep={"network": dict(zip(NAMES, "xyzxyz", strict=True))})
    (block,) = sweeps(made, context, ["macro_ace"])
    assert block.charts[0].x_ticks == [(0.0, "x"), (1.0, "y"), (2.0, "z")]
