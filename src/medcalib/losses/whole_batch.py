"""The loss of a batch that several processes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import monai.losses
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss
from torch.utils._pytree import tree_leaves, tree_map

from medcalib.losses.cross_entropy import CrossEntropyLoss
from medcalib.losses.dice import DiceLoss
from medcalib.losses.l1ace import L1ACELoss
from medcalib.losses.multi_head_loss import MultiHeadLoss
from medcalib.losses.weighted_sum import WeightedSumLoss

__all__ = ["WholeBatchLoss", "is_mean_over_cases"]


class WholeBatchLoss(_Loss):
    r"""The loss of a batch of which each process has a part, with the gradient of the whole batch.

    Its value is that of the whole batch in every process. Its gradient is such that the mean over processes, which
    `torch.nn.parallel.DistributedDataParallel` takes, is the gradient of the whole batch. A loss that is the mean over
    cases, :math:`L = \frac{1}{n} \sum_i l_i`, is weighted with the number of cases, :math:`L = \sum_r \frac{n_r}{n}
    L_r`. Any other, such as Dice over a batch or a calibration error of the pooled bins of several images, gets the
    logits and targets of all processes.

    Args:
        loss: of logits (B, C, ...), or lists of them, and targets (B, ...); a single number.

    Attributes:
        sizes: how many cases each process has that count; set it before every call. A process that has none passes a
            case that does not count.

    Example:
        >>> WholeBatchLoss(DiceLoss(softmax=True)).is_mean, WholeBatchLoss(DiceLoss(batch=True)).is_mean
        (True, False)
    """

    def __init__(self, loss: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.is_mean = is_mean_over_cases(loss)
        self.sizes: list[int] = []

    def forward(self, input: Any, target: Any) -> Tensor:  # noqa: A002
        """Return the loss of the whole batch for the part of this process."""
        rank, processes = dist.get_rank(), dist.get_world_size()
        if self.is_mean:
            part = self.loss(input, target) * (self.sizes[rank] / sum(self.sizes))
            whole = part.detach().clone()
            dist.all_reduce(whole)
            return part * processes + (whole - part.detach() * processes)
        logits = tree_map(lambda tensor: _gathered(tensor, self.sizes), input)
        targets = tree_map(lambda tensor: _gathered(tensor, self.sizes), target)
        whole = self.loss(logits, targets)
        # what does not depend on this process' cases still has a gradient, of zero
        whole = whole + 0 * sum(tensor.sum() for tensor in tree_leaves(input) if isinstance(tensor, Tensor))
        return whole * processes - whole.detach() * (processes - 1)


def is_mean_over_cases(loss: Any) -> bool:
    """Whether the loss of a batch is known to be the mean of the losses of its cases, which have one size.

    Example:
        >>> is_mean_over_cases(CrossEntropyLoss()), is_mean_over_cases(CrossEntropyLoss(weight=[1.0, 2.0]))
        (True, False)
    """
    kind = type(loss)
    if kind is monai.losses.DeepSupervisionLoss:
        return is_mean_over_cases(loss.loss)
    if kind is MultiHeadLoss:
        # meta chooses the head that is best on the batch
        return loss.mode != "meta" and is_mean_over_cases(loss.loss)
    if kind is WeightedSumLoss or (isinstance(loss, WeightedSumLoss) and kind.forward is WeightedSumLoss.forward):
        return all(map(is_mean_over_cases, loss.losses))
    if getattr(loss, "reduction", None) != "mean":
        return False
    if kind in (DiceLoss, monai.losses.DiceLoss):
        return not loss.batch and getattr(loss, "ignore_index", None) is None
    if kind is CrossEntropyLoss:
        return loss.weight is None and loss.ignore_index < 0
    if isinstance(loss, L1ACELoss):
        return not loss.batch
    return kind is monai.losses.FocalLoss


def _gathered(tensor: Any, sizes: list[int]) -> Any:
    """A tensor of the whole batch, of which the part of this process has a gradient."""
    if not isinstance(tensor, Tensor):
        return tensor
    tensor = tensor.as_subclass(Tensor)
    rank = dist.get_rank()
    own = tensor[: sizes[rank]]
    # parts that are sent must have one size
    sent = F.pad(own.detach().movedim(0, -1), (0, max(sizes) - len(own))).movedim(-1, 0).contiguous()
    parts = [torch.empty_like(sent) for _ in sizes]
    dist.all_gather(parts, sent)
    return torch.cat([own if part == rank else parts[part][:size] for part, size in enumerate(sizes)])
