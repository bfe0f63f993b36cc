"""Every calibrator fragment, fitted and used by a bundle on a small phantom."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.conftest import TEMPLATES

from medcalib.bundle.compose import read_metadata
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.errors import UserError

CALIBRATORS = fragment_names(TEMPLATES / "configs", FragmentKind.CALIBRATOR)
NO_FIGURES = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    """A folder of bundles with the trained deterministic one."""
    folder = tmp_path_factory.mktemp("calibrators")
    shutil.copytree(trained, folder / "bundles" / trained.name)
    return folder


@pytest.fixture(scope="module")
def fitted(folder, make_bundle, tiny):
    """Fit a calibrator and evaluate with it, once."""
    done = {}

    def fit(method):
        if method not in done:
            bundle = make_bundle(folder, method=method)
            settings = tiny | ({"method::sampler::num_members": 2} if "mc_dropout" in method else {})
            run(str(bundle), "train", overrides=settings)
            run(str(bundle), "inference_eval", overrides=settings | NO_FIGURES)
            done[method] = bundle
        return done[method]

    return fit


def summary(bundle):
    return json.loads((bundle / "seed_12345" / "evaluation" / "summary.json").read_text())


def calibrator(bundle):
    return read_calibrator(bundle / "seed_12345" / "models" / "calibrator.pt")


def test_there_are_eight():
    assert len(CALIBRATORS) == 8


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_calibrator_is_fitted_recorded_and_used(fitted, trained, name):
    bundle = fitted(name)
    content = calibrator(bundle)
    assert content["kind"] == name
    assert content["report"]["nll_after"] <= content["report"]["nll_before"]
    assert content["report"]["num_cases"] == 2
    assert read_metadata(bundle)["medcalib"]["weights_bundle"] == trained.name
    assert [path.name for path in (bundle / "seed_12345" / "models").iterdir()] == ["calibrator.pt"]
    told = summary(bundle)["provenance"]
    assert told["calibrator"]["kind"] == name
    assert len(told["calibrator"]["digest"]) == 64
    assert told["checkpoint"] == f"{trained.name}/seed_12345/models/model.pt"
    assert summary(trained)["provenance"]["calibrator"] is None
    assert summary(bundle)["nll_categorical"] != summary(trained)["nll_categorical"]


def test_the_sibling_is_trained_on_demand(tmp_path, make_bundle, tiny):
    bundle = make_bundle(tmp_path, method="temperature_scaling")
    run(str(bundle), "train", overrides=tiny)
    sibling = bundle.parent / read_metadata(bundle)["medcalib"]["weights_bundle"]
    assert (sibling / "seed_12345" / "models" / "model.pt").exists()
    trained_at = (sibling / "seed_12345" / "models" / "checkpoint.pt").stat().st_mtime_ns
    before = calibrator(bundle)["state"]
    run(str(bundle), "train", overrides=tiny)
    assert (sibling / "seed_12345" / "models" / "checkpoint.pt").stat().st_mtime_ns == trained_at
    after = calibrator(bundle)["state"]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_temperature_keeps_decisions(fitted, trained):
    assert summary(fitted("temperature_scaling"))["mean_dice"] == summary(trained)["mean_dice"]


def test_predictions_are_calibrated(fitted, trained, tiny):
    """The written probabilities are those of the network at the fitted temperature."""
    bundle = fitted("temperature_scaling")
    run(str(bundle), "inference_pred", overrides=tiny)
    temperature = float(calibrator(bundle)["state"]["log_temperature"].exp())
    case = next(path for path in (bundle / "seed_12345" / "predictions").iterdir() if path.is_dir()).name

    def read(root):
        path = root / "seed_12345" / "predictions" / case / f"{case}_prob.nii.gz"
        return nib.load(path).get_fdata()

    tempered = read(trained) ** (1 / temperature)
    np.testing.assert_allclose(read(bundle), tempered / tempered.sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("calibrate", ["mean", "members"])
def test_with_a_sampler(folder, make_bundle, tiny, calibrate):
    bundle = make_bundle(folder, method="mc_dropout+temperature_scaling")
    settings = tiny | {"method::sampler::num_members": 2, "calibrator::calibrate": calibrate}
    settings["output_dir"] = str(folder / calibrate)
    run(str(bundle), "train", overrides=settings)
    run(str(bundle), "inference_eval", overrides=settings | NO_FIGURES)
    report = read_calibrator(folder / calibrate / "models" / "calibrator.pt")["report"]
    assert report["num_cases"] == {"mean": 2, "members": 4}[calibrate]
    told = json.loads((folder / calibrate / "evaluation" / "summary.json").read_text())
    assert np.isfinite(told["nll"])
    assert read_metadata(bundle)["medcalib"]["fragments"]["method"] == "mc_dropout+temperature_scaling"


def test_an_unfitted_calibrator_is_an_error(tmp_path, make_bundle, trained, tiny):
    shutil.copytree(trained, tmp_path / "bundles" / trained.name)
    bundle = make_bundle(tmp_path, method="temperature_scaling")
    with pytest.raises(UserError, match=r"calibrator.pt does not exist.*--mode train"):
        run(str(bundle), "inference_eval", overrides=tiny)
    assert not (bundle / "seed_12345" / "evaluation").exists()


def test_a_calibrator_of_other_weights_is_an_error(fitted, tmp_path, tiny):
    bundle = fitted("temperature_scaling")
    copy = shutil.copytree(bundle.parent, tmp_path / "bundles") / bundle.name
    name = read_metadata(bundle)["medcalib"]["weights_bundle"]
    weights = tmp_path / "bundles" / name / "seed_12345" / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    with pytest.raises(UserError, match="was fitted on other weights"):
        run(str(copy), "inference_eval", overrides=tiny)


def test_a_calibrator_of_other_classes_is_an_error(fitted, tmp_path, tiny):
    bundle = fitted("temperature_scaling")
    copy = shutil.copytree(bundle.parent, tmp_path / "bundles") / bundle.name
    path = copy / "seed_12345" / "models" / "calibrator.pt"
    content = torch.load(path, weights_only=True)
    content["settings"]["num_classes"] = 5
    torch.save(content, path)
    with pytest.raises(UserError, match="num_classes"):
        run(str(copy), "inference_eval", overrides=tiny)
