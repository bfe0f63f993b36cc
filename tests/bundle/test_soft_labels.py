"""Bundles whose cases have several raters or a soft label."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode, config_files
from medcalib.bundle.run import run
from medcalib.bundle.templates import find_templates
from medcalib.data import phantom_raters_cases
from medcalib.errors import UserError


@pytest.fixture
def templates(tmp_path):
    """Templates of which data fragments may be changed."""
    import shutil

    copy = Path(shutil.copytree(find_templates(), tmp_path / "templates"))

    def changed(base="phantom_raters", **changes):
        path = copy / "configs" / "data" / f"{base}.yaml"
        content = yaml.safe_load(path.read_text())
        content["data"] |= changes
        path.write_text(yaml.safe_dump(content))
        return copy

    return changed


def made(templates, tmp_path, data="phantom_raters", loss="softl1ace_dice_ce", method="mc_dropout"):
    return generate(templates, tmp_path / "bundles", data, loss, method)[0]


def test_bundles_of_one_rater_have_nothing_of_it(tmp_path):
    bundle = made(find_templates(), tmp_path, "phantom")
    assert not list((bundle / "configs").glob("raters*"))
    rated = made(find_templates(), tmp_path)
    names = [[path.stem for path in config_files(rated / "configs", mode)] for mode in Mode]
    assert [[name for name in of_mode if "raters" in name] for of_mode in names] == [
        ["raters"],
        ["raters", "raters_inference_pred"],
        ["raters", "raters_inference_eval"],
    ]


@pytest.mark.parametrize("loss", ["focal", "nacl"])
def test_losses_of_hard_labels_are_refused(tmp_path, loss):
    with pytest.raises(UserError, match=f"The loss {loss} is published for hard labels alone .*; choose baseline_dice"):
        made(find_templates(), tmp_path, loss=loss)


def test_what_makes_no_sense_of_soft_labels_is_refused(tmp_path, templates):
    with pytest.raises(UserError, match="label_map maps values of label maps"):
        made(templates(label_type="probabilities", label_map={1: 1}), tmp_path)
    with pytest.raises(UserError, match="label_type is 'votes', but must be one of classes, raters, probabilities"):
        made(templates(label_type="votes"), tmp_path)
    regions = [{"_target_": "medcalib.transforms.Regionsd", "keys": "label", "allow_missing_keys": True}]
    with pytest.raises(UserError, match="makes regions of labels"):
        made(templates(label_type="raters", label_map=None, preprocessing=regions), tmp_path)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """One bundle from training to evaluation, with a calibrator, on cases of which one has three raters."""
    folder = tmp_path_factory.mktemp("rated")
    numbers = {"num_training": 2, "num_validation": 1, "num_test": 2}
    phantom_raters_cases(folder / "phantom_raters", **numbers)
    overrides = {f"data::cases::{name}": number for name, number in numbers.items()}
    overrides |= {"data::dataset_dir": str(folder / "phantom_raters"), "max_epochs": 2}
    overrides |= {"method::sampler::num_members": 3, "device": "cpu"}
    bundle = generate(
        find_templates(), folder / "bundles", "phantom_raters", "softl1ace_dice_ce", "mc_dropout+temperature_scaling"
    )[0]
    for mode in (Mode.TRAIN, Mode.INFERENCE_EVAL, Mode.INFERENCE_PRED):
        run(str(bundle), mode, debug=True, overrides=overrides)
    return bundle / "seed_12345_debug"


@pytest.mark.slow
def test_a_bundle_from_training_to_evaluation(evaluated):
    summary = json.loads((evaluated / "evaluation" / "summary.json").read_text())
    for name in ("mean_dice", "macro_ece", "nll", "brier", "ged", "ncc_entropy", "ncc_variance", "rater_dice"):
        assert np.isfinite(summary[name]), name
    assert summary["provenance"]["label_type"] == "raters"
    bins = np.load(evaluated / "evaluation" / "bin_statistics.npz")
    # shares of raters, which are no whole numbers
    assert (bins["sum_true"] % 1 > 1e-6).any()
    raters = pd.read_csv(evaluated / "evaluation" / "raters.csv")
    assert raters.groupby("filename").size().to_dict() == {"phantom_004": 5, "phantom_005": 3}
    assert set(raters["rater"]) == {f"rater_{number}" for number in range(1, 6)}
    assert raters["organ"].between(0.5, 1).all()
    assert sorted(path.name for path in (evaluated / "evaluation" / "raters").iterdir()) == [
        "phantom_004.png",
        "phantom_005.png",
    ]
    assert (evaluated / "predictions" / "phantom_004" / "phantom_004_overlay.png").exists()
    assert (evaluated / "models" / "calibrator.pt").exists()
