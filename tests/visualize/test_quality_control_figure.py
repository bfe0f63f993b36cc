import sys

import matplotlib
import numpy as np
import pytest
from tests.visualize.printed import assert_on_the_page

from medcalib.metrics import VoxelRiskCoverage, flagging_curve, risk_coverage, score_correlation
from medcalib.visualize import draw_flagging_curves, draw_risk_coverage_curves, draw_score_scatter

MINUS = "\N{MINUS SIGN}"


def cases(seed=0, count=30):
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.3, 1.0, count)
    scores = {
        "entropy_foreground_mean": 1 - quality + rng.normal(0, 0.1, count),
        "mutual information": 0.1 * (1 - quality) + rng.normal(0, 0.03, count),
        "nothing": rng.random(count),
    }
    return scores, quality


def figures():
    scores, quality = cases()
    return [
        draw_score_scatter(scores, quality, threshold=0.5, title="data"),
        draw_flagging_curves({name: flagging_curve(values, quality, 0.6) for name, values in scores.items()}),
        draw_risk_coverage_curves(
            {name: risk_coverage(values, 1 - quality) for name, values in scores.items()}, "risk"
        ),
    ]


def legend(figure):
    (found,) = figure.legends
    return found.get_title().get_text(), [text.get_text() for text in found.get_texts()]


def lines(axes):
    return {line.get_label(): line.get_xydata().T for line in axes.lines}


def test_scatter_shows_every_case_and_the_rank_correlation():
    scores, quality = cases()
    scores["nothing"][3] = np.nan
    panels = draw_score_scatter(scores, quality, quality_label="MHD (mm)").axes
    assert [axes.get_xlabel().replace("\n", " ") for axes in panels] == [name.replace("_", " ") for name in scores]
    assert panels[0].get_ylabel() == "MHD (mm)"
    for axes, values in zip(panels, scores.values(), strict=True):
        (points,) = axes.lines
        np.testing.assert_array_equal(points.get_xdata(), values)
        np.testing.assert_array_equal(points.get_ydata(), quality)
        expected = score_correlation(values, quality)
        count = 29 if np.isnan(values).any() else 30
        text = f"= {expected.correlation:+.2f}, n = {count}".replace("-", MINUS)
        text += "\n1 without score" if count == 29 else ""
        assert axes.get_title(loc="left").endswith(text)


def test_scatter_of_a_constant_score_says_that_nothing_is_defined():
    axes = draw_score_scatter({"constant": np.ones(5)}, np.arange(5.0)).axes[0]
    assert axes.get_title(loc="left").endswith("= undefined, n = 5")


def test_scatter_marks_the_threshold():
    scores, quality = cases()
    with_line, without = (draw_score_scatter(scores, quality, threshold=t).axes[0] for t in (0.55, None))
    assert [line.get_ydata()[0] for line in with_line.lines[1:]] == [0.55]
    assert len(without.lines) == 1


def test_flagging_draws_the_curves_and_their_references():
    scores, quality = cases()
    curves = {name: flagging_curve(values, quality, 0.6) for name, values in scores.items()}
    figure = draw_flagging_curves(curves)
    (axes,) = figure.axes
    title, texts = legend(figure)
    drawn = lines(axes)
    for name, curve in curves.items():
        (label,) = [text for text in texts if text.endswith(f"  {name.replace('_', ' ')}")]
        assert float(label.split()[0]) == pytest.approx(curve.area, abs=5e-4)
        np.testing.assert_array_equal(drawn[label], [curve.fraction, curve.remaining])
    first = next(iter(curves.values()))
    (random,) = [text for text in texts if text.endswith("random")]
    np.testing.assert_array_equal(drawn[random], [[0, 1], [first.poor, 0]])
    assert float(random.split()[0]) == pytest.approx(first.random_area, abs=5e-4)
    (triangle,) = axes.patches
    np.testing.assert_array_equal(triangle.get_xy()[:3], [[0, 0], [first.poor, 0], [0, first.poor]])
    assert any(set(line.get_ydata()) == {0.05} for line in axes.lines)
    assert title == "area under the curve"
    assert axes.get_ylim()[1] > max(curve.remaining.max() for curve in curves.values())


def test_flagging_of_methods_begins_at_their_mean():
    scores, quality = cases()
    values = scores["mutual information"]
    curves = {"a": flagging_curve(values, quality, 0.6), "b": flagging_curve(values, quality + 0.1, 0.6)}
    (triangle,) = draw_flagging_curves(curves).axes[0].patches
    assert triangle.get_xy()[:, 0].max() == pytest.approx((curves["a"].poor + curves["b"].poor) / 2)
    assert curves["a"].poor > curves["b"].poor


