"""Losses whose calibration error counts from some epoch on, in whole trainings."""

import pytest
import torch

from medcalib.bundle.run import run
from medcalib.handlers.checkpoint import training_state
from medcalib.handlers.training_record import read_record


def models(bundle):
    return bundle / "seed_12345" / "models"


def weights(bundle, name="checkpoint.pt"):
    state = torch.load(models(bundle) / name, weights_only=True)
    return state.get("network", state)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_it_is_the_baseline_until_it_begins_and_a_resumed_one_is_the_uninterrupted(
    make_bundle, tiny, tmp_path, stopped_in_second_epoch
):
    """Of four epochs the first is without the term, the second with a half, the others with all of it."""
    settings = tiny | {"data::max_epochs": 4}
    loss = "softl1ace_growing_dice_ce"
    baseline, parts, whole = (
        make_bundle(tmp_path / name, loss=of) for name, of in (("a", "baseline_dice_ce"), ("b", loss), ("c", loss))
    )
    for bundle in (baseline, parts):
        with stopped_in_second_epoch():
            run(str(bundle), "train", overrides=settings)
    assert equal(weights(parts), weights(baseline))
    for bundle in (parts, whole):
        run(str(bundle), "train", overrides=settings)
    for name in ("checkpoint.pt", "model.pt"):
        assert equal(weights(parts, name), weights(whole, name))
    assert training_state(models(whole)).best_epoch >= 3
    assert read_record(models(whole)).settings["train::trainer_handlers::ace_schedule::starts"] == 0.25
    told = (whole / "seed_12345" / "train.log").read_text()
    assert "epoch 2: the weight of SoftL1ACELoss is 0.5 of 1" in told
    assert "epoch 1: the weight" not in told
