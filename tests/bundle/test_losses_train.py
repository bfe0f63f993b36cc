"""Every loss fragment trains."""

import numpy as np
import pytest
import torch
from tests.conftest import TEMPLATES

from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.run import run

LOSSES = fragment_names(TEMPLATES / "configs", FragmentKind.LOSS)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_training_moves_the_weights_and_logs_a_finite_loss(tmp_path, make_bundle, tiny, loss):
    bundle = make_bundle(tmp_path, loss=loss)
    run(str(bundle), "train", overrides=tiny | {"data::batch_size": 2})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(bundle / "seed_12345" / "tensorboard")).Reload()
    values = [event.value for event in events.Scalars("train_loss")]
    assert len(values) == 4
    assert np.isfinite(values).all()
    state = torch.load(bundle / "seed_12345" / "models" / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())
