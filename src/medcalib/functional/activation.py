"""From logits to probabilities, and from probabilities to decisions."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional.slabs import can_overwrite, slabs

__all__ = ["case_decisions", "to_decisions", "to_probabilities", "to_probabilities_"]


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


def to_probabilities_(logits: Tensor, sigmoid: bool = False) -> Tensor:
    """Probabilities of the logits of a case, written over them, so that a big volume is in memory once.

    Args:
        logits: logits (C, ...). Those of half precision stay as they are, and so do those that torch remembers for a
            gradient.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.

    Returns:
        What :func:`to_probabilities` returns.

    Example:
        >>> logits = torch.zeros(2, 3)
        >>> to_probabilities_(logits) is logits, logits[0].tolist()
        (True, [0.5, 0.5, 0.5])
    """
    if logits.dtype not in (torch.float32, torch.float64) or not can_overwrite(logits):
        return to_probabilities(logits, sigmoid, dim=0)
    values = logits.as_subclass(torch.Tensor)
    if sigmoid:
        values.sigmoid_()
    else:
        for part in slabs(values):
            values[part] = values[part].softmax(0)
    return logits


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


def case_decisions(probs: Tensor, sigmoid: bool = False) -> Tensor:
    """The segmentation of a case, see :func:`to_decisions`, slab by slab.

    Args:
        probs: probabilities (C, ...).
        sigmoid: every channel is a binary problem of its own.

    Returns:
        Class indices (1, ...), or with ``sigmoid`` booleans (C, ...).

    Example:
        >>> case_decisions(torch.tensor([[0.2], [0.8]]))
        tensor([[1]], dtype=torch.uint8)
    """
    if sigmoid:
        return to_decisions(probs, sigmoid, dim=0)
    parts = [to_decisions(probs[part], dim=0) for part in slabs(probs)]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]
