"""A whole cross-validation of bundles: trained, predicted, evaluated, calibrated and guaranteed, every case once."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tests.conftest import PHANTOM_SIZE, TEMPLATES

from medcalib.bundle.compose import generate
from medcalib.bundle.data_folds import DataFold
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.compare import evaluate_folds, read_evaluation
from medcalib.data import phantom_cases
from medcalib.errors import UserError
from medcalib.predictions import calibrate_folds, guarantee_predictions

pytestmark = pytest.mark.slow
NAMES = ("phantom", "baseline_dice_ce", "deterministic", None)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("folds") / "bundles"
    made = [generate(TEMPLATES, folder, *NAMES, DataFold(number, 2))[0] for number in range(2)]
    for bundle in made:
        for mode in ("train", "inference_pred", "inference_eval"):
            run(str(bundle), mode, overrides={**tiny, "data::max_epochs": 1})
    return made


@pytest.fixture(scope="module")
def everyone(phantom_dir):
    split = phantom_cases(phantom_dir, **PHANTOM_SIZE)
    return sorted(case["case"] for part in ("training", "validation", "test") for case in split[part])


@pytest.fixture(scope="module")
def calibrated(bundles, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "out"
    calibrate_folds([bundles[0]], out, guarantee="recall_control", alpha=0.4)
    return out


def test_every_case_is_evaluated_once_by_the_fold_that_did_not_see_it(bundles, everyone, tmp_path):
    merged = evaluate_folds([bundles[1]], tmp_path / "evaluation")
    assert sorted(merged.case_ids) == everyone
    for number, bundle in enumerate(bundles):
        own = read_evaluation(bundle / "seed_12345" / "evaluation")
        record = json.loads((bundle / "seed_12345" / "models" / "training.json").read_text())
        seen = {case["case"] for cases in record["cases"].values() for case in cases}
        assert not seen & set(own.case_ids)
        assert set(merged.cases["filename"][merged.cases["fold"] == str(number)]) == set(own.case_ids)


def test_results_are_of_all_cases_and_fits_have_not_seen_theirs(bundles, everyone, calibrated):
    for name in ("before", "after"):
        assert sorted(read_evaluation(calibrated / name).case_ids) == everyone
    folds = json.loads((calibrated / "summary.json").read_text())["folds"]
    assert sorted(case for cases in folds.values() for case in cases) == everyone
    for number, cases in folds.items():
        place = calibrated / "folds" / f"fold_{number}"
        guaranteed = json.loads((place / "guarantee.json").read_text())["calibration_cases"]
        fitted_on = read_calibrator(place / "calibrator.pt")["details"]["cases"]
        assert not {*guaranteed, *fitted_on} & set(cases)
        assert not set(guaranteed) & set(fitted_on)
        assert sorted({*guaranteed, *fitted_on, *cases}) == everyone
    table = pd.read_csv(calibrated / "before" / "cases.csv")
    assert sorted(table["fold"].unique()) == [0, 1]
    assert (calibrated / "guarantee" / "guarantees.json").is_file()


def test_the_predictions_of_the_bundles_are_what_is_calibrated(bundles, calibrated):
    temperature = read_calibrator(calibrated / "folds" / "fold_0" / "calibrator.pt")["report"]["parameters"][
        "temperature"
    ]
    case = json.loads((calibrated / "summary.json").read_text())["folds"]["0"][0]
    raw, done = (
        np.asarray(nib.load(folder / "predictions" / case / f"{case}_prob.nii.gz").dataobj, dtype=np.float64)
        for folder in (bundles[0] / "seed_12345", calibrated)
    )
    scaled = raw ** (1 / temperature)
    np.testing.assert_allclose(done, scaled / scaled.sum(-1, keepdims=True), atol=1e-5)


def test_the_guarantee_for_new_cases_is_applied_by_its_own_command(calibrated, everyone, tmp_path):
    fitted_on = json.loads((calibrated / "guarantee.json").read_text())["calibration_cases"]
    new = next(case for case in everyone if case not in fitted_on)
    guarantee_predictions(
        calibrated / "predictions", tmp_path / "new", cases=[new], guarantee=str(calibrated / "guarantee.json")
    )
    assert any((tmp_path / "new" / "predictions" / new).iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibrator": "none"}, "there is nothing to fit"),
        ({"alpha": 0.2}, "alpha and min_covered are those of a guarantee"),
        ({"training_seed": 3}, "does not say which cases fold 0 was trained on"),
        ({"calibrator": "temperature"}, "no calibrator called 'temperature'"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(change, message, bundles, tmp_path):
    with pytest.raises(UserError, match=message):
        calibrate_folds([bundles[0]], tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_a_fold_that_is_not_evaluated_or_predicted_is_named_with_the_command(bundles, tmp_path):
    for name, call in (
        ("evaluation", lambda: evaluate_folds([bundles[0]], tmp_path / "out")),
        ("predictions", lambda: calibrate_folds([bundles[0]], tmp_path / "out")),
    ):
        folder = bundles[1] / "seed_12345" / name
        folder.rename(folder.with_name("aside"))
        try:
            with pytest.raises(UserError, match=f"Fold 1, .* yet; .*medcalib run --bundle {bundles[1]} --mode"):
                call()
        finally:
            folder.with_name("aside").rename(folder)
