"""The examples of docs/using_parts.md run as they stand."""

import re

import pytest
import torch
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "using_parts.md"


def test_the_page_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == PAGE.read_text().count("\n## ") + 1
    names = {}
    with torch.random.fork_rng():
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    assert names["loss"].isfinite()
    assert 0 <= names["evaluator"].state.metrics["ece"] <= 1
    assert names["probabilities"].sum(1).allclose(torch.ones(4, 32, 32))
    assert (names["mutual_information"] > 0).any()
    assert names["report"].nll_after <= names["report"].nll_before
    assert names["calibrated"].shape == (4, 2, 32, 32)
    figures = {path.name for path in (tmp_path / "evaluation" / "reliability").iterdir()}
    assert figures == {"case_0.png", "dataset_diagram.png", "dataset_histogram.png"}
    assert names["micro"][1].item() == pytest.approx(names["evaluation"].state.metrics["micro_ece"])
