"""Leave voxels of unknown truth out of any loss: the one place where this happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import monai.losses
import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from medcalib.errors import UserError
from medcalib.functional.unknown_truth import known_voxels, unsigned_labels
from medcalib.losses.cross_entropy import CrossEntropyLoss
from medcalib.losses.dice import DiceLoss
from medcalib.losses.l1ace import L1ACELoss
from medcalib.losses.margin_label_smoothing import MarginLabelSmoothingLoss
from medcalib.losses.multi_head_loss import MultiHeadLoss
from medcalib.losses.weighted_sum import WeightedSumLoss

__all__ = ["KnownVoxelsLoss"]

# the mean over the voxels of all cases of a batch: its known voxels are as good as one case
_OF_VOXELS = (CrossEntropyLoss, MarginLabelSmoothingLoss, monai.losses.FocalLoss)
# the mean over cases, whatever their number of voxels, unless they are told to pool a batch
_OF_CASES = (DiceLoss, monai.losses.DiceLoss, monai.losses.GeneralizedDiceLoss, monai.losses.TverskyLoss, L1ACELoss)
# they hand parts of what they get to another loss
_CONTAINERS = (monai.losses.DeepSupervisionLoss, MultiHeadLoss)


class KnownVoxelsLoss(_Loss):
    """A loss in which voxels of unknown truth do not count, as if they had been cut away.

    They neither enter the loss nor get a gradient. A case without a known voxel does not count in a mean over cases,
    and a batch without one costs 0. Where the truth of a batch is known everywhere, the loss is called as it is.

    What is a mean over voxels is one over the known voxels of the batch, as in nnU-Net
    (https://doi.org/10.1038/s41592-020-01008-z) and as ``ignore_index`` of `torch.nn.CrossEntropyLoss` has it; Dice and
    calibration errors are those of the known voxels of each case; losses that look at the neighbours of a voxel look
    at those that are known. A loss of another kind says how it leaves voxels out by a method ``of_known(input, target,
    known)`` with ``known`` (B, 1, ...), bool, somewhere true.

    Args:
        loss: any of this package's for maps; MONAI's Dice, generalised Dice, Tversky or focal loss; or one with
            ``of_known``. Where it is deep supervision or one of several heads, the loss inside of it is replaced.

    Raises:
        UserError: the loss does not know how to leave voxels out.

    Example:
        >>> logits = torch.tensor([[[0.0, 9.0], [0.0, -9.0]]])
        >>> round(KnownVoxelsLoss(CrossEntropyLoss())(logits, torch.tensor([[[0, -1]]])).item(), 4)
        0.6931
    """

    def __init__(self, loss: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = _leaving_out(loss)

    def forward(self, input: Any, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C, ...), or lists of them, and a target (B, 1, ...) or (B, C, ...)."""
        # of whole numbers with a sign torch makes no smaller target
        return self.loss(input, unsigned_labels(target) if known_voxels(target) is None else target.float())


class _OfKnownVoxels(nn.Module):
    """An innermost loss."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        _check(loss)
        self.loss = loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        known = known_voxels(target)
        if known is None:
            return self.loss(input, target)
        if not known.any():
            # depends on the logits, whatever they are, with a gradient of 0
            return input.flatten()[:0].sum()
        return _of_known(self.loss, input.as_subclass(Tensor), target.as_subclass(Tensor), known)


def _leaving_out(loss: Any) -> nn.Module:
    if isinstance(loss, _CONTAINERS):
        loss.loss = _leaving_out(loss.loss)
        return loss
    return _OfKnownVoxels(loss)


def _is_sum(loss: Any) -> bool:
    return isinstance(loss, WeightedSumLoss) and type(loss).forward is WeightedSumLoss.forward


def _check(loss: Any) -> None:
    if _is_sum(loss):
        for part in loss.losses:
            _check(part)
    elif not hasattr(loss, "of_known") and (
        not isinstance(loss, _OF_VOXELS + _OF_CASES) or getattr(loss, "reduction", "mean") == "none"
    ):
        raise UserError(
            f"The loss holds a {type(loss).__name__}, which does not know how to leave out the voxels of "
            f"data::ignore_label; choose another loss, such as baseline_dice_ce, or give it a method of_known, which "
            f"medcalib.losses.KnownVoxelsLoss explains."
        )


def _of_known(loss: Any, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    if _is_sum(loss):
        return loss.weighted(lambda parts: [_of_known(part, logits, target, known) for part in parts])
    if hasattr(loss, "of_known"):
        return loss.of_known(logits, target, known)
    cases = [
        (one[:, kept[0]], true[:, kept[0]]) for one, true, kept in zip(logits, target, known, strict=True) if kept.any()
    ]
    if isinstance(loss, _OF_VOXELS) or getattr(loss, "batch", False):
        cases = [tuple(torch.cat(parts, 1) for parts in zip(*cases, strict=True))]
    values = torch.stack([loss(one[None], true[None]) for one, true in cases])
    return values.mean() if getattr(loss, "reduction", "mean") == "mean" else values.sum()
