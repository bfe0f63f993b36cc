"""A cached dataset whose random transforms depend on seed, epoch and case alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from monai.data import CacheDataset
from monai.transforms import Compose, Randomizable

__all__ = ["SeededCacheDataset", "derived_seed"]


def derived_seed(*parts: int) -> int:
    """A 32-bit seed that depends on every part, and not on their sum.

    Example:
        >>> derived_seed(1, 2) != derived_seed(2, 1)
        True
    """
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")


class SeededCacheDataset(CacheDataset):
    """Keep the results of the deterministic transforms in memory, and seed the random ones per epoch and case.

    What a case looks like in an epoch does not depend on the number of workers, on the order of the cases, or on what
    was computed before, so a resumed training sees what the uninterrupted one would have seen.

    Args:
        data: the cases.
        transform: deterministic transforms first, then random ones.
        seed: seed of the run.
        **kwargs: as of `monai.data.CacheDataset`.

    Example:
        >>> from monai.transforms import RandShiftIntensity
        >>> import torch
        >>> shift = RandShiftIntensity(1.0, prob=1.0)
        >>> dataset = SeededCacheDataset([torch.zeros(1, 2, 2)], shift, seed=0, progress=False)
        >>> first = dataset[0]
        >>> bool((dataset[0] == first).all())
        True
        >>> dataset.set_epoch(2)
        >>> bool((dataset[0] == first).all())
        False
    """

    def __init__(self, data: Sequence, transform: Any, seed: int = 0, **kwargs: Any) -> None:
        self.seed = seed
        self.epoch = 1
        if isinstance(transform, Compose):
            transform = transform.flatten()  # a nested Compose would count as random and not be cached
        super().__init__(data=data, transform=transform, **kwargs)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random numbers are drawn."""
        self.epoch = epoch

    def _transform(self, index: int) -> Any:
        if isinstance(self.transform, Compose | Randomizable):
            self.transform.set_random_state(seed=derived_seed(self.seed, self.epoch, index))
        return super()._transform(index)
