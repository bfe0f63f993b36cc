"""Cross entropy on the targets that MONAI's losses take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """``torch.nn.CrossEntropyLoss`` on label maps with a channel axis, and binary cross entropy on a single channel.

    Args:
        weight: factor for each class; on a single channel the factor for positive voxels.
        ignore_index: label that does not count, with label maps.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: share of the target that is spread evenly over the classes.

    Example:
        >>> import torch
        >>> round(CrossEntropyLoss()(torch.zeros(1, 4, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        1.3863
    """

    def __init__(
        self,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...) or a target (B, C, ...) in nats."""
        if input.shape[1] == 1:
            return F.binary_cross_entropy_with_logits(
                input, target.to(input.dtype), pos_weight=self.weight, reduction=self.reduction
            )
        if target.shape[1] == 1:
            return super().forward(input, target.squeeze(1).long())
        return super().forward(input, target.to(input.dtype))
