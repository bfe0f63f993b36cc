"""A data loader like another one, with other batches."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

__all__ = ["loader_like"]


def loader_like(loader: DataLoader, **batching: Any) -> DataLoader:
    """A loader of the same dataset, with the same workers and collation.

    Args:
        loader: the other one.
        **batching: what decides the batches, as `torch.utils.data.DataLoader` takes it; nothing of it is carried over.

    Example:
        >>> [batch.tolist() for batch in loader_like(DataLoader(range(3)), batch_size=2)]
        [[0, 1], [2]]
    """
    return DataLoader(
        loader.dataset,
        **batching,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
