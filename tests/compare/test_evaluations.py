"""Reading the folders of evaluations."""

import json
import shutil

import numpy as np
import pytest
from tests.predictions.predictions_on_disk import CASES, write_labels, write_volumes

from medcalib.compare import read_evaluation
from medcalib.errors import UserError
from medcalib.functional import calibration_error
from medcalib.predictions import PredictionFolder, evaluate_predictions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluations")
    predictions = PredictionFolder(write_volumes(root / "p"), write_labels(root / "l"), "probabilities")
    evaluate_predictions(predictions, CASES, root / "evaluation", class_names=["back", "left", "right"])
    return root / "evaluation"


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_what_was_written_is_read(folder):
    evaluation = read_evaluation(str(folder))
    assert evaluation.case_ids == list(CASES)
    assert evaluation.class_names == ["left", "right"]
    assert evaluation.statistics.counts.shape == (4, 2, 20)
    assert evaluation.summary == json.loads((folder / "summary.json").read_text())
    errors = calibration_error(evaluation.statistics).mean(1)
    np.testing.assert_allclose(evaluation.values("macro_ece"), errors, rtol=1e-12)
    assert evaluation.values("mean_dice").mean() == pytest.approx(evaluation.summary["mean_dice"])


def test_an_evaluation_of_a_bundle_is_read(trained):
    evaluation = read_evaluation(trained / "seed_12345" / "evaluation")
    assert len(evaluation.case_ids) == 3
    assert np.nanmean(evaluation.values("nll")) == pytest.approx(evaluation.summary["nll"])


def test_an_unknown_metric_is_named(folder):
    with pytest.raises(UserError, match=r"has no metric dice of each case; did you mean mean_dice"):
        read_evaluation(folder).values("dice")


@pytest.mark.parametrize("name", ["summary.json", "cases.csv", "bin_statistics.npz"])
def test_damaged_files_are_named_and_missing_ones_are_none(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(b"" if name == "cases.csv" else content[:30])
    with pytest.raises(UserError, match=rf"{name} cannot be read .*evaluate again"):
        read_evaluation(copy)
    (copy / name).unlink()
    parts = {"summary.json": "summary", "cases.csv": "cases", "bin_statistics.npz": "statistics"}
    assert getattr(read_evaluation(copy), parts[name]) is None


def test_files_of_two_evaluations_do_not_mix(copy):
    table = (copy / "cases.csv").read_text().replace("case_2", "case_3")
    (copy / "cases.csv").write_text(table)
    with pytest.raises(UserError, match="hold different cases"):
        read_evaluation(copy)
