"""The segmentation of each member of a whole image, put together from windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["MemberLabels"]


class MemberLabels:
    """Label maps of all members of a batch of images.

    Where windows overlap, each voxel takes what the window says in which it counts the most, the first of equal ones.
    Blending logits, as the mean is blended, would take the memory of all members' logits.

    Args:
        batch_size: number of images.
        importance: weight of a window's voxels; None where the image is a single window.
        padded: size of the image with what windows add around it; None as above.
        size: size of the image.

    Example:
        >>> members = MemberLabels(1, torch.tensor([1.0, 2.0]), [3], [3])
        >>> for start, labels in ((0, [0, 0]), (1, [1, 1])):
        ...     members.add([torch.tensor([[labels]])], [[slice(0, 1), slice(None), slice(start, start + 2)]])
        >>> members.labels().tolist()
        [[[0, 0, 1]]]
    """

    def __init__(
        self, batch_size: int, importance: Tensor | None, padded: Sequence[int] | None, size: Sequence[int]
    ) -> None:
        self.batch_size = batch_size
        self.importance = importance
        self.padded = list(padded or size)
        self.size = list(size)
        self._labels: Tensor | None = None
        self._best: Tensor | None = None

    def add(self, labels: Sequence[Tensor], coordinates: Sequence | None) -> None:
        """Take in a batch of windows, labels of each member (B, 1, ...) or, as booleans, (B, C, ...)."""
        joined = torch.cat([member.to(torch.uint8) if member.dtype == torch.bool else member for member in labels], 1)
        if coordinates is None or self.importance is None:
            self._labels = joined
            return
        if self._labels is None or self._best is None:
            shape = (self.batch_size, joined.shape[1], *self.padded)
            self._labels = torch.zeros(shape, dtype=joined.dtype, device=joined.device)
            self._best = torch.full((self.batch_size, *self.padded), -1.0, device=joined.device)
        for index, (batch, _, *window) in enumerate(coordinates):
            best, kept = self._best[(batch.start, *window)], self._labels[(batch.start, slice(None), *window)]
            wins = self.importance > best
            best[wins] = self.importance[wins]
            kept[:, wins] = joined[index][:, wins]

    def labels(self) -> Tensor:
        """Label maps (B, members, ...), or of independent labels 0 and 1 (B, members x classes, ...)."""
        if self._labels is None:
            raise ValueError("no window was added.")
        if self._best is None:
            return self._labels
        starts = [max(padded - own, 0) // 2 for padded, own in zip(self.padded, self.size, strict=True)]
        inside = tuple(slice(start, start + own) for start, own in zip(starts, self.size, strict=True))
        return self._labels[(slice(None), slice(None), *inside)].contiguous()
