"""Predictions in files, calibrated: the same as in Python, in the same geometry, and nothing half done."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax
from tests.predictions.predictions_on_disk import (
    AFFINE,
    SHAPE,
    independent,
    labels,
    logits,
    probabilities,
    save,
    write_archives,
    write_channels,
    write_labels,
    write_volumes,
)

from medcalib.calibrators import TemperatureScaling, fit_calibrator, load_calibrator, read_calibrator
from medcalib.compare import bootstrap_interval, read_evaluation
from medcalib.errors import UserError
from medcalib.predictions import PredictionFolder, calibrate_predictions, make_calibrator
from medcalib.predictions.calibrator_fits import CALIBRATORS

FIT, USE = ["case_1", "case_2", "007"], ["NA", "case_10"]
CASES = [*FIT, *USE]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_labels(root / "labels", CASES)
    write_volumes(root / "logits", CASES, values=logits)
    write_volumes(root / "probabilities", CASES)
    return root


def calibrate(data, output_dir, kind="logits", **options):
    settings = {"kind": kind, "calibration_cases": FIT, "cases": USE} | options
    return calibrate_predictions(data / kind, data / "labels", output_dir, **settings)


@pytest.fixture(scope="module")
def calibrated(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "out"
    return calibrate(data, out, class_names=["back", "left", "right"]), out


def split(cases=FIT):
    """The calibration split as someone would build it by hand."""
    return [(torch.from_numpy(logits(case))[None], torch.from_numpy(labels(case))[None, None]) for case in cases]


def prediction(out, case):
    return nib.load(out / "predictions" / case / f"{case}_prob.nii.gz")


def written(out, case):
    return np.moveaxis(prediction(out, case).get_fdata(), -1, 0)


def test_it_is_what_fitting_in_python_gives(calibrated):
    report, out = calibrated
    own = TemperatureScaling(3)
    assert report == fit_calibrator(own, split())
    stored = load_calibrator(out / "calibrator.pt", TemperatureScaling(3))
    assert stored.temperature == own.temperature
    for case in USE:
        expected = own(torch.from_numpy(logits(case))[None]).softmax(1)[0].detach()
        np.testing.assert_allclose(written(out, case), expected, atol=1e-7)
        by_hand = softmax(logits(case).astype(float) / own.temperature, 0)
        np.testing.assert_allclose(written(out, case), by_hand, atol=1e-6)


def test_the_true_temperature_is_found(tmp_path):
    large = {"shape": (24, 24, 20)}
    for kind, values in (("logits", logits), ("probabilities", probabilities)):
        write_labels(tmp_path / "labels", CASES, **large)
        write_volumes(tmp_path / kind, CASES, values=values, **large)
        report = calibrate(tmp_path, tmp_path / f"{kind}_out", kind, cases=["NA"], evaluate=False)
        assert report.parameters["temperature"] == pytest.approx(2, rel=0.03)


def test_probabilities_and_their_logits_are_calibrated_alike(data, calibrated, tmp_path):
    report = calibrate(data, tmp_path / "out", "probabilities")
    assert report.parameters["temperature"] == pytest.approx(calibrated[0].parameters["temperature"], rel=1e-4)
    for case in USE:
        np.testing.assert_allclose(written(tmp_path / "out", case), written(calibrated[1], case), atol=1e-4)


def test_the_geometry_is_that_of_the_prediction(data, calibrated):
    for case in USE:
        source, result = nib.load(data / "logits" / f"{case}_prob.nii.gz"), prediction(calibrated[1], case)
        np.testing.assert_array_equal(result.affine, source.affine)
        np.testing.assert_array_equal(result.get_sform(), source.get_sform())
        assert result.header.get_zooms()[:3] == source.header.get_zooms()[:3]
        assert result.header.get_xyzt_units()[0] == "mm"
        for code in ("qform_code", "sform_code"):
            assert result.header[code] == source.header[code]
        assert result.get_data_dtype() == np.float32
        assert result.shape == (*SHAPE, 3)


@pytest.mark.parametrize("write", [write_channels, write_archives])
def test_other_layouts_end_in_the_same_files(write, data, calibrated, tmp_path):
    write(tmp_path / "probabilities", CASES)
    (tmp_path / "labels").symlink_to(data / "labels")
    calibrate(tmp_path, tmp_path / "out", "probabilities")
    for case in USE:
        result = prediction(tmp_path / "out", case)
        np.testing.assert_allclose(result.affine, AFFINE)
        np.testing.assert_allclose(written(tmp_path / "out", case), written(calibrated[1], case), atol=1e-4)
        assert result.header.get_intent()[0] == "none"


def test_before_and_after_are_tabled(data, calibrated):
    report, out = calibrated
    before, after = (read_evaluation(out / name) for name in ("before", "after"))
    assert before.case_ids == after.case_ids == USE
    assert before.class_names == ["left", "right"]
    assert after.summary["nll_categorical"] < before.summary["nll_categorical"]
    np.testing.assert_array_equal(after.values("mean_dice"), before.values("mean_dice"))
    assert before.summary["provenance"]["calibrator"] is None
    assert after.summary["provenance"]["calibrator"]["kind"] == "temperature_scaling"
    # what is evaluated afterwards is what was written
    for row, case in enumerate(USE):
        p = written(out, case)[labels(case), *np.indices(SHAPE)]
        assert after.values("nll_categorical")[row] == pytest.approx(-np.log(p).mean(), abs=1e-5)
    table = pd.read_csv(out / "comparison.csv", index_col="metric")
    summary = json.loads((out / "summary.json").read_text())
    for metric, row in table.iterrows():
        difference = after.values(metric) - before.values(metric)
        expected = bootstrap_interval(difference)
        np.testing.assert_allclose(
            row[["difference", "low", "high"]].astype(float), expected[:3], rtol=1e-9, atol=1e-15
        )
        assert row["after"] == pytest.approx(after.summary[metric])
        assert summary["comparison"][metric]["before"] == pytest.approx(before.summary[metric])
    assert list(table.index[:2]) == ["mean_dice", "nll"]
    assert summary["fit"] == report.to_dict()
    assert summary["split"] == {"calibration": FIT, "test": USE}
    assert summary["class_names"] == ["back", "left", "right"]
    stored = read_calibrator(out / "calibrator.pt")
    assert stored["split_digest"] == summary["provenance"]["split_digest"]
    assert stored["details"]["class_names"] == ["back", "left", "right"]


def test_only_complete_results_are_there(calibrated):
    out = calibrated[1]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    names = ["after", "before", "calibrator.pt", "comparison.csv", "predictions", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert len(list((out / "after" / "reliability").glob("dataset_*.p*"))) == 4


def test_what_is_calibrated_stays_as_it_is(tmp_path):
    """Half of the voxels at 0.25 and half at 0.75, with just these frequencies: T is 1."""
    p = np.full((8, 8, 4), 0.25, np.float32)
    p[4:] = 0.75
    label = np.zeros((8, 8, 4), np.uint8)
    label[:4, :2] = label[4:, :6] = 1
    for case in CASES:
        save(tmp_path / "probabilities" / f"{case}.nii.gz", np.stack([1 - p, p], -1))
        save(tmp_path / "labels" / f"{case}.nii.gz", label)
    report = calibrate(tmp_path, tmp_path / "out", "probabilities")
    assert report.parameters["temperature"] == pytest.approx(1, abs=1e-6)
    for case in USE:
        np.testing.assert_allclose(written(tmp_path / "out", case)[1], p, atol=1e-6)
    rows = pd.read_csv(tmp_path / "out" / "comparison.csv", index_col="metric")
    np.testing.assert_allclose(rows["after"], rows["before"], atol=1e-6)


def test_independent_classes(tmp_path):
    shape = (20, 20, 10)
    for case in CASES:
        z, rng = logits(case, 2, shape), np.random.default_rng(len(case))
        drawn = rng.random(z.shape) < expit(z / 2)
        save(tmp_path / "probabilities" / f"{case}.nii.gz", np.moveaxis(expit(z), 0, -1))
        save(tmp_path / "labels" / f"{case}.nii.gz", np.moveaxis(drawn, 0, -1).astype(np.uint8))
    report = calibrate(tmp_path, tmp_path / "out", "probabilities", activation="sigmoid", class_names=["whole", "core"])
    temperature = report.parameters["temperature"]
    assert temperature == pytest.approx(2, rel=0.05)
    for case in USE:
        expected = expit(logits(case, 2, shape).astype(float) / temperature)
        np.testing.assert_allclose(written(tmp_path / "out", case), expected, atol=1e-4)
    assert read_evaluation(tmp_path / "out" / "after").class_names == ["whole", "core"]


@pytest.mark.filterwarnings("ignore:The temperature_scaling calibrator found a scale beyond")
def test_regions_name_the_classes(data, tmp_path):
    write_volumes(tmp_path / "probabilities", CASES, values=independent)
    (tmp_path / "labels").symlink_to(data / "labels")
    regions = {"whole": [1, 2], "core": [2]}
    calibrate(tmp_path, tmp_path / "out", "probabilities", activation="sigmoid", regions=regions)
    after = read_evaluation(tmp_path / "out" / "after")
    assert after.class_names == ["whole", "core"]
    sizes = [[(labels(case) > 0).sum(), (labels(case) == 2).sum()] for case in USE]
    np.testing.assert_array_equal(after.statistics.sum_true.sum(-1), sizes)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_every_calibrator_lowers_the_nll_of_its_split(name, data, tmp_path):
    report = calibrate(data, tmp_path / "out", calibrator=name, evaluate=False)
    assert report.kind == read_calibrator(tmp_path / "out" / "calibrator.pt")["kind"] == name
    assert report.nll_after < report.nll_before
    np.testing.assert_allclose(written(tmp_path / "out", "NA").sum(0), 1, atol=1e-5)


def test_decisions_are_kept_if_wanted(data, tmp_path):
    calibrate(data, tmp_path / "out", calibrator="platt_scaling", keep_argmax=True, evaluate=False)
    for case in USE:
        np.testing.assert_array_equal(written(tmp_path / "out", case).argmax(0), logits(case).argmax(0))


def test_bins_of_the_report_are_those_of_histogram_binning():
    assert make_calibrator("histogram_binning", 3, num_bins=15).num_bins == 15
    assert make_calibrator("isotonic", 3, num_bins=15).num_bins == 1024


def test_two_runs_write_the_same(data, calibrated, tmp_path):
    out = calibrated[1]
    calibrate(data, tmp_path / "again", class_names=["back", "left", "right"])
    for path in sorted(out.rglob("*.csv")):
        assert (tmp_path / "again" / path.relative_to(out)).read_bytes() == path.read_bytes()
    for case in USE:
        np.testing.assert_array_equal(written(tmp_path / "again", case), written(out, case))


def test_cases_without_label_can_be_calibrated(data, calibrated, tmp_path):
    write_labels(tmp_path / "labels", FIT)
    (tmp_path / "logits").symlink_to(data / "logits")
    calibrate(tmp_path, tmp_path / "out", evaluate=False)
    names = ["calibrator.pt", "predictions", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    np.testing.assert_array_equal(written(tmp_path / "out", "NA"), written(calibrated[1], "NA"))
    with pytest.raises(UserError, match="labels holds no label of case NA"):
        calibrate(tmp_path, tmp_path / "other")


def test_its_own_predictions_can_be_read_again(data, calibrated):
    folder = PredictionFolder(calibrated[1] / "predictions", data / "labels", "probabilities")
    np.testing.assert_allclose(folder.read("NA").logits.softmax(1)[0], written(calibrated[1], "NA"), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": ["NA", "007"]}, "case 007 is in both calibration_cases and cases"),
        ({"cases": ["NA", "missing"]}, "logits holds no prediction of case missing"),
        ({"calibration_cases": ["case_1", "case_1"]}, "calibration_cases names the case case_1 twice"),
        ({"calibration_cases": []}, "calibration_cases names no case"),
        ({"calibrator": "temperature"}, "no calibrator called 'temperature'; did you mean temperature_scaling"),
        ({"calibrator": "fine_tune"}, "fine_tune trains a network on, so it needs a bundle"),
        ({"class_names": ["a", "b"]}, "class_names lists a, b, but 3 classes are predicted for case case_1"),
        ({"kind": "probabilities", "predictions_dir": "logits"}, "but kind says probabilities, which lie in"),
        ({"calibrator": "auxiliary", "calibration_cases": ["case_1"]}, "holds a single case"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(options, message, data, tmp_path):
    settings = {"kind": "logits", "calibration_cases": FIT, "cases": USE, "predictions_dir": "logits"} | options
    settings["predictions_dir"] = data / settings["predictions_dir"]
    with pytest.raises(UserError, match=message):
        calibrate_predictions(labels_dir=data / "labels", output_dir=tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_last_case_leaves_nothing(data, tmp_path):
    root = write_volumes(tmp_path / "p", CASES)
    save(root / "case_10_prob.nii.gz", np.moveaxis(probabilities("case_10"), 0, -1)[:-1])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"Case case_10: \S+ has the shape \(6, 6, 5\)"):
        calibrate_predictions(
            root, data / "labels", tmp_path / "out", kind="probabilities", calibration_cases=FIT, cases=USE
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_results_are_never_overwritten(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="out exists, and results are never overwritten; choose another output_dir"):
        calibrate(data, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_output_that_cannot_be_written_is_named(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/out cannot be written \(.*\); choose another output_dir"):
        calibrate(data, tmp_path / "file" / "out")
