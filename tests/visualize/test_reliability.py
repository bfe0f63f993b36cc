import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.container import BarContainer
from tests.visualize.printed import assert_on_the_page

from medcalib.functional import BinStatistics, consistency_band
from medcalib.visualize import (
    ReliabilityStyle,
    draw_case_reliability_diagrams,
    draw_dataset_reliability_diagrams,
    draw_dataset_reliability_histograms,
)

DATASET_FIGURES = [draw_dataset_reliability_diagrams, draw_dataset_reliability_histograms]


def random_statistics(cases, classes, bins=10, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (cases, classes, bins)) * (rng.random((cases, classes, bins)) > 0.2)
    confidence = (np.arange(bins) + rng.random((cases, classes, bins))) / bins
    return counts, counts * confidence, rng.binomial(counts, confidence)


def errors_by_loop(counts, sum_pred, sum_true):
    gaps = [(n, abs(p / n - t / n)) for n, p, t in zip(counts, sum_pred, sum_true, strict=True) if n > 0]
    total = sum(n for n, _ in gaps)
    values = [gap for _, gap in gaps]
    return {"ECE": sum(n * g for n, g in gaps) / total, "ACE": sum(values) / len(values), "MCE": max(values)}


def marks(axes, label):
    """The boxes of the bars with a label, from left to right or from below."""
    (found,) = [c for c in axes.containers if isinstance(c, BarContainer) and c.get_label() == label]
    return [bar.get_bbox() for bar in found]


def heat(axes):
    """The values of the cells of a heat map, 0 where there is none."""
    (cells,) = axes.collections
    return cells.get_array().filled(0)


def texts(axes):
    return "\n".join(text.get_text() for text in axes.texts)


def main_axes(figure):
    return [axes for axes in figure.axes if axes.texts or axes.lines]


def test_bars_end_at_the_observed_frequency_and_gaps_at_the_mean_confidence():
    counts, sum_pred, sum_true = (array[0] for array in random_statistics(1, 2))
    axes = draw_case_reliability_diagrams(counts, sum_pred, sum_true, ["a", "b"]).axes[1]
    known = np.flatnonzero(counts[1])
    frequency, confidence = sum_true[1, known] / counts[1, known], sum_pred[1, known] / counts[1, known]

    bars = marks(axes, "observed frequency")
    np.testing.assert_allclose([bar.x0 for bar in bars], known / 10)
    np.testing.assert_allclose([bar.x1 for bar in bars], (known + 1) / 10)
    np.testing.assert_allclose([bar.y1 for bar in bars], frequency)
    over, under = marks(axes, "over-confident"), marks(axes, "under-confident")
    np.testing.assert_allclose([gap.y0 for gap in over], frequency[confidence > frequency])
    np.testing.assert_allclose([gap.y1 for gap in over], confidence[confidence > frequency])
    np.testing.assert_allclose([gap.y0 for gap in under], confidence[confidence < frequency])
    np.testing.assert_allclose([gap.y1 for gap in under], frequency[confidence < frequency])


def test_case_panels_print_the_errors():
    counts, sum_pred, sum_true = (array[0] for array in random_statistics(1, 3))
    figure = draw_case_reliability_diagrams(counts, sum_pred, sum_true, ["a", "b", "c"], show_counts=False)
    for index, axes in enumerate(figure.axes):
        expected = errors_by_loop(counts[index], sum_pred[index], sum_true[index])
        assert texts(axes) == "\n".join(f"{name} {value:.4f}" for name, value in expected.items())


def test_count_strip_shows_every_count():
    counts, sum_pred, sum_true = (array[0] for array in random_statistics(1, 1))
    strip = draw_case_reliability_diagrams(counts, sum_pred, sum_true, ["a"]).axes[0].child_axes[0]
    np.testing.assert_allclose([bar.y1 for bar in marks(strip, "voxels")], counts[counts > 0])
    assert strip.get_yscale() == "log"


@pytest.mark.parametrize(
    ("largest", "labels"),
    [(0, ["1"]), (1, ["1"]), (2, ["1", "10"]), (10, ["1", "10"]), (11, ["1", "10²"]), (10**6 + 1, ["1", "10⁷"])],
)
def test_count_strip_ends_at_the_next_power_of_ten(largest, labels):
    figure = draw_case_reliability_diagrams([[float(largest), 0.0]], [[0.0, 0.0]], [[0.0, 0.0]], ["a"])
    strip = figure.axes[0].child_axes[0]
    ticks = strip.yaxis.get_majorticklocs()
    assert [label.get_text() for label in strip.get_yticklabels()] == labels
    assert ticks[0] == 1
    assert largest <= ticks[-1]
    low, high = strip.get_ylim()
    assert low < 1
    assert ticks[-1] < high


