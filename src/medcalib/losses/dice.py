"""MONAI's Dice loss on targets of any dtype."""

from __future__ import annotations

import monai.losses
from torch import Tensor

__all__ = ["DiceLoss"]


class DiceLoss(monai.losses.DiceLoss):
    """``monai.losses.DiceLoss``, whose ``squared_pred`` refuses targets (B, C, ...) of whole numbers or booleans.

    Takes the same arguments and gives the same values.

    Example:
        >>> import torch
        >>> loss = DiceLoss(sigmoid=True, squared_pred=True)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 2, 8, 8, dtype=torch.uint8)).item(), 4)
        0.2
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...) or a target (B, C, ...)."""
        if target.shape == input.shape and not target.is_floating_point():
            target = target.to(input.dtype)
        return super().forward(input, target)
