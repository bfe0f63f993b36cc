"""Voxels whose truth is known, and those that are to be ignored."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["known_voxels", "unsigned_labels"]


def known_voxels(y: Tensor, channel_axis: int = 1) -> Tensor | None:
    """Where the truth of a target is known; voxels to be ignored are below 0, as `medcalib.keys.IGNORED`.

    Args:
        y: label map or target (B, C, ...), or of a case (C, ...). A voxel is unknown if any of its channels is.
        channel_axis: the axis of the channels, 1 or 0.

    Returns:
        Booleans (B, 1, ...) or (1, ...); None if the truth is known everywhere.

    Example:
        >>> known_voxels(torch.tensor([[[0, 1, -1]]]))
        tensor([[[ True,  True, False]]])
        >>> known_voxels(torch.tensor([[[0, 1, 1]]])) is None
        True
    """
    plain = y.as_subclass(Tensor)
    if plain.dtype in (torch.uint8, torch.bool):
        return None
    known = (plain >= 0).all(channel_axis, keepdim=True)
    return None if bool(known.all()) else known


def unsigned_labels(y: Tensor) -> Tensor:
    """A target without voxels to be ignored, of the type that it has where a dataset knows of none.

    Args:
        y: of any shape; small whole numbers with a sign become uint8, others stay.

    Example:
        >>> unsigned_labels(torch.tensor([0, 1], dtype=torch.int8)).dtype
        torch.uint8
    """
    if y.dtype == torch.int16:
        return y.to(torch.uint8 if not y.numel() or int(y.max()) < 256 else torch.int32)
    return y.to(torch.uint8) if y.dtype == torch.int8 else y