def test_absent_and_empty_classes_are_said_to_be_so():
    counts = np.array([[5.0, 5.0], [0.0, 0.0], [np.nan, np.nan], [5.0, 5.0]])
    sum_true = np.array([[0.0, 0.0], [0.0, 0.0], [np.nan, np.nan], [1.0, 4.0]])
    figure = draw_case_reliability_diagrams(counts, counts * [0.2, 0.8], sum_true, list("abcd"), show_counts=False)
    first, second, third, fourth = (texts(axes) for axes in figure.axes)
    assert (first, second, third) == ("class absent", "no voxels", "no voxels")
    assert fourth.startswith("ECE 0.0000")


def render(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.buffer_rgba()


def test_dataset_panels_pool_sums_and_average_cases():
    counts, sum_pred, sum_true = random_statistics(7, 2)
    sum_true[3, 1] = 0
    figure = draw_dataset_reliability_diagrams(counts, sum_pred, sum_true, ["a", "b"], show_counts=False)
    expected, per_case = [], [[] for _ in range(7)]
    for index in range(2):
        micro = errors_by_loop(*(array[:, index].sum(0) for array in (counts, sum_pred, sum_true)))
        cases = [
            errors_by_loop(counts[i, index], sum_pred[i, index], sum_true[i, index])
            for i in range(7)
            if sum_true[i, index].sum() > 0
        ]
        macro = {name: np.mean([case[name] for case in cases]) for name in micro}
        expected.append(micro)
        for i, case in zip(np.flatnonzero(sum_true[:, index].sum(-1)), cases, strict=True):
            per_case[i].append(case)
        lines = texts(figure.axes[index]).splitlines()
        for line, name in zip(lines[1:4], micro, strict=True):
            assert line == f"{name} {micro[name]:.4f} {macro[name]:.4f}".replace(" 0.", " .")
        assert lines[4] == ("cases: 7" if index == 0 else "cases: 6 of 7")
    for line, name in zip(texts(figure.axes[2]).splitlines()[1:4], ("ECE", "ACE", "MCE"), strict=True):
        averages = [
            np.mean([values[name] for values in expected]),
            np.mean([np.mean([values[name] for values in case]) for case in per_case]),
        ]
        assert line == f"{name} {averages[0]:.4f} {averages[1]:.4f}".replace(" 0.", " .")


def test_perfectly_calibrated_cases_pool_to_zero_gap():
    counts = np.array([[[10000.0]], [[1.0]]])
    confidence = np.array([[[0.901]], [[0.949]]])
    figure = draw_dataset_reliability_diagrams(counts, counts * confidence, counts * confidence, ["a"])
    assert texts(figure.axes[0]).splitlines()[1] == "ECE .0000 .0000"


def test_spread_spans_the_quartiles_of_the_cases_with_the_class():
    counts, sum_pred, sum_true = random_statistics(9, 1)
    sum_true[4] = 0
    axes = draw_dataset_reliability_diagrams(counts, sum_pred, sum_true, ["a"], show_counts=False).axes[0]
    (lines,) = [c for c in axes.collections if c.get_label() == "spread"]
    pooled = counts[:, 0].sum(0)
    for k, line in zip(np.flatnonzero(pooled), lines.get_segments(), strict=True):
        values = [sum_true[i, 0, k] / counts[i, 0, k] for i in range(9) if counts[i, 0, k] > 0 and i != 4]
        np.testing.assert_allclose(line[:, 0], sum_pred[:, 0, k].sum() / pooled[k])
        np.testing.assert_allclose(line[:, 1], np.percentile(values, [25, 75]))


def test_heat_map_counts_cases():
    counts, sum_pred, sum_true = random_statistics(30, 2)
    figure = draw_dataset_reliability_histograms(counts, sum_pred, sum_true, ["a", "b"], num_accuracy_bins=7)
    expected = np.zeros((2, 7, 10))
    for case, index, k in zip(*np.nonzero(counts), strict=True):
        # The small step down puts a frequency on an edge into the lower bin.
        row = max(int(np.ceil(sum_true[case, index, k] / counts[case, index, k] * 7 - 1e-6)) - 1, 0)
        expected[index, row, k] += 1
    panels = main_axes(figure)
    np.testing.assert_array_equal(heat(panels[0]), expected[0])
    np.testing.assert_array_equal(heat(panels[1]), expected[1])
    np.testing.assert_allclose(heat(panels[2]), expected.mean(0))
    np.testing.assert_array_equal(expected.sum(1), (counts > 0).sum(0))
    side = figure.axes[0].child_axes[1]
    np.testing.assert_allclose([bar.x1 for bar in marks(side, "voxels")], [n for n in expected[0].sum(1) if n])
    curve = panels[1].lines[-1]
    np.testing.assert_allclose(curve.get_ydata(), sum_true[:, 1].sum(0) / counts[:, 1].sum(0))
    np.testing.assert_allclose(curve.get_xdata(), sum_pred[:, 1].sum(0) / counts[:, 1].sum(0))


@pytest.mark.parametrize(("norm", "kind"), [("power", PowerNorm), ("log", LogNorm)])
def test_colour_scale_is_shared_by_the_panels(norm, kind):
    figure = draw_dataset_reliability_histograms(*random_statistics(5, 3), list("abc"), norm=norm)
    scales = {panel.collections[0].norm for panel in main_axes(figure)}
    assert len(scales) == 1
    (scale,) = scales
    assert isinstance(scale, kind)


@pytest.mark.parametrize("draw", DATASET_FIGURES)
def test_class_absent_everywhere_stays_out_of_the_mean(draw):
    counts, sum_pred, sum_true = random_statistics(4, 2)
    sum_true[:, 1] = 0
    panels = main_axes(draw(counts, sum_pred, sum_true, ["here", "missing"]))
    assert texts(panels[1]) == "class absent"
    alone = main_axes(draw(counts[:, :1], sum_pred[:, :1], sum_true[:, :1], ["here"]))[0]
    np.testing.assert_allclose(panels[2].lines[-1].get_ydata(), alone.lines[-1].get_ydata())
    assert texts(panels[2]).splitlines()[:4] == texts(alone).splitlines()[:4]
    if draw is draw_dataset_reliability_histograms:
        np.testing.assert_array_equal(heat(panels[2]), heat(alone))


@pytest.mark.parametrize("draw", DATASET_FIGURES)
def test_cases_in_another_order_give_the_same_figure(draw):
    statistics = random_statistics(6, 2)
    pictures = [
        np.asarray(render(draw(*(a[order] for a in statistics), ["a", "b"])))
        for order in (range(6), [3, 1, 5, 0, 2, 4])
    ]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(("cases", "classes"), [(1, 1), (3, 2), pytest.param(1, 15, marks=pytest.mark.slow)])
def test_every_size_can_be_saved_and_fits_the_page(tmp_path, cases, classes):
    counts, sum_pred, sum_true = random_statistics(cases, classes)
    names = [f"class number {index}" for index in range(classes)]
    figures = [draw(counts, sum_pred, sum_true, names, title="data") for draw in DATASET_FIGURES]
    figures.append(draw_case_reliability_diagrams(counts[0], sum_pred[0], sum_true[0], names))
    for figure in figures:
        width, height = figure.get_size_inches()
        assert width <= 7.0 + 1e-6
        assert height <= 10.0
        for suffix in ("png", "pdf"):
            path = tmp_path / f"figure.{suffix}"
            figure.savefig(path)
            assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("draw", "classes", "options"),
    [
        (draw_dataset_reliability_diagrams, 3, {}),
        (draw_dataset_reliability_diagrams, 4, {"title": "data", "show_average": False}),
        (draw_dataset_reliability_histograms, 1, {"show_counts": False}),
        (draw_dataset_reliability_histograms, 1, {}),
        (draw_case_reliability_diagrams, 1, {}),
    ],
)
def test_nothing_is_cut_or_covered_however_often_it_is_drawn(draw, classes, options):
    statistics = random_statistics(7, classes)
    if draw is draw_case_reliability_diagrams:
        statistics = tuple(array[0] for array in statistics)
    figure = draw(*statistics, [f"class number {index}" for index in range(classes)], **options)
    for _ in range(2):
        figure.draw_without_rendering()
        assert_on_the_page(figure)
        titles = [axes.title.get_window_extent() for axes in figure.findobj(matplotlib.axes.Axes) if axes.get_title()]
        # with their strips and the numbers below them
        panels = [axes.get_tightbbox() for axes in main_axes(figure)]
        assert figure.legends[0].get_window_extent().y1 < min(panel.y0 for panel in panels)
        assert [sum(panel.overlaps(title) for title in titles) for panel in panels] == [1] * len(titles)


