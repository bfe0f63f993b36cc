"""MONAI's Dice loss on targets of any dtype."""

from __future__ import annotations

import monai.losses
from torch import Tensor

__all__ = ["DiceLoss"]


class DiceLoss(monai.losses.DiceLoss):
    """``monai.losses.DiceLoss``, whose ``squared_pred`` refuses targets (B, C, ...) of whole numbers or booleans.

    Takes the same arguments and gives the same values. With ``to_onehot_y`` it takes soft targets (B, C, ...), too,
    such as the mean response of several raters: where ``squared_pred`` is not set, as the Dice semimetric loss
    (https://arxiv.org/abs/2303.16296), since plain soft Dice is not lowest where the prediction is the target.

    Example:
        >>> import torch
        >>> loss = DiceLoss(sigmoid=True, squared_pred=True)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 2, 8, 8, dtype=torch.uint8)).item(), 4)
        0.2
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...) or a target (B, C, ...)."""
        if target.shape != input.shape:
            return super().forward(input, target)
        if not target.is_floating_point():
            return super().forward(input, target.to(input.dtype))
        if not (self.to_onehot_y and input.shape[1] > 1):
            return super().forward(input, target)
        to_onehot_y, soft_label = self.to_onehot_y, self.soft_label
        self.to_onehot_y, self.soft_label = False, soft_label or not self.squared_pred
        try:
            return super().forward(input, target.to(input.dtype))
        finally:
            self.to_onehot_y, self.soft_label = to_onehot_y, soft_label
