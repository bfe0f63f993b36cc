"""Batches of which every process of a run gets its part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from medcalib.data.loader_like import loader_like
from medcalib.errors import UserError

__all__ = ["SharedBatches", "part_sizes", "shared_loader"]


def part_sizes(number: int, parts: int) -> list[int]:
    """How many of some things each part gets, in order; sizes differ by one at most.

    Example:
        >>> part_sizes(5, 3)
        [2, 2, 1]
    """
    return [number // parts + (part < number % parts) for part in range(parts)]


class SharedBatches(Sampler[list[int]]):
    """Of every batch the part of one process, in the order of the plain batch.

    The parts of all processes together are the plain batch, so every case comes once. In a batch of fewer cases than
    there are processes, those without a case get the first one of the batch, which must not count.

    Args:
        batches: the plain batches, the same in all processes, such as a sampler that draws from the global generator,
            which is seeded alike.
        rank: number of this process.
        processes: number of processes.

    Example:
        >>> from torch.utils.data import BatchSampler
        >>> plain = BatchSampler(range(5), 4, drop_last=False)
        >>> [list(SharedBatches(plain, rank, 2)) for rank in range(2)]
        [[[0, 1], [4]], [[2, 3], [4]]]
    """

    def __init__(self, batches: Sampler[list[int]], rank: int, processes: int) -> None:
        self.batches = batches
        self.rank = rank
        self.processes = processes
        self._sizes: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the part of one batch after the other."""
        self._sizes.clear()
        for batch in self.batches:
            sizes = part_sizes(len(batch), self.processes)
            self._sizes.append(sizes)
            start = sum(sizes[: self.rank])
            yield batch[start : start + sizes[self.rank]] or batch[:1]

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.batches)  # type: ignore[arg-type]  # one that can be counted

    def sizes(self, number: int) -> list[int]:
        """How many cases of a batch of this epoch each process has that count; batches are counted from 0."""
        return self._sizes[number]


def shared_loader(loader: DataLoader, rank: int, processes: int) -> DataLoader:
    """A loader like another one that prepares the part of one process of every batch; see `SharedBatches`.

    Raises:
        UserError: there are more processes than cases, or than cases in a batch.

    Example:
        >>> loader = DataLoader(range(4), batch_size=4)
        >>> list(shared_loader(loader, 1, 2))
        [tensor([2, 3])]
    """
    plain: Any = loader.batch_sampler
    cases, batch = len(loader.dataset), plain.batch_size  # type: ignore[arg-type]
    for number, what, advice in (
        (cases, f"there are {cases} training cases", ""),
        (batch, f"a batch has {batch} cases", " or a larger data::batch_size"),
    ):
        if number < processes:
            raise UserError(
                f"{processes} processes share the training, but {what}, so that some would have nothing to do; give "
                f"--num_gpus={number} at most{advice}."
            )
    return loader_like(loader, batch_sampler=SharedBatches(plain, rank, processes))