def test_risk_coverage_draws_one_oracle_where_it_is_shared():
    scores, quality = cases()
    curves = {name: risk_coverage(values, 1 - quality) for name, values in scores.items()}
    figure = draw_risk_coverage_curves(curves)
    title, texts = legend(figure)
    drawn = lines(figure.axes[0])
    assert len(drawn) == len(texts) == 4
    assert texts[0].endswith("oracle")
    np.testing.assert_array_equal(drawn[texts[0]][1], next(iter(curves.values())).oracle)
    for text, (name, curve) in zip(texts[1:], curves.items(), strict=True):
        area, excess = text.split()[:2]
        assert text.endswith(name.replace("_", " "))
        assert float(area) == pytest.approx(curve.aurc, abs=5e-4)
        assert float(excess.strip("()")) == pytest.approx(curve.excess_aurc, abs=5e-4)
        np.testing.assert_array_equal(drawn[text], [curve.coverage, curve.risk])
    assert title == "AURC (excess over the oracle)"


def test_risk_coverage_of_methods_draws_the_oracle_of_each():
    scores, quality = cases()
    curves = {f"method {shift}": risk_coverage(scores["nothing"], 1 - quality + shift) for shift in (0.0, 0.1)}
    figure = draw_risk_coverage_curves(curves)
    axes = figure.axes[0]
    assert legend(figure)[1][-1] == "oracle of each"
    for curve in curves.values():
        shown = [line for line in axes.lines if np.array_equal(line.get_ydata(), curve.risk)]
        oracle = [line for line in axes.lines if np.array_equal(line.get_ydata(), curve.oracle)]
        assert [line.get_color() for line in oracle] == [line.get_color() for line in shown]


def test_small_areas_keep_their_digits():
    metric = VoxelRiskCoverage(1.0)
    metric.update(np.linspace(0, 1, 20000), np.arange(20000) % 5000 == 4999)
    curve = metric.curve()
    texts = legend(draw_risk_coverage_curves({"entropy": curve}))[1]
    assert float(texts[1].split()[0]) == pytest.approx(curve.aurc, rel=0.01)
    assert curve.aurc < 2e-4


def test_many_curves_differ_in_colour_or_dashes():
    scores, quality = cases()
    curve = flagging_curve(scores["nothing"], quality, 0.6)
    drawn = draw_flagging_curves({f"score {number}": curve for number in range(20)}).axes[0].lines
    looks = {(line.get_color(), repr(line._unscaled_dash_pattern)) for line in drawn if "score" in line.get_label()}
    assert len(looks) == 20


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_figures_fit_a_column_and_can_be_saved(tmp_path, suffix):
    for figure in figures():
        assert figure.get_size_inches()[0] <= 3.35 + 1e-9
        path = tmp_path / f"figure.{suffix}"
        figure.savefig(path)
        assert path.stat().st_size > 1000


def test_texts_are_readable_and_lie_on_the_page():
    long = "mutual information over the predicted foreground, mean of all members of the ensemble"
    scores, quality = cases()
    drawn = [
        *figures(),
        draw_flagging_curves({long: flagging_curve(scores["nothing"], quality, 0.6)}),
        draw_score_scatter({long: scores["nothing"]}, quality),
    ]
    for figure in drawn:
        figure.draw_without_rendering()
        sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        assert min(sizes) >= 7
        assert_on_the_page(figure)


def test_without_cases_the_figures_are_empty(tmp_path):
    nothing = np.full(3, np.nan)
    for number, figure in enumerate(
        [
            draw_score_scatter({"a": nothing}, nothing),
            draw_flagging_curves({"a": flagging_curve(nothing, nothing, 0.5)}),
            draw_risk_coverage_curves({"a": risk_coverage(nothing, nothing)}),
        ]
    ):
        figure.savefig(tmp_path / f"{number}.png")


def test_pyplot_is_left_alone():
    before = dict(matplotlib.rcParams)
    figures()
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_score_scatter({}, [1.0]), "at least one score"),
        (lambda: draw_flagging_curves({}), "at least one score"),
        (lambda: draw_risk_coverage_curves({}), "at least one score"),
        (lambda: draw_score_scatter({"a": [1.0]}, [1.0], columns=0), "columns must be at least 1, got 0"),
        (lambda: draw_score_scatter({"a": [1.0]}, [1.0, 2.0]), "one number a case"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cases_without_a_score_are_counted_in_every_figure():
    scores, quality = cases(count=12)
    values = np.array(next(iter(scores.values())))
    values[:2] = np.nan
    scatter = draw_score_scatter({"entropy": values}, quality)
    assert scatter.axes[0].get_title(loc="left").endswith("n = 10\n2 without score")
    flagging = draw_flagging_curves({"entropy": flagging_curve(values, quality, 0.6)})
    coverage = draw_risk_coverage_curves({"entropy": risk_coverage(values, 1 - np.asarray(quality))})
    for figure in (flagging, coverage):
        assert legend(figure)[1][-1].endswith("entropy, 2 without score")
