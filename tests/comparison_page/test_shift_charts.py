"""How results decay on worse images: numbers, the figure, its place on the page."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.comparison_page import made_up

from medcalib.comparison_page import PageContext, write_page
from medcalib.comparison_page.decay_rows import shift_rows
from medcalib.comparison_page.method_rows import level_of
from medcalib.comparison_page.shift_charts import EVERY, decay, decay_table

PLACES = [(kind, level) for kind in ("noise", "blur") for level in (1, 3, 5)]


def worsened(root, factor, methods=("baseline", "hard", "soft")):
    """A comparison whose metrics are multiplied."""
    made = made_up.of_segmentations(root, methods)
    levels = made.levels.copy()
    for name in ("mean", "low", "high"):
        levels[name] *= factor
    return dataclasses.replace(made, levels=levels)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return made_up.of_segmentations(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    return {
        (kind, level): worsened(tmp_path_factory.mktemp("worse"), 1 + level * (0.2 if kind == "noise" else 0.4))
        for kind, level in PLACES
    }


def series(block, metric, variant, method, lines=True):
    (chart,) = (chart for chart in block.charts if chart.title == metric)
    (found,) = (
        part for part in chart.parts if (part.variant, part.method, part.lines) == (variant, method, lines)
    )  # fmt: skip
    return found


def test_rows_are_those_of_the_comparisons(plain, shifted):
    rows = shift_rows(plain, shifted).set_index(["corruption", "level", "method", "metric"])["mean"]
    assert rows["none", 0, "soft", "macro_ace"] == level_of(plain, "macro_ace", "soft")["mean"]
    for (kind, level), one in shifted.items():
        assert rows[kind, level, "hard", "nll"] == level_of(one, "nll", "hard")["mean"]


def test_the_order_of_cases_is_that_of_scipy(plain, shifted):
    rows = shift_rows(plain, shifted)
    found = rows[(rows["metric"] == "rank_correlation") & (rows["method"] == "soft") & (rows["level"] == 0)]["mean"]
    cases = plain.evaluations["soft"][0].cases
    expected = spearmanr(cases["entropy_foreground_mean"], 1 - cases["mean_dice"]).statistic
    assert found.item() == pytest.approx(expected)


def test_the_line_of_all_corruptions_is_their_mean_and_bars_reach_the_extremes(plain, shifted):
    block = decay(plain, shifted)
    assert list(block.variants) == [EVERY, "noise", "blur"]
    for metric, title in (("macro_ace", "ACE"), ("nll", "NLL"), ("mean_dice", "Dice")):
        values = [[level_of(plain, metric, "hard")["mean"]]]
        values += [[level_of(shifted[kind, level], metric, "hard")["mean"] for kind in ("noise", "blur")]
                   for level in (1, 3, 5)]  # fmt: skip
        found = series(block, title, EVERY, "hard", lines=False)
        np.testing.assert_allclose(found.y, [np.mean(one) for one in values])
        np.testing.assert_allclose(found.y_ends[0], [min(one) for one in values])
        np.testing.assert_allclose(found.y_ends[1], [max(one) for one in values])


def test_one_corruption_has_the_intervals_of_its_comparisons(plain, shifted):
    found = series(decay(plain, shifted), "ACE", "noise", "soft")
    assert found.x == [0, 1, 3, 5]
    rows = [level_of(one, "macro_ace", "soft") for one in (plain, *(shifted["noise", level] for level in (1, 3, 5)))]
    np.testing.assert_allclose(found.y, [row["mean"] for row in rows])
    np.testing.assert_allclose(found.y_ends, [[row["low"] for row in rows], [row["high"] for row in rows]])


def test_bars_of_methods_at_one_level_lie_beside_one_another(plain, shifted):
    block = decay(plain, shifted)
    places = {method: series(block, "ACE", EVERY, method, lines=False).x[1] for method in plain.evaluations}
    assert len(set(places.values())) == 3
    assert all(abs(place - 1) < 0.5 for place in places.values())


def test_a_corruption_that_lacks_a_level_is_not_in_the_mean(plain, shifted):
    fewer = {place: one for place, one in shifted.items() if place != ("blur", 3)}
    block = decay(plain, fewer)
    assert list(block.variants) == ["noise", "blur"]
    assert series(block, "ACE", "blur", "soft").x == [0, 1, 5]
    assert "noise" in decay_table(plain, fewer).caption


def test_one_corruption_needs_no_choice(plain, shifted):
    block = decay(plain, {place: one for place, one in shifted.items() if place[0] == "noise"})
    assert block.variants == []
    assert series(block, "ACE", "noise", "soft").x == [0, 1, 3, 5]


def test_the_table_has_the_highest_level_and_where_it_began(plain, shifted):
    table = decay_table(plain, shifted)
    (row,) = (row for row in table.rows if row[0].text == "soft")
    ace = dict(zip(table.columns, row, strict=True))["ACE"]
    worst = [level_of(shifted[kind, 5], "macro_ace", "soft")["mean"] for kind in ("noise", "blur")]
    assert ace.value == pytest.approx(np.mean(worst))
    assert ace.detail == f"from {level_of(plain, 'macro_ace', 'soft')['mean']:.4f}"


def test_guarantees_show_their_realised_risk_beside_what_they_promise(tmp_path):
    plain, worse = (worsened(tmp_path / name, 1.0) for name in ("plain", "worse"))
    for one, risks in ((plain, (0.05, 0.07)), (worse, (0.3, None))):
        folder = one.evaluations["soft"][0].folder
        folder.mkdir(parents=True)
        classes = {name: {"mean": risk} for name, risk in zip(("organ", "lesion"), risks, strict=True)}
        report = {"guarantees": {"recall_control": {"promised": 0.1, "classes": classes}}}
        (folder / "guarantees.json").write_text(json.dumps(report))
    block = decay(plain, {("noise", 2): worse})
    found = series(block, "risk, recall control", "noise", "soft")
    np.testing.assert_allclose(found.y, [0.06, 0.3])
    (chart,) = (chart for chart in block.charts if chart.title.startswith("risk"))
    assert [part.y for part in chart.parts if part.label == "promised"] == [[0.1, 0.1]]


def test_images_show_accuracy_and_the_area_under_risk_and_coverage(tmp_path):
    block = decay(made_up.of_images(tmp_path / "a"), {("noise", 2): made_up.of_images(tmp_path / "b")})
    titles = {chart.title for chart in block.charts}
    assert {"Accuracy", "area under risk and coverage", "ECE of the predicted class"} <= titles


@pytest.mark.slow
def test_the_page_has_a_section_and_a_file_for_printing(plain, shifted, tmp_path):
    page = write_page(plain, tmp_path, PageContext(shifted=shifted))
    text = page.read_text()
    assert 'id="shift"' in text
    assert "On images that were made worse" in text
    assert (tmp_path / "figures" / "shift.pdf").stat().st_size > 0
