"""Handlers of classified images, on engines that are driven with made-up batches."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from medcalib.errors import UserError
from medcalib.functional import bin_statistics, calibration_error
from medcalib.handlers import ImagePredictionsHandler, PredictionTableHandler, ResultFolder
from medcalib.handlers.results import IMAGES
from medcalib.metrics import aurc, classification_scores, retained_accuracy
from medcalib.reports import (
    ClassificationReportHandler,
    ClassificationScoresHandler,
    RetentionReportHandler,
    classification_report,
)
from medcalib.task import Task
from medcalib.visualize import draw_case_reliability_diagrams

CLASSES = ["negative", "low_grade", "high_grade"]
TASK = Task(CLASSES)


def make_images(number=40, seed=0, labelled=True):
    generator = torch.Generator().manual_seed(seed)
    images = []
    for index in range(number):
        pred = (2 * torch.randn(3, generator=generator)).softmax(0)
        label = torch.multinomial(pred.sqrt(), 1, generator=generator).to(torch.uint8)
        images.append(
            {
                "case": f"image_{index}",
                "pred": pred,
                "label": label if labelled else None,
                "mutual_information": torch.rand(1, generator=generator) / 10,
                "variance": torch.rand(1, generator=generator) / 10,
            }
        )
    return images


def run(images, handlers, batch_size=7):
    """Run an engine whose output is the batch itself."""
    engine = Engine(lambda _engine, batch: batch)
    for handler in handlers:
        handler.attach(engine)
    engine.run([images[start : start + batch_size] for start in range(0, len(images), batch_size)])
    return engine.state


def report(path, images, split=None, **kwargs):
    folder = ResultFolder(path, {"seed": 3})
    handlers = [
        folder,
        ImagePredictionsHandler(TASK),
        ClassificationScoresHandler(num_bins=5),
        RetentionReportHandler(folder),
        ClassificationReportHandler(folder, split),
    ]
    return run(images, handlers, **kwargs)


@pytest.fixture(scope="module")
def images():
    return make_images()


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "evaluation"
    report(path, images)
    return path


def stacked(images):
    return torch.stack([i["pred"] for i in images]), torch.stack([i["label"] for i in images])


def test_predictions_are_one_table(images, tmp_path):
    folder = ResultFolder(tmp_path / "predictions")
    unlabelled = [image | {"label": None} for image in images]
    run(unlabelled, [folder, ImagePredictionsHandler(TASK), PredictionTableHandler(folder)])
    table = pd.read_csv(tmp_path / "predictions" / "predictions.csv")
    p, _ = stacked(images)
    assert list(table.columns) == [
        "case", "predicted", *(f"probability_{name}" for name in CLASSES),
        "entropy", "mutual_information", "variance", "sample_mean_uncertainty",
    ]  # fmt: skip
    assert list(table["case"]) == [image["case"] for image in images]
    assert list(table["predicted"]) == [CLASSES[index] for index in p.argmax(1)]
    np.testing.assert_allclose(table.iloc[:, 2:5], p, rtol=1e-6)
    np.testing.assert_allclose(table["entropy"], -(p * p.log()).sum(1), rtol=1e-5)
    np.testing.assert_allclose(table["sample_mean_uncertainty"], 1 - 2 * (p.amax(1) - 0.5) ** 2, rtol=1e-5)
    for name in ("mutual_information", "variance"):
        np.testing.assert_allclose(table[name], [image[name].item() for image in images], rtol=1e-6)


def test_metrics_and_summary_are_those_of_sklearn(images, folder):
    metrics = pd.read_csv(folder / "metrics.csv").set_index("metric")["value"]
    summary = json.loads((folder / "summary.json").read_text())
    p, y = stacked(images)
    expected = {
        "accuracy": accuracy_score(y[:, 0], p.argmax(1)),
        "nll_categorical": log_loss(y[:, 0], p),
        "auc": roc_auc_score(np.eye(3)[y[:, 0]], p, average="macro"),
        "entropy_aurc": aurc(-(p * p.log()).sum(1), p.argmax(1) != y[:, 0]),
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-5)
    for name, value in metrics.items():
        assert summary[name] == pytest.approx(value)
    assert summary["per_class"]["auc"]["low_grade"] == pytest.approx(roc_auc_score(y[:, 0] == 1, p[:, 1]))
    assert summary["num_cases"] == 40
    assert summary["num_values"] == {name: int((y == index).sum()) for index, name in enumerate(CLASSES)}
    assert summary["provenance"] == {"seed": 3}


def test_tables_per_class_have_the_agreed_shape(folder):
    summary = json.loads((folder / "summary.json").read_text())
    micro = ["micro_ece", "micro_ace", "micro_mce", "micro_ece_debiased", "micro_rmsce", "micro_rmsce_debiased"]
    names = ["auc", "sensitivity", "specificity", "nll", "brier", *micro]
    assert sorted(path.name for path in folder.glob("*_raw.csv")) == sorted(f"{name}_raw.csv" for name in names)
    for name in names:
        table = pd.read_csv(folder / f"{name}_raw.csv")
        assert list(table.columns) == ["filename", *CLASSES, "mean"]
        assert list(table["filename"]) == ["dataset"]
        assert table.loc[0, CLASSES].to_dict() == pytest.approx(summary["per_class"][name])
        assert table.loc[0, "mean"] == pytest.approx(summary[name])


def test_cases_say_what_was_right(images, folder):
    table = pd.read_csv(folder / "cases.csv")
    p, y = stacked(images)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(table["filename"]) == [image["case"] for image in images]
    assert list(table["label"]) == [CLASSES[index] for index in y[:, 0]]
    assert list(table["correct"] == 1) == [a == b for a, b in zip(table["label"], table["predicted"], strict=True)]
    assert table["correct"].mean() == pytest.approx(summary["accuracy"])
    np.testing.assert_allclose(table["confidence"], p.amax(1), rtol=1e-6)
    np.testing.assert_allclose(table["nll_categorical"], -p.gather(1, y.long()).log()[:, 0], rtol=1e-5)
    np.testing.assert_allclose(
        table["brier_categorical"], ((p - torch.eye(3)[y[:, 0].long()]) ** 2).sum(1), rtol=1e-5, atol=1e-7
    )


def test_bin_statistics_reproduce_the_calibration_errors(images, folder):
    stored = np.load(folder / "bin_statistics.npz")
    summary = json.loads((folder / "summary.json").read_text())
    p, y = stacked(images)
    expected = bin_statistics(p, y, 5)
    for name, part in expected._asdict().items():
        np.testing.assert_allclose(stored[name], part)
        assert stored[f"top_label_{name}"].shape == (40, 1, 5)
    assert list(stored["cases"]) == [image["case"] for image in images]
    assert list(stored["classes"]) == CLASSES
    assert summary["micro_ece"] == pytest.approx(calibration_error(expected.pool()).mean().item())
    counts, pred, true = (stored[f"top_label_{name}"].sum((0, 1)) for name in expected._fields)
    assert summary["top_label_ece"] == pytest.approx(np.abs(pred - true).sum() / counts.sum())
    assert true.sum() == pytest.approx(summary["accuracy"] * 40)


def test_retention_of_every_uncertainty(images, folder):
    found = json.loads((folder / "retention.json").read_text())
    table = pd.read_csv(folder / "cases.csv")
    assert list(found) == ["entropy", "mutual_information", "variance", "sample_mean_uncertainty"]
    for name, numbers in found.items():
        expected = retained_accuracy(table[name], table["correct"])
        assert [step["threshold"] for step in numbers["thresholds"]] == [0.3, 0.6, 0.9]
        for field, values in expected._asdict().items():
            np.testing.assert_allclose([step[field] for step in numbers["thresholds"]], values)
        assert (numbers["lowest"], numbers["highest"]) == pytest.approx((table[name].min(), table[name].max()))


def test_figures_are_there(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
    assert names == {"reliability/dataset_diagram.png", "retention/retention.png", "retention/risk_coverage.png"}


def test_the_diagram_has_the_band_of_independent_images(images, tmp_path, monkeypatch):
    drawn = []

    def keep(*args, **kwargs):
        drawn.append(kwargs["band_level"])
        return draw_case_reliability_diagrams(*args, **kwargs)

    monkeypatch.setattr(classification_report, "draw_case_reliability_diagrams", keep)
    report(tmp_path / "evaluation", images)
    assert drawn == [0.95]
    with pytest.raises(UserError, match=r"handlers::report::band_level must lie between 0 and 1, .* not 95"):
        ClassificationReportHandler(ResultFolder(tmp_path / "other"), band_level=95)


def test_what_chance_adds_is_told(images, tmp_path, capsys):
    state = report(tmp_path / "evaluation", images)
    told = re.search(
        r"error of the predicted class (\S+); less what chance adds to that of 40 images (\S+)\.\n",
        capsys.readouterr().out,
    )
    names = ("top_label_rmsce", "top_label_rmsce_debiased")
    assert told.groups() == tuple(f"{state.metrics[name]:.4f}" for name in names)


def test_the_size_of_batches_does_not_matter(images, folder, tmp_path):
    report(tmp_path / "evaluation", images, batch_size=40)
    assert (tmp_path / "evaluation" / "summary.json").read_text() == (folder / "summary.json").read_text()


def test_an_image_that_is_seen_twice_counts_once(images, folder, tmp_path):
    """As when the images do not divide by the number of ranks."""
    report(tmp_path / "evaluation", [*images, images[0]])
    assert (tmp_path / "evaluation" / "summary.json").read_text() == (folder / "summary.json").read_text()


def test_a_missing_class_and_a_single_member(tmp_path, capsys):
    images = [i | {"variance": torch.zeros(1)} for i in make_images() if i["label"] < 2]
    report(tmp_path / "evaluation", images)
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["per_class"]["auc"]["high_grade"] is None
    assert summary["num_values"]["high_grade"] == 0
    assert summary["auc"] == pytest.approx(np.mean(list(summary["per_class"]["auc"].values())[:2]))
    kept = json.loads((tmp_path / "evaluation" / "retention.json").read_text())["variance"]["thresholds"][0]
    assert kept["accuracy"] is None
    assert "high_grade       0      -" in capsys.readouterr().out


def test_images_of_a_single_class(tmp_path, capsys):
    """As in a test set with negatives only: what needs two classes is unknown, not 0 or 1."""
    images = [image | {"label": torch.zeros(1, dtype=torch.uint8)} for image in make_images()]
    report(tmp_path / "evaluation", images)
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    p, y = stacked(images)
    assert summary["auc"] is None
    assert summary["specificity"] is None
    assert summary["sensitivity"] == summary["accuracy"] == accuracy_score(y[:, 0], p.argmax(1))
    assert summary["nll_categorical"] == pytest.approx(log_loss(y[:, 0], p, labels=range(3)), rel=1e-5)
    assert pd.read_csv(tmp_path / "evaluation" / "metrics.csv").set_index("metric").isna()["value"]["auc"]
    assert "negative        40    -" in capsys.readouterr().out


def test_equal_probabilities_are_one_prediction_in_all_results(tmp_path):
    """The first of the most likely classes, as NumPy has it."""
    images = make_images()
    for index, image in enumerate(images):
        image["pred"] = torch.tensor([[1, 1, 1], [1, 2, 2], [2, 1, 2]][index % 3]) / [3, 5, 5][index % 3]
    report(tmp_path / "evaluation", images)
    table = pd.read_csv(tmp_path / "evaluation" / "cases.csv")
    p, y = stacked(images)
    predicted = p.numpy().argmax(1)
    assert list(table["predicted"]) == [CLASSES[index] for index in predicted]
    summary = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    assert summary["accuracy"] == table["correct"].mean() == np.mean(predicted == y[:, 0].numpy())
    most = json.loads((tmp_path / "evaluation" / "retention.json").read_text())["entropy"]["thresholds"][-1]
    certain = np.arange(len(images)) % 3 != 0  # all alike, while nothing is said of the others
    assert most["retained"] == pytest.approx(certain.mean())
    assert most["accuracy"] == pytest.approx(table["correct"][certain].mean())


def test_a_validation_leaves_metrics(images):
    """Without members and without files."""
    state = run(
        [{key: image[key] for key in ("case", "pred", "label")} for image in images],
        [ImagePredictionsHandler(TASK), ClassificationScoresHandler(num_bins=5)],
    )
    assert state.metrics == pytest.approx(classification_scores(*stacked(images), 5).overall)
    assert list(state.results[IMAGES].uncertainties) == ["entropy", "sample_mean_uncertainty"]


def test_attributes_are_columns_and_strata(images, tmp_path, capsys):
    centre = {image["case"]: "AB"[index % 2] for index, image in enumerate(images[:-1])}
    split = {"test": [{"case": case, "attributes": {"centre": value}} for case, value in centre.items()]}
    report(tmp_path / "evaluation", images, split)
    assert re.search(r"centre +cases +accuracy.*\nA +20 ", capsys.readouterr().out)
    table = pd.read_csv(tmp_path / "evaluation" / "cases.csv").set_index("filename")
    assert list(table.columns[:2]) == ["centre", "label"]
    assert table["centre"].dropna().to_dict() == centre
    strata = json.loads((tmp_path / "evaluation" / "summary.json").read_text())["strata"]["centre"]
    p, y = stacked(images)
    for first, value in enumerate("AB"):
        own = slice(first, 39, 2)
        expected = classification_scores(p[own], y[own], 5).overall
        assert strata[value] == pytest.approx({"num_cases": 20 - first, **expected})


@pytest.mark.parametrize("handler", [PredictionTableHandler, RetentionReportHandler, ClassificationReportHandler])
def test_handlers_say_what_they_need(images, tmp_path, handler):
    folder = ResultFolder(tmp_path / "results")
    message = f"{handler.__name__} needs the image predictions of the epoch, .* attach .*ImagePredictionsHandler"
    with pytest.raises(UserError, match=message):
        run(images, [folder, handler(folder)])
    assert not (tmp_path / "results").exists()


def test_the_order_of_handlers_does_not_matter(images, folder, tmp_path):
    results = ResultFolder(tmp_path / "evaluation", {"seed": 3})
    handlers = [
        ClassificationReportHandler(results),
        RetentionReportHandler(results),
        ClassificationScoresHandler(num_bins=5),
        ImagePredictionsHandler(TASK),
        results,
    ]
    run(images, handlers)
    found, expected = (json.loads((path / "summary.json").read_text()) for path in (tmp_path / "evaluation", folder))
    assert found == expected
    assert "entropy_aurc" in found


@pytest.mark.parametrize("thresholds", [0.5, [1.5], [-0.1], ["0.3"], "0.3", [float("nan")]])
def test_thresholds_are_shares(tmp_path, thresholds):
    with pytest.raises(UserError, match=r"retention::thresholds is .*: give a list of numbers from 0 to 1\."):
        RetentionReportHandler(ResultFolder(tmp_path / "results"), thresholds)


def test_an_image_without_uncertainty_is_referred_and_counted(images, tmp_path):
    broken = [dict(image) for image in images]
    broken[0]["mutual_information"] = torch.full((1,), torch.nan)
    report(tmp_path / "evaluation", broken)
    found = json.loads((tmp_path / "evaluation" / "retention.json").read_text())["mutual_information"]
    assert (found["num_cases"], found["without_uncertainty"]) == (40, 1)
    table = pd.read_csv(tmp_path / "evaluation" / "cases.csv")
    known = table["mutual_information"]
    assert (found["lowest"], found["highest"]) == pytest.approx((known.min(), known.max()))
    assert found["aurc"] == pytest.approx(aurc(known.fillna(known.max() + 1), 1 - table["correct"]))
