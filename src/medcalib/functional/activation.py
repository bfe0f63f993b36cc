"""From logits to probabilities, and from probabilities to decisions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["to_decisions", "to_probabilities"]


def to_probabilities(logits: Tensor, sigmoid: bool = False, dim: int = 1) -> Tensor:
    """Probabilities of logits.

    Args:
        logits: logits with the classes along ``dim``, such as (B, C, ...); half precision is computed in float32.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.
        dim: the axis of the classes.

    Returns:
        Probabilities of the same shape, in [0, 1]; float64 for float64, else float32.

    Example:
        >>> to_probabilities(torch.tensor([[0.0, 0.0]])), to_probabilities(torch.tensor([[0.0]]), sigmoid=True)
        (tensor([[0.5000, 0.5000]]), tensor([[0.5000]]))
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide).sigmoid() if sigmoid else logits.softmax(dim, dtype=wide)


def to_decisions(probs: Tensor, sigmoid: bool = False, dim: int = 1) -> Tensor:
    """The segmentation of probabilities: of exclusive classes the most probable one, the first of several.

    Args:
        probs: probabilities with the classes along ``dim``, such as (B, C, ...).
        sigmoid: every channel is a binary problem of its own, which has the label where it is at least 0.5.
        dim: the axis of the classes.

    Returns:
        Class indices with one channel, (B, 1, ...), uint8, or int32 of more than 256 classes; with ``sigmoid``
        booleans (B, C, ...).

    Example:
        >>> to_decisions(torch.tensor([[0.2, 0.8]])), to_decisions(torch.tensor([[0.2, 0.5]]), sigmoid=True)
        (tensor([[1]], dtype=torch.uint8), tensor([[False,  True]]))
    """
    if sigmoid:
        return probs >= 0.5
    # argmax takes ten times as long on CPUs
    return probs.max(dim, keepdim=True).indices.to(torch.uint8 if probs.shape[dim] <= 256 else torch.int32)
