"""Cross entropy on the targets that MONAI's losses take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcalib.losses.channel_targets import channel_targets

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(nn.CrossEntropyLoss):
    r"""``torch.nn.CrossEntropyLoss`` on label maps with a channel axis, or binary cross entropy of every channel.

    A single channel, and with ``sigmoid`` any number of them, are binary problems of their own, with the mean of

    .. math::
        -y_{ic} \ln \sigma(z_{ic}) - (1 - y_{ic}) \ln(1 - \sigma(z_{ic}))

    over voxels i and channels c. So the loss of one channel z is that of the two exclusive classes (0, z), and the loss
    of several is the mean of their losses.

    Args:
        weight: factor for each class; with binary problems for the positive voxels of each channel.
        ignore_index: label that does not count, with label maps of exclusive classes.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_smoothing: share of the target that is spread evenly over the classes, or over a label and its absence.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.

    Raises:
        ValueError: If ``label_smoothing`` is outside [0, 1] or ``ignore_index`` is set with ``sigmoid``; when called,
            if a binary target does not have the shape of the logits, or, on CPU, is outside [0, 1].

    Example:
        >>> import torch
        >>> round(CrossEntropyLoss()(torch.zeros(1, 4, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        1.3863
        >>> round(CrossEntropyLoss(sigmoid=True)(torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)).item(), 4)
        0.6931
    """

    def __init__(
        self,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        sigmoid: bool = False,
    ) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}.")
        weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)
        if sigmoid and ignore_index >= 0:
            raise ValueError(
                "ignore_index is a value of label maps of exclusive classes, so it cannot go with sigmoid."
            )
        self.sigmoid = sigmoid

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss in nats.

        Args:
            input: logits (B, C, ...).
            target: a label map (B, 1, ...) or a target (B, C, ...); with ``sigmoid`` a target (B, C, ...).
        """
        if self.sigmoid or input.shape[1] == 1:
            return self._binary(*channel_targets(input, target))
        if target.shape[1] == 1:
            return super().forward(input, target.squeeze(1).long())
        return super().forward(input, target.to(input.dtype))

    def _binary(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.label_smoothing:
            target = target.lerp(torch.full_like(target, 0.5), self.label_smoothing)
        weight = None if self.weight is None else self.weight.reshape(-1, *[1] * (logits.ndim - 2))
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction=self.reduction)
