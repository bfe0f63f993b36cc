"""Sets of voxels around or within a segmentation: their volumes, and how much of a class they miss or wrongly take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medcalib.functional.inputs import plain

__all__ = ["millilitres", "missed_shares", "set_volumes", "within", "wrong_shares"]


def within(sets: Tensor, mask: Tensor | None) -> Tensor:
    """Sets of voxels (C, ...) without those that a mask (1, ...) leaves out."""
    sets = plain(sets).bool()
    return sets if mask is None else sets & (plain(mask) != 0)


def millilitres(sizes: Tensor, spacing: Sequence[float]) -> Tensor:
    """Volumes in ml of numbers of voxels."""
    return sizes.double() * (math.prod(spacing) / 1000)


def set_volumes(class_names: Sequence[str], name: str, sets: Tensor, spacing: Sequence[float]) -> dict[str, Any]:
    """Volumes in ml of sets of voxels (C, ...), by names for columns of a table.

    Example:
        >>> set_volumes(["organ"], "outer", torch.ones(1, 10, 10, 10, dtype=torch.bool), (1.0, 1.0, 2.0))
        {'organ_outer_ml': 2.0}
    """
    volumes = millilitres(sets.flatten(1).sum(1), spacing).tolist()
    return {f"{one}_{name}_ml": volume for one, volume in zip(class_names, volumes, strict=True)}


def missed_shares(sets: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Share of each class's voxels that are not in its set, (C,), float64; NaN where the case does not have it.

    Example:
        >>> missed_shares(torch.tensor([[True, False]]), torch.tensor([[True, True]]), None)
        tensor([0.5000], dtype=torch.float64)
    """
    target = within(target, mask).flatten(1)
    kept = (target & plain(sets).bool().flatten(1)).sum(1, dtype=torch.float64)
    size = target.sum(1, dtype=torch.float64)
    return torch.where(size > 0, 1 - kept / size.clamp(min=1), math.nan).cpu()


def wrong_shares(sets: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Share of each set's voxels that are not of its class, (C,), float64; 0 for empty sets.

    Example:
        >>> wrong_shares(torch.tensor([[True, True]]), torch.tensor([[True, False]]), None)
        tensor([0.5000], dtype=torch.float64)
    """
    sets = within(sets, mask).flatten(1)
    right = (sets & plain(target).bool().flatten(1)).sum(1, dtype=torch.float64)
    size = sets.sum(1, dtype=torch.float64)
    return torch.where(size > 0, 1 - right / size.clamp(min=1), 0.0).cpu()
