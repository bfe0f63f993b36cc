"""Seed every source of randomness at the start of an epoch."""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events

from medcalib.data.caching import SeededDataset
from medcalib.seeds import derived_seed

__all__ = ["EpochSeedHandler", "seed_epoch"]


class EpochSeedHandler:
    """Make an epoch depend on seed and epoch number alone.

    A training that is resumed after epoch k then draws in epoch k + 1 what the uninterrupted one drew, and no state of
    random generators needs to be saved. Nor does it matter how many workers prepare the batches, and whether they live
    on from one epoch to the next.

    Args:
        seed: seed of the run.
        dataset: the training data, told the epoch when it is a `SeededDataset`.

    Example:
        >>> drawn = []
        >>> for _ in range(2):
        ...     trainer = Engine(lambda engine, batch: drawn.append(torch.rand(()).item()))
        ...     EpochSeedHandler(seed=7, dataset=[0]).attach(trainer)
        ...     _ = trainer.run([0], max_epochs=2)
        >>> drawn[:2] == drawn[2:], drawn[0] == drawn[1]
        (True, False)
    """

    def __init__(self, seed: int, dataset: torch.utils.data.Dataset) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed Python, NumPy, torch and the dataset."""
        seed_epoch(self.seed, engine.state.epoch, self.dataset)
        loader = engine.state.dataloader
        if getattr(loader, "persistent_workers", False) and getattr(loader, "_iterator", None) is not None:
            # a loader draws once when it starts workers; without it the order of cases would be another
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)


def seed_epoch(seed: int, epoch: int, dataset: torch.utils.data.Dataset) -> None:
    """Seed Python, NumPy, torch and the dataset for an epoch, counted from 1."""
    drawn = derived_seed(seed, epoch)
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 - MONAI and its transforms draw from the global generator
    torch.manual_seed(drawn)
    if isinstance(dataset, SeededDataset):
        dataset.set_epoch(epoch)
