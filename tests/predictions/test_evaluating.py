"""Evaluations of predictions in files against definitions in NumPy and against evaluations of bundles."""

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests._reference import bin_statistics, one_hot
from tests.predictions.predictions_on_disk import (
    CASES,
    independent,
    labels,
    probabilities,
    write_channels,
    write_labels,
    write_volumes,
)

from medcalib.bundle.run import run
from medcalib.compare import read_evaluation
from medcalib.errors import UserError
from medcalib.predictions import PredictionFolder, evaluate_predictions


def reference(p, y, decided):
    """Every metric of one case, (class,), of probabilities, targets and decisions (class, voxel) in float64."""
    counts, sum_pred, sum_true = (part[0] for part in bin_statistics(p[None], y[None], 20))
    with np.errstate(invalid="ignore"):
        gaps = np.abs(sum_pred - sum_true) / counts
    found = {
        "mean_dice": 2 * (decided * y).sum(1) / (decided + y).sum(1),
        "nll": -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(1),
        "brier": ((p - y) ** 2).mean(1),
        "macro_ece": np.nansum(gaps * counts, 1) / counts.sum(1),
        "macro_ace": np.nanmean(gaps, 1),
        "macro_mce": np.nanmax(gaps, 1),
    }
    return {name: np.where(y.sum(1) > 0, values, np.nan) for name, values in found.items()}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_every_number_is_that_of_its_definition(activation, tmp_path):
    exclusive = activation == "softmax"
    write = write_channels if exclusive else write_volumes
    values = probabilities if exclusive else independent
    predictions = PredictionFolder(
        write(tmp_path / "p", values=values), write_labels(tmp_path / "l"), "probabilities", activation
    )
    evaluation = evaluate_predictions(predictions, list(CASES), tmp_path / "out")
    names = ["class_1", "class_2"] if exclusive else ["class_0", "class_1"]
    assert evaluation.class_names == names
    for row, case in enumerate(CASES):
        p = values(case).reshape(-1, labels(case).size).astype(np.float64)
        y = one_hot(labels(case).reshape(1, 1, -1), 3)[0]
        if exclusive:
            decided = one_hot(p.argmax(0)[None, None], 3)[0]
            nll = -np.log(p[labels(case).ravel(), np.arange(p.shape[1])]).mean()
            assert evaluation.values("nll_categorical")[row] == pytest.approx(nll, abs=1e-5)
        else:
            y, decided = y[1:], p >= 0.5
        for metric, expected in reference(p, y, decided).items():
            table = pd.read_csv(tmp_path / "out" / f"{metric}_raw.csv", dtype=str, keep_default_na=False)
            assert table["filename"][row] == case
            np.testing.assert_allclose(table.loc[row, names].astype(float), expected[-2:], atol=1e-5, err_msg=metric)
    assert ("nll_categorical" in evaluation.summary) == exclusive
    assert evaluation.summary["provenance"]["space"] == "original"


def test_the_background_counts_if_wanted(tmp_path):
    predictions = PredictionFolder(write_volumes(tmp_path / "p"), write_labels(tmp_path / "l"), "probabilities")
    out = tmp_path / "results" / "evaluation"
    evaluation = evaluate_predictions(predictions, CASES, out, ["back", "a", "b"], num_bins=7, include_background=True)
    assert evaluation.class_names == ["back", "a", "b"]
    assert evaluation.statistics.num_bins == 7
    assert sorted(path.name for path in (out / "reliability").iterdir()) == [
        "dataset_diagram.pdf",
        "dataset_diagram.png",
        "dataset_histogram.pdf",
        "dataset_histogram.png",
    ]
    assert [path.name for path in out.parent.iterdir()] == ["evaluation"]
    with pytest.raises(UserError, match="evaluation exists, and results are never overwritten"):
        evaluate_predictions(predictions, CASES, out)


def test_a_mistake_leaves_nothing_behind(tmp_path, caplog):
    write_labels(tmp_path / "l")
    predictions = PredictionFolder(write_volumes(tmp_path / "p", CASES[:2]), tmp_path / "l", "probabilities")
    with pytest.raises(UserError, match="no prediction of case 007"):
        evaluate_predictions(predictions, CASES, tmp_path / "results" / "out")
    assert list((tmp_path / "results").iterdir()) == []
    # the engine would log the mistake a second time
    assert not caplog.records


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b"]])
def test_class_names_fit_the_classes(names, tmp_path):
    predictions = PredictionFolder(write_volumes(tmp_path / "p"), write_labels(tmp_path / "l"), "probabilities")
    with pytest.raises(UserError, match=r"class_names lists a, b.*, but 3 classes are predicted .* background first"):
        evaluate_predictions(predictions, CASES, tmp_path / "out", names)


@pytest.mark.slow
def test_the_numbers_are_those_of_a_bundle(trained, tiny, phantom_dir, tmp_path):
    """Predicted by a bundle and evaluated from its files, or evaluated by the bundle in the space of the files."""
    bundle = shutil.copytree(trained, tmp_path / trained.name)
    settings = {"evaluation::space": "original", "quality_control::calibrate_threshold": False}
    run(str(bundle), "inference_eval", overrides=tiny | settings)
    own = read_evaluation(bundle / "seed_12345" / "evaluation")
    predictions = PredictionFolder(bundle / "seed_12345" / "predictions", phantom_dir / "labels", "probabilities")
    other = evaluate_predictions(predictions, own.case_ids, tmp_path / "out", ["background", *own.class_names])
    assert other.case_ids == own.case_ids
    for metric in ("mean_dice", "nll", "nll_categorical", "brier", "macro_ece", "macro_ace", "macro_mce"):
        # float32 in files, and a probability on a boundary of bins may change sides
        np.testing.assert_allclose(other.values(metric), own.values(metric), rtol=2e-3, atol=1e-6, err_msg=metric)
    np.testing.assert_allclose(other.statistics.sum_true.sum(-1), own.statistics.sum_true.sum(-1))
    case = own.case_ids[0]
    prediction = nib.load(bundle / "seed_12345" / "predictions" / case / f"{case}_prob.nii.gz")
    logits = predictions.read(case).logits
    np.testing.assert_allclose(np.moveaxis(logits.softmax(1)[0].numpy(), 0, -1), prediction.get_fdata(), atol=1e-6)
