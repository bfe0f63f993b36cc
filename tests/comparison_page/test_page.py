import json
import re
import shutil

import numpy as np
import pytest
from tests.comparison_page import made_up
from tests.comparison_page.page_reading import PageReader

from medcalib.comparison_page import PageContext, write_page
from medcalib.comparison_page.metric_words import main_metrics
from medcalib.errors import UserError

CONTEXT = PageContext(
    title="Losses on <phantoms> & more",
    question="Is Dice kept?",
    commands=["medcalib study studies/a.yaml", "medcalib compare --reference 'base'"],
    sweep={"method::skip_heads": {"baseline": 0, "hard": 1, "soft": 2}},
    true_names={"hard": "hard-binned L1-ACE"},
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    made = made_up.compared(tmp_path_factory.mktemp("runs"), num_cases=10)
    made_up.add_predictions(made)
    made_up.add_costs(made)
    return made


@pytest.fixture
def without_printing(monkeypatch):
    """Leave out what takes longest."""
    monkeypatch.setattr("medcalib.comparison_page.page.print_figure", lambda block, styles, path: path.touch())


@pytest.fixture(scope="module")
def page(compared, tmp_path_factory):
    return write_page(compared, tmp_path_factory.mktemp("out"), CONTEXT)


@pytest.fixture(scope="module")
def read(page):
    return PageReader(page.read_text(encoding="utf-8"))


def test_every_part_is_there_in_order(read):
    assert read.headings == [
        "Losses on <phantoms> & more", "Answer", "All methods", "Differences to baseline", "Calibration against Dice",
        "Settings that were varied", "Reliability", "Does uncertainty find poor segmentations?",
        "Correlation of uncertainty with quality", "By class", "By stratum", "Cost", "Gallery",
        "Notes and cases left out", "Provenance",
    ]  # fmt: skip


def test_the_main_table_shows_the_levels_with_calibration_never_alone(read, compared):
    metrics = main_metrics(compared.levels["metric"].unique(), compared.primary)
    assert metrics[0] == compared.primary
    assert {"macro_ace", "mean_dice", "nll", "brier"} <= set(metrics)
    levels = compared.levels[compared.levels["class"] == "mean"].set_index(["metric", "method"])
    for method in compared.evaluations:
        cells = read.row("levels", method)
        assert [float(cell["data-value"]) for cell in cells[1:]] == [
            levels.loc[(one, method), "mean"] for one in metrics
        ]
        assert ["★" in cell["text"] for cell in cells[1:]] == [levels.loc[(one, method), "best"] for one in metrics]
    assert len(read.tables["levels"]) == 1 + len(compared.evaluations)


def test_the_differences_are_those_of_the_comparison(read, compared):
    columns = ["method_mean", "difference", "percent_of_means", "percent_per_case_mean"]
    columns += ["p_t", "p_wilcoxon", "p_holm", "effect_size"]
    table = compared.table[compared.table["class"] == "mean"].set_index(["metric", "method"])
    for metric in main_metrics(compared.levels["metric"].unique(), compared.primary):
        for method in ("hard", "soft"):
            shown = [float(cell["data-value"]) for cell in read.row(f"difference-{metric}", method)[1:9]]
            np.testing.assert_array_equal(shown, table.loc[(metric, method), columns].astype(float))


def test_an_interval_that_holds_0_shows_no_difference(read, compared):
    for row in compared.table[compared.table["class"] == "mean"].itertuples():
        cells = read.row(f"difference-{row.metric}", row.method)
        if row.difference_low <= 0 <= row.difference_high:
            assert cells[9]["text"] == "no difference shown"
        elif row.p_holm <= 0.05:
            assert cells[9]["text"] == ("better" if (row.difference > 0) == (row.metric == "mean_dice") else "worse")


def test_what_is_known_of_strata_cost_and_origin_is_shown(read, compared):
    vendors = compared.evaluations["soft"][0].summary["strata"]["vendor"]
    cells = read.row("strata-vendor-mean_dice", "soft")
    assert [float(cell["data-value"]) for cell in cells[1:]] == [vendors[one]["mean_dice"] for one in ("A", "B")]
    assert [cell["text"] for cell in read.row("cost", "soft")[1:]] == ["10 min 00 s", "50", "–", "2.5 GB", "–"]  # noqa: RUF001
    assert "aaaaaaaaaaaa" in [cell["text"] for cell in read.row("provenance", "soft")]
    assert "medcalib compare --reference 'base'" in read.text
    assert "hard-binned L1-ACE" in read.text


def test_the_figures_of_the_page_lie_beside_it_for_printing(page):
    drawn = re.findall(r'data-figure="(\w+)"', page.read_text(encoding="utf-8"))
    assert len(drawn) >= 8
    assert {path.stem for path in (page.parent / "figures").iterdir()} == set(drawn)
    assert all(path.read_bytes().startswith(b"%PDF") for path in (page.parent / "figures").iterdir())


def test_the_figures_hold_the_numbers_of_the_comparison(page, compared):
    charts = [
        json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page.read_text())
    ]
    point = compared.table.query("metric == 'macro_ace' and `class` == 'mean' and method == 'soft'").iloc[0]
    (trace,) = [one for one in charts[0]["data"] if one["meta"]["method"] == "soft"]
    assert trace["x"] == pytest.approx([point["difference"]], rel=1e-4)
    assert trace["error_x"]["array"] == pytest.approx([point["difference_high"] - point["difference"]], rel=1e-3)


