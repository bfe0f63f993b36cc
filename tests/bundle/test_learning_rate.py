"""The learning rates of a training."""

import numpy as np
import pytest
import torch
from ignite.engine import Events

from medcalib.bundle.run import run
from medcalib.handlers import EpochSeedHandler

STEPS = {"_target_": "torch.optim.lr_scheduler.StepLR", "optimizer": "@train::optimizer", "step_size": 1}


@pytest.mark.slow
def test_rates_rise_in_the_first_epoch_and_fall_in_half_a_cosine(make_bundle, tiny, tmp_path, monkeypatch):
    """The rate of every step, against the formula."""
    bundle, rates = make_bundle(tmp_path), []
    attach = EpochSeedHandler.attach

    def record(handler, engine):
        attach(handler, engine)

        @engine.on(Events.ITERATION_STARTED)
        def note():
            rates.append(engine.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(EpochSeedHandler, "attach", record)
    run(str(bundle), "train", overrides=tiny | {"data::batch_size": 1, "max_epochs": 3, "train::optimizer::lr": 0.01})
    batches, steps = len(rates) // 3, np.arange(len(rates))
    rise = 0.1 + 0.9 * steps / batches
    fall = 0.5 * (1 + np.cos(np.pi * (steps - batches) / (2 * batches)))
    assert batches > 1
    np.testing.assert_allclose(rates, 0.01 * np.where(steps < batches, rise, fall), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replaced", "counted"),
    [
        ({}, "iteration"),
        ({"train::lr_scheduler": STEPS}, "epoch"),
    ],
)
def test_schedulers_of_pytorch_count_epochs(make_bundle, tiny, tmp_path, replaced, counted):
    bundle = make_bundle(tmp_path)
    run(str(bundle), "train", overrides=tiny | {"data::batch_size": 1} | replaced)
    state = torch.load(bundle / "seed_12345" / "models" / "checkpoint.pt", weights_only=True)
    assert state["iteration"] > state["epoch"]
    assert state["lr_scheduler"]["last_epoch"] == state[counted]
