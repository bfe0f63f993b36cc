"""Tables of a comparison on disk and on the screen."""

import numpy as np
import pandas as pd
import pytest
from tests.compare.made_evaluations import case_names, make_evaluation
from tests.compare.test_comparison import compared

from medcalib.compare import comparison_text, write_tables
from medcalib.compare.comparison import COLUMNS
from medcalib.compare.comparison_tables import difference_table


@pytest.fixture(scope="module")
def comparison():
    missing = [(case_names(20)[3], "lesion")]
    some = {"base": make_evaluation("base", missing=missing), "a_&_b": make_evaluation("soft", shift=0.4)}
    return compared(some | {"other|one": make_evaluation("other", case_names(22), shift=0.01)})


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison") / "out"
    write_tables(comparison, path)
    return path


def test_there_are_seven_files(folder):
    assert {path.name for path in folder.iterdir()} == {
        "comparison.csv", "comparison.md", "comparison.tex", "levels.csv", "levels.md", "levels.tex", "ranks.csv",
    }  # fmt: skip


def test_csv_files_hold_every_number(comparison, folder):
    read = pd.read_csv(folder / "comparison.csv", float_precision="round_trip")
    assert tuple(read.columns) == COLUMNS
    numbers = read.select_dtypes("number").columns
    np.testing.assert_array_equal(read[numbers], comparison.table[numbers].astype(float))
    words = read["warning"].fillna("")
    assert words.tolist() == comparison.table["warning"].tolist()
    # empty where no margin was asked for
    asked = read["metric"] == "mean_dice"
    assert set(read["non_inferior"][asked]) <= {True, False}
    assert read["non_inferior"][~asked].isna().all()
    line = (folder / "comparison.csv").read_text().splitlines()[-1]
    assert ",,nan," in line
    levels = pd.read_csv(folder / "levels.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(levels, comparison.levels, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "ranks.csv"), comparison.ranks, check_dtype=False)


def test_markdown_has_a_cell_for_each_column(comparison, folder):
    for name in ("comparison", "levels"):
        lines = (folder / f"{name}.md").read_text().replace("\\|", "").splitlines()
        assert len({line.count("|") for line in lines}) == 1
    assert "| base | " in (folder / "levels.md").read_text()
    assert "other\\|one" in (folder / "levels.md").read_text()
    best = comparison.levels.query("metric == 'macro_ace' and `class` == 'mean' and best").iloc[0]
    assert f"**{best['mean']:#.4g} [" in (folder / "levels.md").read_text()


def test_latex_is_a_table_of_booktabs(comparison, folder):
    text = (folder / "comparison.tex").read_text()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert r"a\_\&\_b" in text
    assert r"of means, \%" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(comparison.table[comparison.table["class"] == "mean"])
    assert {line.replace(r"\&", "").count("&") for line in rows} == {11}
    assert r"\textbf{" in (folder / "levels.tex").read_text()


def test_what_is_printed(comparison):
    text = comparison_text(comparison)
    assert "3 methods on 20 cases, each against base" in text
    assert "Cases of other|one that not all have, left out: case_020, case_021." in text
    assert "Every method has one seed" in text
    row = comparison.table.query("metric == 'macro_ace' and `class` == 'mean'").iloc[0]
    assert f"{row.percent_per_case_mean:+.2f} ± {row.percent_per_case_sd:.2f}" in text
    assert f"{row.p_t:.4g}" in text


def test_of_one_case_there_are_no_intervals(tmp_path):
    found = compared({name: make_evaluation(name, 1) for name in ("base", "soft")})
    assert "a single case, so no interval and no p-value" in comparison_text(found)
    write_tables(found, tmp_path)
    assert "[" not in (tmp_path / "levels.md").read_text()


@pytest.mark.parametrize("reference", ["metric", "method", "value", "d"])
def test_a_reference_may_be_called_as_a_column(reference):
    found = compared({name: make_evaluation(name) for name in (reference, "other")}, reference, num_samples=99)
    table = difference_table(found)
    assert len(table.columns) == 12
    assert table["metric"][0] == "Dice"
    assert table[f"reference {reference}"][0] == f"{found.table['reference_mean'][2]:#.4g}"


def test_metrics_may_be_called_as_titles_and_columns(tmp_path):
    given = {name: make_evaluation(name) for name in ("base", "soft")}
    for one in given.values():
        one.metrics.update({"Dice": one.metrics["mean_dice"], "method": one.metrics["nll"]})
    write_tables(compared(given, "base", num_samples=99), tmp_path)
    head = (tmp_path / "levels.md").read_text().partition("\n")[0]
    for title in ("| method |", "Dice (mean_dice)", "Dice (Dice)", "method (method)"):
        assert head.count(title) == 1


def test_one_case_is_one_case():
    found = compared({name: make_evaluation(name, 1) for name in ("base", "soft")}, "base", num_samples=99)
    assert "2 methods on 1 case, each" in comparison_text(found)
