"""The notebooks run as they stand, show figures, leave nothing behind, and are stored without outputs."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbmake.nb_run import NotebookRun
from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NUM_FIGURES = {
    "01_first_run": 3,
    "02_calibration_losses": 4,
    "03_finding_failures": 5,
    "04_other_programs": 3,
    "05_study_and_report": 0,
}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def execute(path, folder):
    """Run a copy of a notebook where it stands alone."""
    return NotebookRun(Path(shutil.copy(path, folder)), default_timeout=900).execute()


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_all_of_them_are_known():
    assert [path.stem for path in NOTEBOOKS] == list(NUM_FIGURES)


@pytest.mark.slow
@each_notebook
def test_runs(path, tmp_path):
    result = execute(path, tmp_path)
    assert result.error is None, result.error.trace
    found = outputs(result.nb)
    assert sum("image/png" in output.get("data", {}) for output in found) == NUM_FIGURES[path.stem]
    said = "".join(output.text for output in found if output.output_type == "stream")
    assert "Warning" not in said
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_one_that_is_broken_fails(tmp_path):
    notebook = nbformat.read(NOTEBOOKS[1], as_version=4)
    notebook.cells = [*notebook.cells[:2], nbformat.v4.new_code_cell("bin_statistics(1, 2)")]
    path = tmp_path / "broken.ipynb"
    nbformat.write(notebook, path)
    (tmp_path / "folder").mkdir()
    result = execute(path, tmp_path / "folder")
    assert result.error.failing_cell_index == 2
    assert "bin_statistics" in result.error.trace


def stored_results(notebook):
    """What running it in an editor leaves in the cells of a notebook."""
    return [
        cell["source"]
        for cell in notebook["cells"]
        if cell.get("outputs") or cell.get("execution_count") is not None or cell["metadata"]
    ]


@each_notebook
def test_is_stored_without_results(path):
    notebook = json.loads(path.read_text())
    assert stored_results(notebook) == [], f"clear it: nb-clean clean {path}"
    assert notebook["metadata"]["language_info"] == {"name": "python"}


@pytest.mark.parametrize("left", [{"outputs": [{}]}, {"execution_count": 0}, {"metadata": {"execution": {}}}])
def test_what_an_editor_leaves_is_found(left):
    cell = {"source": "1", "outputs": [], "execution_count": None, "metadata": {}}
    assert stored_results({"cells": [cell]}) == []
    assert stored_results({"cells": [cell | left]}) == ["1"]


@each_notebook
def test_is_listed(path):
    assert path.name in (REPOSITORY / "docs" / "notebooks.md").read_text()
