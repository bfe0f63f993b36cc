import dataclasses

import numpy as np
import pandas as pd
import pytest
from tests.comparison_page import made_up
from tests.comparison_page.page_reading import PageReader

from medcalib.comparison_page import write_page
from medcalib.comparison_page.rank_table import rank_table


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    return made_up.compared(tmp_path_factory.mktemp("runs"), num_cases=8)


def test_every_rank_is_that_of_the_comparison(compared):
    metrics = ["macro_ace", "mean_dice"]
    table = rank_table(compared, metrics)
    found = compared.ranks.set_index(["metric", "method"])
    for row in table.rows:
        for metric, cell in zip(metrics, row[1:], strict=True):
            rank, low, high, share = found.loc[(metric, row[0].text)]
            assert (cell.text, cell.value) == (f"{rank:.0f}", rank)
            assert cell.detail.startswith(f"{low:.0f} to {high:.0f}, first in ")
            if share in (0, 1):
                assert cell.detail.endswith(f"first in {100 * share:.0f} %")
    assert [row[0].text for row in table.rows] == list(compared.evaluations)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.001, "< 1 %"), (0.254, "25 %"), (0.999, "> 99 %"), (1.0, "100 %")]
)
def test_only_what_never_or_always_happens_is_called_so(compared, share, text):
    ranks = compared.ranks.assign(share_first=share)
    table = rank_table(dataclasses.replace(compared, ranks=ranks), ["macro_ace"])
    assert table.rows[0][1].detail.endswith(f"first in {text}")


def test_what_is_not_known_is_left_out(compared):
    ranks = compared.ranks.assign(rank_low=np.nan, rank_high=np.nan, share_first=np.nan)
    table = rank_table(dataclasses.replace(compared, ranks=ranks), ["macro_ace", "no_metric"])
    assert len(table.columns) == 2
    assert table.rows[0][1].detail == ""
    assert rank_table(dataclasses.replace(compared, ranks=pd.DataFrame()), ["macro_ace"]) is None


def test_the_page_shows_the_ranks(compared, tmp_path, monkeypatch):
    monkeypatch.setattr("medcalib.comparison_page.page.print_figure", lambda block, styles, path: path.touch())
    read = PageReader(write_page(compared, tmp_path).read_text(encoding="utf-8"))
    ranks = compared.ranks.set_index(["metric", "method"])["rank"]
    assert float(read.row("ranks", "hard")[1]["data-value"]) == ranks["macro_ace", "hard"]
