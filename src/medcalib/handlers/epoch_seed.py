"""Seed every source of randomness at the start of an epoch."""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events

from medcalib.data.caching import SeededCacheDataset, derived_seed

__all__ = ["EpochSeedHandler"]


class EpochSeedHandler:
    """Make an epoch depend on seed and epoch number alone.

    A training that is resumed after epoch k then draws in epoch k + 1 what the uninterrupted one drew, and no state of
    random generators needs to be saved.

    Args:
        seed: seed of the run.
        dataset: the training data, told the epoch when it is a `SeededCacheDataset`.
    """

    def __init__(self, seed: int, dataset: torch.utils.data.Dataset) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, torch and the dataset."""
        seed = derived_seed(self.seed, engine.state.epoch)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - MONAI and its transforms draw from the global generator
        torch.manual_seed(seed)
        if isinstance(self.dataset, SeededCacheDataset):
            self.dataset.set_epoch(engine.state.epoch)