def test_the_page_asks_nobody_for_anything(page):
    text = page.read_text(encoding="utf-8")
    beside_plotly = text[: text.rindex("<script>", 0, text.rindex("<script>"))]
    assert "Content-Security-Policy" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#|figures/)', beside_plotly)
    assert text.count("plotly.js v") <= 2


@pytest.mark.usefixtures("without_printing")
def test_names_are_shown_letter_by_letter(tmp_path):
    names = ("base", "</script><script>alert(1)</script>", "$x_{1}$ <b>&amp;</b>")
    made = made_up.of_segmentations(tmp_path, names, num_cases=4, classes=("<i>organ</i>",), strata=False)
    page = write_page(made, tmp_path / "out", PageContext(title="<u>", commands=["a <b>"]))
    text = page.read_text(encoding="utf-8")
    own = text[: text.index('id="palette"')]
    assert not [mark_up for mark_up in ("<script>alert", "<i>", "<b>", "<u>") if mark_up in own]
    read = PageReader(text)
    assert names[1] in read.row("levels", "</script>")[0]["text"]
    assert names[2] in read.text
    assert "A note <b>of</b> the comparison." in read.text


@pytest.mark.usefixtures("without_printing")
def test_what_is_missing_is_said_and_left_out(tmp_path):
    made = made_up.of_segmentations(tmp_path, num_cases=4)
    bare = {
        name: tuple(made_up.without(one, "summary", "cases", "statistics", "quality_control") for one in seeds)
        for name, seeds in made.evaluations.items()
    }
    page = write_page(made_up.comparison(bare, "baseline", "macro_ace", {}), tmp_path / "out")
    read = PageReader(page.read_text(encoding="utf-8"))
    for told in ("bin_statistics.npz", "cases.csv", "inference_pred", "cost/", "attributes", "commands"):
        assert told in read.text, told
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {"forest", "trade_off", "profile"}


@pytest.mark.usefixtures("without_printing")
def test_one_case_is_no_difference(tmp_path):
    made = made_up.compared(tmp_path, num_cases=1)
    read = PageReader(write_page(made, tmp_path / "out").read_text(encoding="utf-8"))
    assert "othing can be said about" in read.text
    assert "There is one case only" in read.text


def test_images_have_accuracy_and_retention_instead_of_dice(tmp_path):
    page = write_page(made_up.of_images(tmp_path), tmp_path / "out")
    read = PageReader(page.read_text(encoding="utf-8"))
    heads = " ".join(cell["text"] for cell in read.tables["levels"][0])
    assert all(one in heads for one in ("ECE", "AUC", "Accuracy", "NLL", "Brier"))
    assert "Dice" not in read.text
    assert "Gallery" not in read.headings
    assert (page.parent / "figures" / "retention.pdf").is_file()


@pytest.mark.usefixtures("without_printing")
def test_a_later_page_replaces_the_earlier_one_with_its_figures(page, tmp_path):
    shutil.copytree(page.parent, tmp_path / "out")
    made = made_up.of_segmentations(tmp_path / "runs", num_cases=4)
    bare = {
        name: tuple(made_up.without(one, "statistics") for one in seeds) for name, seeds in made.evaluations.items()
    }
    write_page(made_up.comparison(bare, "baseline", "macro_ace", {}), tmp_path / "out")
    assert not (tmp_path / "out" / "figures" / "reliability.pdf").exists()
    assert (tmp_path / "out" / "figures" / "forest.pdf").is_file()


@pytest.mark.usefixtures("without_printing")
def test_a_file_in_the_place_of_the_figures_is_kept_and_told(tmp_path):
    (tmp_path / "figures").write_text("mine")
    with pytest.raises(UserError, match="figures"):
        write_page(made_up.of_segmentations(tmp_path / "runs", num_cases=3), tmp_path)
    assert (tmp_path / "figures").read_text() == "mine"
    assert not (tmp_path / "index.html").exists()


@pytest.mark.parametrize(("primary", "error"), [("macro_ace", "ACE"), ("nll", "ECE"), ("mean_dice", "ECE")])
def test_dice_is_drawn_against_the_error_that_decides(tmp_path, primary, error):
    made = made_up.of_segmentations(tmp_path / "runs", ("a", "b"), num_cases=3, primary=primary)
    page = write_page(made, tmp_path / "out").read_text(encoding="utf-8")
    assert {one for one in ("ACE", "ECE", "Dice") if f"Dice against {one}" in page} == {error}
