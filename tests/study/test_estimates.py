"""Time and disk of runs, from what is measured; unknown where nothing is."""

import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from medcalib.bundle.layout import Mode
from medcalib.bundle.training_on import EPOCHS
from medcalib.errors import UserError
from medcalib.study.estimates import Measured, check_disk, disk_needed, measured_runs, seconds_needed
from medcalib.study.planned_runs import Run

FRAGMENTS = {"data": "phantom", "loss": "focal", "method": "tta", "network": "unet"}
TRAINING = Run(
    "a", "a", Mode.TRAIN, Path("b"), "0", FRAGMENTS, 1, False, {}, Path("b/seed_1"), (), None, True, 20, 1000
)
MEASURED = Measured(Mode.TRAIN, FRAGMENTS, False, True, 100.0, 5000, 8, 10)


def total(estimate):
    return estimate.total, estimate.num_known, estimate.num_unknown


def test_a_training_takes_time_in_proportion_to_its_epochs_and_disk_as_it_is():
    assert total(seconds_needed([TRAINING, TRAINING], [MEASURED])) == (400.0, 2, 0)
    assert total(disk_needed([TRAINING], [MEASURED])) == (5000, 1, 0)


def test_nothing_is_made_up():
    assert total(seconds_needed([TRAINING], [])) == (0, 0, 1)
    assert total(seconds_needed([TRAINING], [replace(MEASURED, debug=True)])) == (0, 0, 1)
    assert total(seconds_needed([TRAINING], [replace(MEASURED, fragments=FRAGMENTS | {"data": "x"})])) == (0, 0, 1)
    assert total(disk_needed([TRAINING], [])) == (16000, 1, 0)
    assert total(disk_needed([replace(TRAINING, num_weights=None)], [])) == (0, 0, 1)


def test_the_most_alike_counts():
    other = replace(MEASURED, fragments=FRAGMENTS | {"loss": "mbls"}, seconds=7.0)
    assert total(seconds_needed([TRAINING], [other])) == (14.0, 1, 0)
    assert total(seconds_needed([TRAINING], [other, MEASURED])) == (200.0, 1, 0)


def test_a_prediction_takes_as_its_cases():
    run = replace(TRAINING, mode=Mode.INFERENCE_PRED, trains_network=False, overrides={"limit_cases": 2})
    measured = replace(MEASURED, mode=Mode.INFERENCE_PRED, trains_network=False, epochs=None)
    assert total(seconds_needed([run], [measured])) == (25.0, 1, 0)
    other = replace(measured, fragments=FRAGMENTS | {"method": "deep_ensemble"})
    assert total(seconds_needed([run], [other])) == (0, 0, 1)
    assert total(disk_needed([run], [other])) == (1250, 1, 0)


@pytest.mark.parametrize("place", ["b", "settings_1/b", "b/settings_2", "settings_1/b/settings_2"])
def test_finished_runs_are_found_wherever_a_study_puts_them(tmp_path, place, make_bundle):
    made = make_bundle(tmp_path)
    output = tmp_path / "x" / place / "seed_1_debug"
    bundle = output.parent if place.endswith("b") else output.parent.parent
    output.mkdir(parents=True)
    made.rename(bundle) if not bundle.exists() else (made / "configs").rename(bundle / "configs")
    (output / "cost").mkdir(parents=True, exist_ok=True)
    (output / "models").mkdir()
    (output / "models" / "training.json").write_text(json.dumps({"settings": {EPOCHS: 3}}))
    cost = {"mode": "train", "seconds": 7.5, "num_cases": 4, "finished": True}
    (output / "cost" / "train.json").write_text(json.dumps(cost))
    (output / "cost" / "inference_eval.json").write_text(json.dumps(cost | {"finished": False}))
    (output / "cost" / "inference_pred.json").write_text("damaged")
    worse = output / "shifted" / "noise_3" / "cost"
    worse.mkdir(parents=True)
    (worse / "inference_eval.json").write_text(json.dumps(cost | {"mode": "inference_eval", "seconds": 2.5}))
    found, of_worse = measured_runs(tmp_path / "x")
    assert (of_worse.mode, of_worse.seconds, of_worse.debug) == (Mode.INFERENCE_EVAL, 2.5, True)
    assert (found.seconds, found.epochs, found.debug, found.num_bytes > 0) == (7.5, 3, True, True)
    assert found.fragments["network"] == "segresnet_ds"


def test_a_disk_that_is_too_small_is_refused_naming_both(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**30))
    check_disk(tmp_path / "not" / "there", 2**29)
    with pytest.raises(UserError, match=r"needs about 3\.0 GiB in .*where 1\.0 GiB are free; make room"):
        check_disk(tmp_path / "not" / "there", 3 * 2**30)
