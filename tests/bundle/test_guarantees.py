"""Guarantees of bundles: fitted after the training, stored, compared, applied and checked."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import PHANTOM_SIZE
from tests.several import in_processes

from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.data import phantom_cases
from medcalib.errors import UserError
from medcalib.guarantees import read_guarantees
from medcalib.handlers import case_overlay
from medcalib.visualize import draw_case_overlay

OUTPUT = "seed_12345"
NO_FIGURES = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}
# a level that two calibration cases are enough for
LEVEL = {"guarantee::alpha": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    """A folder of bundles with the trained deterministic one."""
    folder = tmp_path_factory.mktemp("guarantees")
    shutil.copytree(trained, folder / "bundles" / trained.name)
    return folder


@pytest.fixture(scope="module")
def guaranteed(folder, make_bundle, tiny):
    """A bundle with control of the recall that was fitted, used for prediction and evaluated."""
    bundle = make_bundle(folder, method="recall_control")
    run(str(bundle), "train", overrides=tiny | LEVEL)
    run(str(bundle), "inference_pred", overrides=tiny | LEVEL)
    run(str(bundle), "inference_eval", overrides=tiny | LEVEL | {"quality_control::calibrate_threshold": False})
    return bundle


@pytest.fixture
def copied(guaranteed, tmp_path):
    """A copy of the folder of bundles, and in it the guaranteed one."""
    return shutil.copytree(guaranteed.parent, tmp_path / "bundles") / guaranteed.name


def masks(bundle, case, *names):
    folder = bundle / OUTPUT / "predictions" / case
    return [nib.load(folder / f"{case}_{name}.nii.gz") for name in names]


@pytest.mark.slow
def test_sets_are_written_on_the_grid_of_the_input(guaranteed, phantom_dir):
    fitted = read_guarantees(guaranteed / OUTPUT / "models" / "guarantee.pt")["states"]["recall_control"]["fitted"]
    for case in phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"]:
        image = nib.load(case["image"])
        seg, prob, *outer = masks(guaranteed, case["case"], "seg", "prob", "outer_organ", "outer_lesion")
        for channel, (name, mask) in enumerate(zip(("organ", "lesion"), outer, strict=True), start=1):
            assert mask.get_data_dtype() == np.uint8
            np.testing.assert_allclose(mask.affine, image.affine)
            threshold = np.float32(fitted["pooled"][name]["threshold"])
            expected = (np.asarray(prob.dataobj)[..., channel] >= threshold) | (np.asarray(seg.dataobj) == channel)
            np.testing.assert_array_equal(np.asarray(mask.dataobj), expected)
    table = pd.read_csv(guaranteed / OUTPUT / "predictions" / "guarantees.csv")
    voxel = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    assert table["organ_outer_ml"].iloc[-1] == pytest.approx(np.asarray(outer[0].dataobj).sum() * voxel, rel=1e-5)


@pytest.mark.slow
def test_what_happened_is_what_the_files_say(guaranteed, phantom_dir):
    report = json.loads((guaranteed / OUTPUT / "evaluation" / "guarantees.json").read_text())
    found = report["guarantees"]["recall_control"]
    assert (found["promised"], report["num_cases"]) == (0.5, PHANTOM_SIZE["num_test"])
    for channel, name in enumerate(("organ", "lesion"), start=1):
        missed, stretch = [], []
        for case in phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"]:
            truth = np.asarray(nib.load(case["label"]).dataobj) == channel
            seg, outer = (np.asarray(mask.dataobj) for mask in masks(guaranteed, case["case"], "seg", f"outer_{name}"))
            missed += [(truth & (outer == 0)).sum() / truth.sum()] if truth.any() else []
            stretch += [outer.sum() / (seg == channel).sum()] if (seg == channel).any() else []
        risk = found["classes"][name]
        assert risk["num_cases"] == len(missed)
        assert risk["mean"] == pytest.approx(np.mean(missed))
        assert risk["low"] <= risk["mean"] <= risk["high"]
        if stretch:
            assert found["sets"]["outer"][name]["stretch"] == pytest.approx(np.median(stretch))
    assert (guaranteed / OUTPUT / "evaluation" / "guarantees" / "recall_control.png").exists()


@pytest.mark.slow
def test_all_else_is_as_without_a_guarantee(guaranteed, trained):
    for name in ("nll_raw.csv", "mean_dice_raw.csv", "cases.csv", "macro_ece_raw.csv"):
        with_it, without = (bundle / OUTPUT / "evaluation" / name for bundle in (guaranteed, trained))
        assert with_it.read_bytes() == without.read_bytes(), name


@pytest.mark.slow
def test_two_fits_give_the_same_file(copied, tiny):
    file = copied / OUTPUT / "models" / "guarantee.pt"
    before = file.read_bytes()
    file.unlink()
    run(str(copied), "train", overrides=tiny | LEVEL)
    assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"guarantee::alpha": 0.6}, "guarantee.pt was fitted with alpha 0.5, but 0.6 is asked for"),
        ({"inferer::overlap": 0.25}, "fitted on predictions with inferer.overlap 0.0, not 0.25"),
        ({"guarantee_min_group_cases": 5}, "fitted with min_group_cases 20, but 5 is asked for"),
    ],
)
def test_other_settings_are_refused(guaranteed, tiny, overrides, message):
    with pytest.raises(UserError, match=message):
        run(str(guaranteed), "inference_eval", overrides=tiny | LEVEL | NO_FIGURES | overrides)


@pytest.mark.slow
def test_other_weights_are_refused(copied, trained, tiny):
    weights = copied.parent / trained.name / OUTPUT / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    with pytest.raises(UserError, match="was fitted with other weights than now"):
        run(str(copied), "inference_pred", overrides=tiny | LEVEL)


@pytest.mark.slow
def test_cases_of_the_fit_are_not_evaluated(copied, phantom_dir, tiny):
    path = copied / OUTPUT / "models" / "guarantee.pt"
    content = torch.load(path, weights_only=True)
    tested = phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"][0]["case"]
    content["cases"][0] |= {"case": tested, "image": None}
    torch.save(content, path)
    with pytest.raises(UserError, match=f"1 of the 3 cases .* calibrated on in the fit of .*guarantee.pt: {tested}"):
        run(str(copied), "inference_eval", overrides=tiny | LEVEL | NO_FIGURES)


@pytest.mark.slow
def test_a_damaged_or_missing_guarantee_is_one_sentence(copied, tiny):
    path = copied / OUTPUT / "models" / "guarantee.pt"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="not a readable guarantee"):
        run(str(copied), "inference_pred", overrides=tiny | LEVEL)
    path.unlink()
    with pytest.raises(UserError, match="does not exist: run --mode train"):
        run(str(copied), "inference_pred", overrides=tiny | LEVEL)


@pytest.mark.slow
def test_calibrator_and_guarantee_have_their_own_halves(folder, make_bundle, tiny):
    bundle = make_bundle(folder, method="temperature_scaling+recall_control")
    models = bundle / OUTPUT / "models"
    for share, number in (("half", 1), ("all", 2)):
        run(str(bundle), "train", overrides=tiny | LEVEL | {"guarantee_cases": share})
        guarantee, calibrator = (read_guarantees(models / "guarantee.pt"), read_calibrator(models / "calibrator.pt"))
        of_guarantee, of_calibrator = (
            {case["case"] for case in cases} for cases in (guarantee["cases"], calibrator["details"]["cases"])
        )
        assert len(of_guarantee) == len(of_calibrator) == number
        assert of_guarantee.isdisjoint(of_calibrator) == (share == "half")
        assert len(of_guarantee | of_calibrator) == 2
    # it was fitted on calibrated probabilities, with which it is used
    run(str(bundle), "inference_eval", overrides=tiny | LEVEL | NO_FIGURES)
    report = json.loads((bundle / OUTPUT / "evaluation" / "guarantees.json").read_text())
    assert report["guarantees"]["recall_control"]["classes"]["organ"]["num_cases"] == PHANTOM_SIZE["num_test"]
    run(str(bundle.parent / bundle.name), "train", overrides=tiny | LEVEL)
    (models / "calibrator.pt").write_bytes(
        _with_other_temperature(torch.load(models / "calibrator.pt", weights_only=True), models)
    )
    with pytest.raises(UserError, match="was fitted with another calibrator than now"):
        run(str(bundle), "inference_eval", overrides=tiny | LEVEL | NO_FIGURES)


def _with_other_temperature(content, folder):
    content["state"]["log_temperature"] += 0.1
    torch.save(content, folder / "other.pt")
    return (folder / "other.pt").read_bytes()


def test_too_few_cases_are_told_before_anything_is_trained(tmp_path, make_bundle, tiny):
    bundle = make_bundle(tmp_path, method="temperature_scaling+recall_control")
    told = "needs 9 calibration cases that have the class, and there are 1: .* the other 1 of the 2 fit the calibrator"
    with pytest.raises(UserError, match=f"recall_control at alpha 0.1 {told}"):
        run(str(bundle), "train", overrides=tiny)
    assert not list(tmp_path.glob("bundles/*/seed_*"))


@pytest.mark.slow
def test_a_debug_run_promises_nothing(tmp_path, make_bundle, tiny):
    bundle = make_bundle(tmp_path, method="temperature_scaling+contours")
    with pytest.warns(UserWarning, match="This debug run promises nothing"):
        run(str(bundle), "train", debug=True, overrides=tiny)
    run(str(bundle), "inference_eval", debug=True, overrides=tiny | NO_FIGURES)
    report = json.loads((bundle / f"{OUTPUT}_debug" / "evaluation" / "guarantees.json").read_text())
    assert "needs 9 calibration cases" in report["promises_nothing"]["recall_control"]


@pytest.mark.slow
def test_new_images_have_sets_and_values(guaranteed, phantom_dir, tiny, tmp_path, monkeypatch):
    images = phantom_dir / "images" / "phantom_006.nii.gz"
    drawn = []

    def draw(*arrays, **options):
        drawn.append(options)
        return draw_case_overlay(*arrays, **options)

    monkeypatch.setattr(case_overlay, "draw_case_overlay", draw)
    settings = {id_: value for id_, value in tiny.items() if not id_.startswith("data::cases")}
    settings |= LEVEL | {"output_dir": str(tmp_path / "new")}
    # one image and two calibration cases
    with pytest.warns(UserWarning, match="are too few to tell whether they are alike"):
        run(str(guaranteed), "inference_pred", overrides=settings, images=str(images))
    row = pd.read_csv(tmp_path / "new" / "predictions.csv").iloc[0]
    outer = nib.load(tmp_path / "new" / "phantom_006" / "phantom_006_outer_organ.nii.gz")
    voxel = abs(np.linalg.det(outer.affine[:3, :3])) / 1000
    assert row["guaranteed_organ_outer_ml"] == pytest.approx(np.asarray(outer.dataobj).sum() * voxel, rel=1e-5)
    # the sets are the band in the figure
    (options,) = drawn
    assert "inner" not in options
    np.testing.assert_array_equal(options["outer"][0], np.asarray(outer.dataobj) != 0)
    assert 3 * row["shift_p"] in (pytest.approx(1), pytest.approx(2), pytest.approx(3))
    check = json.loads((tmp_path / "new" / "shift.json").read_text())
    assert (check["num_images"], check["num_calibration_cases"]) == (1, PHANTOM_SIZE["num_validation"])
    scores = json.loads((tmp_path / "new" / "phantom_006" / "phantom_006.json").read_text())["scores"]
    assert set(check["scores"]) == {name for name in scores if not name.endswith("_image_mean")}


@pytest.mark.slow
def test_two_processes_write_the_same_letters(guaranteed, copied, tiny, tmp_path):
    def every_mode(_rank):
        for mode in ("train", "inference_pred", "inference_eval"):
            settings = (
                tiny | LEVEL | ({"quality_control::calibrate_threshold": False} if mode == "inference_eval" else {})
            )
            run(str(copied), mode, overrides=settings)

    shutil.rmtree(copied / OUTPUT)
    in_processes(2, every_mode, tmp_path / "log")
    names = [
        "models/guarantee.pt",
        "predictions/guarantees.csv",
        "evaluation/guarantees.json",
        "evaluation/guarantees.csv",
    ]
    names += [str(path.relative_to(guaranteed / OUTPUT)) for path in guaranteed.rglob("*_outer_*.nii.gz")]
    assert len(names) > 4
    for name in names:
        assert (copied / OUTPUT / name).read_bytes() == (guaranteed / OUTPUT / name).read_bytes(), name


def test_what_a_bundle_with_a_guarantee_is(tmp_path, make_bundle):
    deterministic, alone, joined = (
        Bundle.open(make_bundle(tmp_path, method=method))
        for method in ("deterministic", "recall_control", "mc_dropout+temperature_scaling+contours")
    )
    assert (deterministic.fits_guarantee, alone.fits_guarantee, joined.fits_guarantee) == (False, True, True)
    assert (alone.fits_calibrator, joined.fits_calibrator) == (False, True)
    assert alone.metadata["medcalib"]["weights_bundle"] == deterministic.name
    assert joined.metadata["medcalib"]["weights_bundle"].startswith("phantom_baseline_dice_ce_mc_dropout_")