def test_no_text_is_smaller_than_seven_points():
    counts, sum_pred, sum_true = random_statistics(3, 15)
    for draw in DATASET_FIGURES:
        figure = draw(counts, sum_pred, sum_true, [str(index) for index in range(15)])
        figure.canvas.draw()
        sizes = [t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
        assert min(sizes) >= 7


def test_words_and_sizes_can_be_set():
    style = ReliabilityStyle(
        count_label="images", absent_label="nicht vorhanden", panel_size=1.5, case_label="patients"
    )
    figure = draw_case_reliability_diagrams([[4.0]], [[2.0]], [[0.0]], ["a"], style=style)
    assert texts(figure.axes[0]) == "nicht vorhanden"
    assert figure.axes[0].child_axes[0].get_ylabel() == "images"
    figure = draw_dataset_reliability_diagrams([[[4.0]]], [[[2.0]]], [[[2.0]]], ["a"], style=style)
    assert texts(figure.axes[0]).splitlines()[-1] == "patients: 1"


def test_pyplot_is_left_alone():
    statistics = random_statistics(2, 2)
    before = dict(matplotlib.rcParams)
    for draw in DATASET_FIGURES:
        draw(*statistics, ["a", "b"])
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": np.ones(3)}, r"one common, non-empty shape \(class, bin\), got \(3,\)"),
        ({"sum_pred": np.ones((1, 4))}, r"got \(1, 3\), \(1, 4\) and \(1, 3\)"),
        ({"class_names": ["a", "b"]}, "must name the 1 classes of the statistics, got 2"),
        ({"counts": -np.ones((1, 3))}, "counts must not be negative, got -1"),
        ({"sum_true": np.full((1, 3), 9.0)}, "sum_true must lie between 0 and counts in every bin, got 9"),
        ({"columns": 0}, "columns must be at least 1, got 0"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {
        "counts": np.ones((1, 3)),
        "sum_pred": np.ones((1, 3)),
        "sum_true": np.ones((1, 3)),
        "class_names": "a",
    }
    with pytest.raises(ValueError, match=message):
        draw_case_reliability_diagrams(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "cubic"}, "norm must be 'power', 'log' or 'linear', got 'cubic'"),
        ({"gamma": 0.0}, "gamma must be above 0, got 0.0"),
        ({"num_accuracy_bins": 0}, "num_accuracy_bins must be at least 1, got 0"),
        ({"columns": 3}, "columns=3 leaves no room for panels in a figure 1.5 inches wide"),
    ],
)
def test_wrong_histogram_arguments_are_named(change, message):
    style = ReliabilityStyle(width=1.5) if "columns" in change else None
    with pytest.raises(ValueError, match=message):
        draw_dataset_reliability_histograms(*random_statistics(2, 2), ["a", "b"], style=style, **change)


