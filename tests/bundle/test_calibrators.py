"""Every calibrator fragment, fitted and used by a bundle on a small phantom."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tests.conftest import PHANTOM_SIZE, TEMPLATES

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.data import phantom_cases
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


def case_ids(bundle, part):
    """Ids of the cases of one part of the split with which the bundle was run."""
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "seed_12345" / "configs" / "inference_eval.yaml"))
    return [case["case"] for case in parser.get_parsed_content("split")[part]]


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


def test_calibration_cases_are_chosen(fitted, folder, tiny):
    bundle = fitted("temperature_scaling")
    validation = case_ids(bundle, "validation")
    settings = tiny | {"calibration_cases": validation[:1], "output_dir": str(folder / "chosen")}
    run(str(bundle), "train", overrides=settings)
    report = read_calibrator(folder / "chosen" / "models" / "calibrator.pt")["report"]
    assert len(validation) > report["num_cases"] == 1


@pytest.mark.parametrize("part", ["training", "test"])
@pytest.mark.parametrize("mode", ["train", "inference_eval"])
def test_calibration_cases_of_another_part_are_an_error(fitted, tiny, part, mode):
    bundle = fitted("temperature_scaling")
    [case, *_] = case_ids(bundle, part)
    before = (bundle / "seed_12345" / "models" / "calibrator.pt").read_bytes()
    with pytest.raises(UserError, match=f"Case '{case}' is in both the calibration and the {part} part"):
        run(str(bundle), mode, overrides=tiny | {"calibration_cases": [case]})
    assert (bundle / "seed_12345" / "models" / "calibrator.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "option", "value", "found"),
    [
        ("temperature_scaling", "max_voxels", 1000, {"num_fitted_voxels": 1000}),
        ("auxiliary", "training::max_epochs", 1, {"iterations": 1}),
    ],
)
def test_options_of_the_fit(folder, make_bundle, tiny, name, option, value, found):
    bundle = make_bundle(folder, method=name)
    settings = tiny | {f"calibrator::options::{option}": value, "output_dir": str(folder / f"{name}_option")}
    run(str(bundle), "train", overrides=settings)
    report = read_calibrator(folder / f"{name}_option" / "models" / "calibrator.pt")["report"]
    assert {key: report[key] for key in found} == found


def test_a_calibrator_of_members_is_not_used_for_their_mean(fitted, tiny):
    bundle = fitted("temperature_scaling")
    with pytest.raises(UserError, match=r"fitted with calibrator::calibrate mean, but members is asked for"):
        run(str(bundle), "inference_eval", overrides=tiny | {"calibrator::calibrate": "members"})


def test_an_unfitted_calibrator_is_an_error(tmp_path, make_bundle, trained, tiny):
    shutil.copytree(trained, tmp_path / "bundles" / trained.name)
    bundle = make_bundle(tmp_path, method="temperature_scaling")
    with pytest.raises(UserError, match=r"calibrator.pt does not exist.*--mode train"):
        run(str(bundle), "inference_eval", overrides=tiny)
    assert not (bundle / "seed_12345" / "evaluation").exists()


def test_cases_of_the_fit_are_not_evaluated(fitted, tmp_path, tiny):
    """Of another division of the cases, the test part may hold those on which the calibrator was fitted."""
    bundle = fitted("temperature_scaling")
    copy = shutil.copytree(bundle.parent, tmp_path / "bundles") / bundle.name
    tested, [validated, *_] = case_ids(bundle, "test"), case_ids(bundle, "validation")
    path = copy / "seed_12345" / "models" / "calibrator.pt"
    content = torch.load(path, weights_only=True)
    assert [case["case"] for case in content["details"]["cases"]] == case_ids(bundle, "calibration")
    content["details"]["cases"].append({"case": tested[0], "image": None, "label": None})
    torch.save(content, path)
    settings = tiny | NO_FIGURES
    with pytest.raises(UserError, match=f"1 of the 3 cases .* calibrated on in the fit of .*: {tested[0]}; cases that"):
        run(str(copy), "inference_eval", overrides=settings)
    with pytest.warns(UserWarning, match=f"calibrated on .*{tested[0]}; their predictions say nothing"):
        run(str(copy), "inference_pred", overrides=tiny | {"overlays::num_cases": 0})
    with pytest.warns(UserWarning, match="calibrator.pt was fitted with another division of cases"):
        run(
            str(bundle), "inference_pred", overrides=tiny | {"overlays::num_cases": 0, "calibration_cases": [validated]}
        )


def test_a_calibrator_is_not_fitted_on_training_cases(fitted, folder, phantom_dir, tiny, tmp_path):
    bundle = fitted("temperature_scaling")
    split = phantom_cases(phantom_dir, **PHANTOM_SIZE)
    renamed = split["training"][0] | {"case": "another_name"}
    settings = tiny | {"calibration_cases": [renamed], "output_dir": str(tmp_path / "results")}
    with pytest.raises(
        UserError, match="trained on in the training of .*: another_name; cases that are calibrated on must"
    ):
        run(str(bundle), "train", overrides=settings)
    assert not (tmp_path / "results").exists()


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


def test_new_images_are_flagged_by_the_evaluation_of_a_changed_network(fitted, tiny, phantom_dir, tmp_path):
    """What produces their predictions must be read when the calibrator has changed the network, as it then is."""
    bundle = fitted("fine_tune")
    image = phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"][0]["image"]
    settings = {id_: value for id_, value in tiny.items() if not id_.startswith("data::")}
    settings |= {"output_dir": str(tmp_path / "new")}
    run(str(bundle), "inference_pred", images=str(image), overrides=settings)
    told = json.loads((tmp_path / "new" / "provenance.json").read_text())
    assert told["checkpoint_digest"] == summary(bundle)["provenance"]["checkpoint_digest"]
    reason = (tmp_path / "new" / "predictions.csv").read_text()
    assert "the evaluation found no threshold" in reason
