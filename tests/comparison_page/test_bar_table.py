import dataclasses

import pytest
from tests.comparison_page import made_up

from medcalib.compare.bar import bar_rows, demands_of
from medcalib.comparison_page.answer import answer
from medcalib.comparison_page.bar_table import bar_table
from medcalib.comparison_page.page import write_page


@pytest.fixture
def made(tmp_path):
    found = made_up.of_segmentations(tmp_path, num_cases=6)
    table = found.table.assign(percent_low=found.table["percent_of_means"] - 1, percent_high=-1.0)
    demands = demands_of({"macro_ace": "-2%", "nll": 0})
    return dataclasses.replace(found, table=table, demands=demands, bar=bar_rows(table, demands, found.margins))


def test_every_method_and_demand_has_a_cell(made):
    table = bar_table(made)
    assert list(table.columns) == [
        "Method",
        "ACE falls by 2 % or more",
        "NLL does not rise",
        "Dice is kept within 0.01",
        "Passes",
    ]
    assert [row[0].text for row in table.rows] == ["hard", "soft"]
    for row in table.rows:
        own = made.bar[made.bar["method"] == row[0].text]
        assert [cell.value for cell in row[1:-1]] == own["change"].tolist()
        for cell, verdict in zip(row[1:-1], own["verdict"], strict=True):
            assert cell.detail.endswith(f"; {verdict}")
            assert cell.mark == {"shown": "good", "missed": "bad"}.get(verdict, "")
        assert row[-1].text == ("yes" if own["passes"].all() else "no")


def test_it_stands_with_the_answer(made, tmp_path):
    assert answer(made).bar.startswith(
        "The bar was that ACE falls by 2 % or more, NLL does not rise and Dice is kept within 0.01:"
    )
    page = write_page(made, tmp_path / "page").read_text()
    start = page.index('<section id="answer"')
    section = page[start : page.index("</section>", start)]
    assert 'id="bar"' in section
    assert "The bar was that" in section


def test_without_a_bar_there_is_none(tmp_path):
    made = made_up.of_segmentations(tmp_path)
    assert bar_table(made) is None
    assert answer(made).bar == ""