def test_style_refuses_sizes_below_zero():
    with pytest.raises(ValueError, match="panel_size must be above 0, got -1"):
        ReliabilityStyle(panel_size=-1)


def band(axes):
    """Ends of the band in each bin."""
    found = [c for c in axes.containers if isinstance(c, BarContainer) and c.get_label() == "band"]
    return [(bar.get_bbox().y0, bar.get_bbox().y1) for container in found for bar in container]


@pytest.mark.parametrize("unit", ["case", "voxel"])
def test_band_spans_what_chance_explains(unit):
    statistics = random_statistics(8, 2)
    figure = draw_dataset_reliability_diagrams(*statistics, ["a", "b"], band_level=0.8, band_unit=unit)
    tensors = BinStatistics(*map(torch.as_tensor, statistics))
    low, high = consistency_band(tensors if unit == "case" else tensors.pool(), 0.8, unit)
    for index, axes in enumerate(main_axes(figure)[:2]):
        expected = np.stack([low[0, index], high[0, index]], 1)
        np.testing.assert_allclose(band(axes), expected[~np.isnan(expected[:, 0])])
    assert not band(main_axes(figure)[2]), "the classes of a case are not independent"
    assert "80 % band if calibrated" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_images_shown_as_one_case_have_a_band_of_each_class():
    """Each of them stands in the place of a voxel."""
    counts, sum_pred, sum_true = (part[0] for part in random_statistics(1, 2))
    figure = draw_case_reliability_diagrams(counts, sum_pred, sum_true, ["a", "b"], band_level=0.9)
    tensors = BinStatistics(*(torch.as_tensor(part)[None] for part in (counts, sum_pred, sum_true)))
    low, high = consistency_band(tensors, 0.9)
    for index, axes in enumerate(main_axes(figure)[:2]):
        expected = np.stack([low[0, index], high[0, index]], 1)
        np.testing.assert_allclose(band(axes), expected[~np.isnan(expected[:, 0])])
    assert "90 % band if calibrated" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert not band(main_axes(draw_case_reliability_diagrams(counts, sum_pred, sum_true, ["a", "b"]))[0])


def test_no_band_of_few_cases_or_unless_wanted():
    few = draw_dataset_reliability_diagrams(*random_statistics(5, 1), ["a"])
    without = draw_dataset_reliability_diagrams(*random_statistics(8, 1), ["a"], band_level=None)
    for figure in (few, without):
        assert not band(figure.axes[0])
        assert not [text for text in figure.legends[0].get_texts() if "band" in text.get_text()]
    assert band(draw_dataset_reliability_diagrams(*random_statistics(6, 1), ["a"]).axes[0])
    assert band(draw_dataset_reliability_diagrams(*random_statistics(5, 1), ["a"], band_unit="voxel").axes[0])
