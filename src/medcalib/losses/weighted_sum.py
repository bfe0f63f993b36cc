"""The one weighted sum of losses, which shares the softmax and one pass over the volume where its terms allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import monai.losses
import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from medcalib.functional.sums import SoftmaxSums
from medcalib.losses.cross_entropy import CrossEntropyLoss
from medcalib.losses.dice import DiceLoss
from medcalib.losses.l1ace import L1ACELoss

__all__ = ["WeightedSumLoss"]


def _dice_from_sums(loss: monai.losses.DiceLoss, sums: SoftmaxSums) -> Tensor:
    present, overlap = sums.bins.present, sums.overlap
    predicted = sums.squared if loss.squared_pred else sums.total
    if not loss.include_background:
        present, overlap, predicted = present[:, 1:], overlap[:, 1:], predicted[:, 1:]
    if loss.batch:
        present, overlap, predicted = present.sum(0), overlap.sum(0), predicted.sum(0)
    union = present + predicted
    if loss.jaccard:
        union = 2 * (union - overlap)
    values = 1 - (2 * overlap + loss.smooth_nr) / (union + loss.smooth_dr)
    return values.mean() if loss.reduction == "mean" else values.sum()


def _cross_entropy_from_sums(loss: CrossEntropyLoss, sums: SoftmaxSums) -> Tensor:
    total = -sums.log_true.sum()
    return total / sums.bins.present.sum() if loss.reduction == "mean" else total


def _from_sums(loss: nn.Module) -> Callable[[Any, SoftmaxSums], Tensor] | None:
    """Return how a plain Dice or cross-entropy loss follows from shared sums; ``None`` where an option forbids it."""
    if type(loss) in (DiceLoss, monai.losses.DiceLoss):
        plain = loss.softmax and loss.to_onehot_y and loss.reduction != "none" and not loss.soft_label
        return _dice_from_sums if plain and loss.class_weight is None and loss.ignore_index is None else None
    if type(loss) is CrossEntropyLoss:
        plain = loss.weight is None and loss.label_smoothing == 0 and loss.reduction != "none" and loss.ignore_index < 0
        plain = plain and not loss.sigmoid
        return _cross_entropy_from_sums if plain else None
    return None


class WeightedSumLoss(_Loss):
    r"""Weighted sum of losses on the same logits, :math:`\sum_t w_t L_t`.

    Beside a softmax L1-ACE loss on a label map, plain MONAI Dice losses and cross entropies are taken from the
    same pass over the volume; every other term, input or device goes through the terms' own modules, with the same
    result.

    Args:
        losses: the terms, each called with logits and target.
        weights: one factor for each, not negative; all 1 if left out. A term of weight 0 is not computed, so that the
            sum is that of the others to the last bit.

    Attributes:
        weights: as above; a training may change them, see :class:`medcalib.handlers.TermScheduleHandler`.

    Raises:
        ValueError: If the numbers of losses and weights differ, or a weight is negative.

    Example:
        >>> import torch
        >>> from medcalib.losses import CrossEntropyLoss, HardL1ACELoss, WeightedSumLoss
        >>> loss = WeightedSumLoss([HardL1ACELoss(softmax=True, to_onehot_y=True), CrossEntropyLoss()], [0.5, 0.5])
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.4716
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = [1.0] * len(losses) if weights is None else [float(weight) for weight in weights]
        if len(weights) != len(losses):
            raise ValueError(f"each loss needs one weight, got {len(losses)} losses and {len(weights)} weights.")
        if any(weight < 0 for weight in weights):
            raise ValueError(f"weights must not be negative, got {weights}.")
        self.losses = nn.ModuleList(losses)
        self.weights = weights

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the weighted sum for logits (B, C, ...) and a target as the terms take it.

        Raises:
            ValueError: If shapes do not fit, or a value or label is out of range.
        """
        return self.weighted(lambda losses: self._values(losses, input, target))

    def weighted(self, values: Callable[[list[nn.Module]], Sequence[Tensor]]) -> Tensor:
        """Return the weighted sum of what some of the losses are, those whose weight is not 0, unless all are."""
        counted = [place for place, weight in enumerate(self.weights) if weight] or range(len(self.weights))
        terms = values([self.losses[place] for place in counted])
        return reduce(torch.add, (self.weights[place] * term for place, term in zip(counted, terms, strict=True)))

    def terms(self, input: Tensor, target: Tensor) -> list[Tensor]:  # noqa: A002
        """Return the value of each term, unweighted and differentiable."""
        return self._values(list(self.losses), input, target)

    @staticmethod
    def _values(losses: Sequence[nn.Module], logits: Tensor, target: Tensor) -> list[Tensor]:
        sums, error = None, None
        for loss in losses:
            if isinstance(loss, L1ACELoss) and (sums := loss.shared_sums(logits, target)) is not None:
                error = loss
                break
        if sums is None:
            return [loss(logits, target) for loss in losses]
        values = []
        for loss in losses:
            shortcut = _from_sums(loss)
            if loss is error:
                values.append(loss.reduce(sums.bins, logits))
            elif shortcut is not None:
                values.append(shortcut(loss, sums).to(torch.float32))
            else:
                values.append(loss(logits, target))
        return values
