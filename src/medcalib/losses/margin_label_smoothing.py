"""Margin-based label smoothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from medcalib.losses.channel_targets import channel_targets
from medcalib.losses.index_labels import class_target

__all__ = ["MarginLabelSmoothingLoss"]


class MarginLabelSmoothingLoss(_Loss):
    r"""Cross entropy and a penalty on logits that fall behind the largest one by more than a margin.

    .. math::
        \mathrm{CE} + \alpha \operatorname{mean}_{i,c} \max(0, \max_j z_{ij} - z_{ic} - m)

    Label smoothing pulls all logits together; with a margin, predictions may be as certain as the margin allows
    (Liu et al. 2022, https://arxiv.org/abs/2111.15430; for segmentation https://arxiv.org/abs/2209.09641).

    With ``sigmoid`` every channel is a binary problem of its own: a label with the logit z and its absence with the
    logit 0, one of which is behind by :math:`|z|`. The loss of several channels is the mean of their losses.

    Args:
        margin: distance m between logits that costs nothing.
        alpha: weight of the penalty; 0 is cross entropy.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.

    Raises:
        ValueError: If ``margin`` or ``alpha`` is negative.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[12.0], [0.0]]])
        >>> round(MarginLabelSmoothingLoss(margin=10.0, alpha=0.1)(logits, torch.zeros(1, 1, 1)).item(), 4)
        0.1
    """

    def __init__(self, margin: float = 10.0, alpha: float = 0.1, sigmoid: bool = False) -> None:
        super().__init__()
        for name, value in (("margin", margin), ("alpha", alpha)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}.")
        self.margin = margin
        self.alpha = alpha
        self.sigmoid = sigmoid

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...), with ``sigmoid`` a target (B, C, ...).

        The target may also be soft, (B, C, ...): the penalty does not look at it, and cross entropy is its mean over
        the raters.

        Raises:
            ValueError: If the shapes do not fit, or, on CPU, if a label is not a class or a target outside [0, 1].
        """
        if self.sigmoid:
            logits, truth = channel_targets(input, target)
            cross_entropy = F.binary_cross_entropy_with_logits(logits, truth)
            # the other one of the two is never behind
            return cross_entropy + self.alpha * F.relu(logits.abs() - self.margin).mean() / 2
        cross_entropy = F.cross_entropy(input, class_target(input, target))
        behind = input.amax(1, keepdim=True) - input
        return cross_entropy + self.alpha * F.relu(behind - self.margin).mean()
