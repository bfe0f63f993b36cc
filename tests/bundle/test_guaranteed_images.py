"""Guarantees of bundles that classify whole images."""

import json

import pandas as pd
import pytest
from tests.bundle.test_classification import CLASSES, SIZES, SMALL_NETWORK
from tests.conftest import TEMPLATES

from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode
from medcalib.bundle.run import run
from medcalib.data import phantom_cells_cases
from medcalib.errors import UserError

OUTPUT = "seed_12345"
SETTINGS = SMALL_NETWORK | {"data::max_epochs": 1}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cells"
    return {"data::dataset_dir": str(folder), **{f"data::cases::{name}": number for name, number in SIZES.items()}}


@pytest.fixture(scope="module")
def guaranteed(tmp_path_factory, cells):
    """Bundles with each guarantee of classification, of one network, through every mode."""
    folder, bundles = tmp_path_factory.mktemp("guaranteed"), {}
    for name, level in (("temperature_scaling+prediction_sets", 0.2), ("selective_accuracy", 0.4)):
        bundle = generate(TEMPLATES, folder, "phantom_cells", "baseline_ce", name)[0]
        for mode in Mode:
            run(str(bundle), mode, overrides=SETTINGS | cells | {"guarantee::alpha": level})
        bundles[name.rpartition("+")[2]] = bundle
    return bundles


@pytest.mark.slow
def test_sets_of_classes_hold_the_true_one_as_often_as_is_said(guaranteed, cells):
    output = guaranteed["prediction_sets"] / OUTPUT
    sets = pd.read_csv(output / "predictions" / "guarantees.csv").set_index("filename")
    predicted = pd.read_csv(output / "predictions" / "predictions.csv").set_index("case")
    lacking = []
    for case in phantom_cells_cases(cells["data::dataset_dir"], **SIZES)["test"]:
        held = sets.loc[case["case"], "prediction_set"].split("|")
        assert len(held) == sets.loc[case["case"], "set_size"]
        assert predicted.loc[case["case"], "predicted"] in held
        lacking.append(CLASSES[int(case["label"])] not in held)
    report = json.loads((output / "evaluation" / "guarantees.json").read_text())["guarantees"]["prediction_sets"]
    risk = report["classes"]["cases"]
    assert (report["promised"], risk["num_cases"]) == (0.2, len(lacking))
    assert risk["mean"] == pytest.approx(sum(lacking) / len(lacking))


@pytest.mark.slow
def test_passing_images_are_those_that_are_said(guaranteed):
    output = guaranteed["selective_accuracy"] / OUTPUT
    sent = pd.read_csv(output / "predictions" / "guarantees.csv")["send_to_human"]
    report = json.loads((output / "evaluation" / "guarantees.json").read_text())["guarantees"]["selective_accuracy"]
    assert report["sent_to_human"] == sent.sum()
    assert report["classes"]["cases"]["num_cases"] == (~sent).sum()


@pytest.mark.slow
def test_new_images_are_flagged_by_the_guarantee(guaranteed, cells, tmp_path):
    case = phantom_cells_cases(cells["data::dataset_dir"], **SIZES)["test"][0]
    settings = SETTINGS | {"guarantee::alpha": 0.4, "output_dir": str(tmp_path / "new")}
    run(str(guaranteed["selective_accuracy"]), "inference_pred", overrides=settings, images=case["image"])
    row = pd.read_csv(tmp_path / "new" / "predictions.csv").iloc[0]
    assert row["flagged"] == row["guaranteed_send_to_human"]
    assert "guarantee" in row["reason"]


def test_a_guarantee_of_volumes_is_none_of_images(tmp_path):
    with pytest.raises(UserError, match="recall_control is made for segmentation, but the task of phantom_cells is"):
        generate(TEMPLATES, tmp_path, "phantom_cells", "baseline_ce", "recall_control")
