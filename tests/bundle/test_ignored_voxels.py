"""A dataset whose labels are unknown in places, from new-data to a guarantee, against NumPy on what was written."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tests.bundle.test_activations import Evaluation, brier, dice, ece, nll, read_map
from tests.conftest import TEMPLATES
from tests.planning.made_datasets import make_partly_labelled

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import read_yaml
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.cli.verb_new_data import main as new_data
from medcalib.data_check.check_data import check_data
from medcalib.errors import UserError

SEED = "seed_12345"
NAMES = ["gland", "nodule"]
IGNORED = 3
SMALL = {"network::init_filters": 4, "network::blocks_down": [1, 1], "data::batch_size": 2, "data::max_epochs": 4}
SMALL |= {"train::optimizer::lr": 0.02, "data::patch_size": [12, 12, 12]}


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    return shutil.copytree(TEMPLATES, tmp_path_factory.mktemp("templates") / "bundle_templates")


@pytest.fixture(scope="module")
def planned(templates, tmp_path_factory):
    """The fragment that new-data writes, and where its report lies."""
    root = make_partly_labelled(tmp_path_factory.mktemp("raw") / "Dataset021_Prostate")
    reports = root.parent / "reports"
    new_data(nnunet=str(root), name="partly", output_dir=templates / "configs" / "data", cpu=True, report_dir=reports)
    return templates / "configs" / "data" / "partly.yaml", reports


@pytest.fixture(scope="module")
def made(planned, templates, tmp_path_factory):
    """Generate bundles of this dataset."""
    folder = tmp_path_factory.mktemp("ignored") / "bundles"
    return lambda method, loss="softl1ace_dice_ce": generate(templates, folder, "partly", loss, method)[0]


def test_the_plan_says_what_is_ignored(planned):
    fragment, reports = planned
    data = yaml.safe_load(fragment.read_text())["data"]
    assert (data["ignore_label"], data["label_map"], data["class_names"]) == (IGNORED, None, ["background", *NAMES])
    report = json.loads((reports / "report.json").read_text())
    assert report["ignored"]["num_cases"] == 10
    assert 30 < report["ignored"]["share"] < 60
    assert any("1 case (p_09) has no voxel but those to be ignored" in told for told in report["warnings"])
    assert "To be ignored, value 3" in (reports / "report.md").read_text()
    # intensities are those of the organs alone, except of the case that has none
    assert report["channels"]["T1"]["p50"] > 150
    assert list(report["classes"]) == ["background", *NAMES]


@pytest.mark.slow
def test_the_check_counts_and_shows_what_is_ignored(made, tmp_path):
    check = check_data(str(made("deterministic")), output_dir=tmp_path, overrides=SMALL)
    assert check.report["problems"] == []
    assert check.report["ignored"]["all"]["num_cases"] == 10
    assert check.report["ignored"]["all"]["cases_of_nothing_else"] == ["p_09"]
    assert any(told.startswith("All voxels of p_09 are to be ignored") for told in check.report["warnings"])
    assert "to be ignored" in check.text
    assert "10 of 10" in check.text or "7 of 7" in check.text
    assert (tmp_path / "first_batch.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def done(made):
    """A bundle with a calibrator and a guarantee that was trained, used for prediction and evaluated."""
    bundle = made("temperature_scaling+recall_control")
    # a level that a few calibration cases are enough for
    options = SMALL | {"guarantee::alpha": 0.6}
    run(str(bundle), "train", overrides=options | {"guarantee_cases": "all"})
    run(str(bundle), "inference_pred", overrides=options)
    more = {"evaluation::space": "original", "evaluation::num_case_diagrams": 0}
    run(str(bundle), "inference_eval", overrides=options | more)
    return bundle


def files(bundle):
    """By case its label and where that is known."""
    config = read_yaml(bundle / "configs" / "data.yaml")["data"]
    for case in sorted(path.name for path in (bundle / SEED / "predictions").iterdir() if path.is_dir()):
        label = np.asarray(nib.load(f"{config['dataset_dir']}/labelsTr/{case}.nii.gz").dataobj)
        yield case, label, label != IGNORED


@pytest.mark.slow
def test_results_are_those_of_the_known_voxels(done):
    evaluation = Evaluation(done / SEED / "evaluation")
    for case, label, known in files(done):
        truth = [label == 1, label == 2]
        probs, seg = read_map(done, case, "prob")[1:], read_map(done, case, "seg")[0]
        segs = [(seg == 1) & known, (seg == 2) & known]
        np.testing.assert_allclose(evaluation.tables["mean_dice"].loc[case, NAMES], dice(segs, np.array(truth)))
        for metric, function in (("macro_ece", ece), ("nll", nll), ("brier", brier)):
            wanted = [function(p[known], y[known]) if y.any() else np.nan for p, y in zip(probs, truth, strict=True)]
            np.testing.assert_allclose(evaluation.tables[metric].loc[case, NAMES], wanted, rtol=1e-4, atol=1e-6)
        place = evaluation.bins["cases"].tolist().index(case)
        assert (evaluation.bins["counts"][place].sum(-1) == known.sum()).all()
    assert evaluation.summary["provenance"]["ignore_label"] == IGNORED
    assert np.isfinite(evaluation.quality["voxels"]["entropy_aurc"])


@pytest.mark.slow
def test_calibrator_and_guarantee_are_fitted_on_the_known_voxels(done):
    report = read_calibrator(done / SEED / "models" / "calibrator.pt")["report"]
    whole = report["num_cases"] * 16 * 14 * 12
    assert 0 < report["num_voxels"] < 0.75 * whole
    assert (done / SEED / "models" / "guarantee.pt").is_file()


@pytest.mark.slow
def test_declared_but_absent_changes_not_a_bit(trained, tiny, templates, tmp_path):
    phantom = read_yaml(templates / "configs" / "data" / "phantom.yaml")
    phantom["data"]["ignore_label"] = 9
    (templates / "configs" / "data" / "phantom_9.yaml").write_text(yaml.safe_dump(phantom, sort_keys=False))
    bundle = generate(templates, tmp_path / "bundles", "phantom_9", "baseline_dice_ce", "deterministic")[0]
    for mode in ("train", "inference_eval"):
        run(str(bundle), mode, overrides=tiny)
    one, other = (torch.load(folder / SEED / "models" / "model.pt", weights_only=True) for folder in (trained, bundle))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for table in sorted((trained / SEED / "evaluation").glob("*_raw.csv")):
        assert (bundle / SEED / "evaluation" / table.name).read_text() == table.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ignore_label": 2}, "ignore_label 2 stands for a class"),
        ({"ignore_label": 7, "label_map": {7: 1}}, "ignore_label 7 stands for a class"),
        ({"ignore_label": -1}, "must be at least 0"),
        (
            {"ignore_label": 9, "augmentation": [{"_target_": "monai.transforms.RandCropByPosNegLabeld"}]},
            "ByLabelClass",
        ),
    ],
)
def test_what_cannot_be_ignored_is_said(templates, tmp_path, change, message):
    phantom = read_yaml(templates / "configs" / "data" / "phantom.yaml")
    phantom["data"] |= change
    (templates / "configs" / "data" / "spoilt.yaml").write_text(yaml.safe_dump(phantom, sort_keys=False))
    with pytest.raises(UserError, match=message):
        generate(templates, tmp_path, "spoilt", "baseline_dice_ce", "deterministic")


def test_a_bundle_that_knows_of_none_refuses_one_at_run_time(bundle, tiny):
    with pytest.raises(UserError, match="ignore_label"):
        run(str(bundle), "train", overrides=tiny | {"data::ignore_label": 9})
