"""Targets of labels that do not exclude each other, one channel each."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional.inputs import ROUNDING

__all__ = ["channel_targets"]


def channel_targets(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Prepare logits and a target of the same shape for a binary cross entropy in each channel.

    Args:
        logits: (B, C, ...), half precision is widened.
        target: (B, C, ...), of any dtype, in [0, 1].

    Returns:
        Logits and target as plain tensors of one floating-point dtype.

    Raises:
        ValueError: If the shapes differ, or, on CPU, where looking costs no waiting for the device, if the target is
            NaN or outside [0, 1].

    Example:
        >>> channel_targets(torch.zeros(1, 2, 1), torch.tensor([[[0], [1]]]))[1]
        tensor([[[0.],
                 [1.]]])
    """
    if target.shape != logits.shape:
        raise ValueError(
            f"target must have the shape of the logits {tuple(logits.shape)}, one channel for each label, got "
            f"{tuple(target.shape)}."
        )
    wide = torch.promote_types(logits.dtype, torch.float32)
    values = target.as_subclass(torch.Tensor).to(wide)
    if values.device.type == "cpu" and values.numel():
        low, high = (value.item() for value in values.aminmax())
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise ValueError(
                f"target is one of independent labels and must lie in [0, 1], but ranges from {low:g} to {high:g}."
            )
    return logits.as_subclass(torch.Tensor).to(wide), values
