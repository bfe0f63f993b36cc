"""The scatter of calibration error against Dice."""

import itertools
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from medcalib.visualize.scatter import draw_calibration_scatter

NAMES = ["uncalibrated", "auxiliary", "isotonic", "local_temperature_scaling", "platt_scaling", "vector_scaling"]
LOSSES = ["baseline_ce", "baseline_dice_ce", "softl1ace_dice_ce"]


def points(seed=0, count=6):
    rng = np.random.default_rng(seed)
    ece, dice = 0.003 + 2e-4 * rng.normal(size=count), 0.88 + 5e-3 * rng.normal(size=count)
    return ece, dice, np.stack([ece - 2e-4, ece + 3e-4], 1), np.stack([dice - 4e-3, dice + 2e-3], 1)


def front(ece, dice):
    return np.array(
        [not any((ece <= e) & (dice >= d) & ((ece < e) | (dice > d))) for e, d in zip(ece, dice, strict=True)]
    )


def of_losses(seed=0):
    ece, dice, *intervals = points(seed, 18)
    return draw_calibration_scatter(NAMES * 3, ece, dice, *intervals, front(ece, dice), np.repeat(LOSSES, 6))


def figures():
    ece, dice, *intervals = points()
    return [
        draw_calibration_scatter(NAMES, ece, dice, *intervals, front(ece, dice), title="hippocampus"),
        draw_calibration_scatter(NAMES, ece, dice, front=front(ece, dice)),
        draw_calibration_scatter(NAMES[:1], ece[:1], dice[:1]),
        of_losses(),
    ]


def names(axes):
    return [text for text in axes.texts if text.get_text()]


def markers(axes):
    return [line for line in axes.lines if line.get_marker() not in ("None", None, "")]


def boxes(axes):
    return [text.get_window_extent() for text in names(axes)]


def test_every_point_and_its_cross_are_where_they_belong():
    ece, dice, ece_intervals, dice_intervals = points()
    (axes,) = draw_calibration_scatter(NAMES, ece, dice, ece_intervals, dice_intervals).axes
    drawn = markers(axes)
    np.testing.assert_allclose([line.get_xdata()[0] for line in drawn], ece)
    np.testing.assert_allclose([line.get_ydata()[0] for line in drawn], dice)
    arms = np.array([collection.get_segments()[0] for collection in axes.collections]).reshape(6, 2, 2, 2)
    np.testing.assert_allclose(arms[:, 0, :, 0], ece_intervals)
    np.testing.assert_allclose(arms[:, 1, :, 1], dice_intervals)
    left, right = axes.get_xlim()
    assert left < ece_intervals.min() < ece_intervals.max() < right


def test_points_on_the_front_are_filled_and_bounded():
    ece, dice, *_ = points()
    on_front = front(ece, dice)
    (axes,) = draw_calibration_scatter(NAMES, ece, dice, front=on_front).axes
    white = [to_rgba(line.get_markerfacecolor()) == to_rgba("white") for line in markers(axes)]
    assert white == (~on_front).tolist()
    (border,) = [line for line in axes.lines if line not in markers(axes)]
    corners = border.get_xydata()
    for x, y in zip(ece[on_front], dice[on_front], strict=True):
        assert np.isclose(corners, [x, y]).all(1).any()
    # it only ever runs to the right or upwards, and no point lies beyond it
    steps = np.diff(corners, axis=0)
    assert (steps >= 0).all()
    assert (np.minimum(*steps.T) == 0).all()
    for x, y in zip(ece, dice, strict=True):
        assert y <= corners[corners[:, 0] <= x + 1e-12, 1].max() + 1e-12


def test_without_groups_every_point_has_its_name():
    ece, dice, *_ = points()
    (axes,) = draw_calibration_scatter(NAMES, ece, dice).axes
    assert [text.get_text() for text in names(axes)] == [name.replace("_", " ") for name in NAMES]


def test_groups_are_told_apart_by_colour_and_names_by_marker():
    figure = of_losses()
    axes = figure.axes[0]
    drawn = markers(axes)
    assert len({line.get_color() for line in drawn}) == 3
    assert len({line.get_marker() for line in drawn}) == 6
    for group in range(3):
        assert len({line.get_color() for line in drawn[6 * group : 6 * group + 6]}) == 1
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    words = [name.replace("_", " ") for name in (*LOSSES, *NAMES)]
    assert told == [*words, "Pareto front (filled)"]
    ece, dice, *_ = points(0, 18)
    assert len(names(axes)) == front(ece, dice).sum() > 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spread", [1.0, 0.05])
def test_labels_cover_neither_each_other_nor_a_point(seed, spread):
    """Also of points that lie almost upon each other."""
    ece, dice, ece_intervals, dice_intervals = points(seed)
    ece, dice = ece[0] + spread * (ece - ece[0]), dice[0] + spread * (dice - dice[0])
    figure = draw_calibration_scatter(NAMES, ece, dice, ece_intervals, dice_intervals)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert len(names(axes)) == len(NAMES)
    for one, other in itertools.combinations(boxes(axes), 2):
        assert not one.overlaps(other)
    frame = axes.get_window_extent()
    for box in boxes(axes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
        for point in axes.transData.transform(np.stack([ece, dice], 1)):
            assert not box.contains(*point)


def test_unknown_points_are_left_out():
    ece, dice, *_ = points()
    ece[2] = np.nan
    (axes,) = draw_calibration_scatter(NAMES, ece, dice).axes
    assert "isotonic" not in [text.get_text() for text in names(axes)]
    assert len(names(axes)) == 5


def test_an_interval_without_its_value_has_an_arm_of_no_length():
    intervals = np.array([[0.2, 0.3], [np.nan, np.nan]])
    (axes,) = draw_calibration_scatter(["a", "b"], [0.1, 0.2], [0.5, 0.6], intervals).axes
    arms = [collection.get_segments()[0] for collection in axes.collections]
    np.testing.assert_allclose([arm[:, 0] for arm in arms[::2]], [[0.1, 0.3], [0.2, 0.2]])


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_figures_fit_a_column_and_can_be_saved(tmp_path, suffix):
    for figure in figures():
        assert figure.get_size_inches()[0] <= 3.35 + 1e-9
        figure.savefig(tmp_path / f"figure.{suffix}")
        assert (tmp_path / f"figure.{suffix}").stat().st_size > 1000


def test_texts_are_readable_and_lie_on_the_page():
    for figure in figures():
        figure.draw_without_rendering()
        sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        assert min(sizes) >= 7
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01


def test_pyplot_is_left_alone():
    before = dict(matplotlib.rcParams)
    figures()
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "one value a point"),
        ((["a"], [0.1, 0.2], [0.5]), "one value a point"),
        ((["a"], [0.1], [0.5], [0.1, 0.2]), r"two ends a point, \(1, 2\)"),
        ((["a"], [0.1], [0.5], None, None, [True, False]), "front and groups must hold one value a point"),
        ((["a"], [0.1], [0.5], None, None, None, ["x", "y"]), "front and groups must hold one value a point"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_calibration_scatter(*arguments)
