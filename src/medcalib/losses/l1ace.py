"""Marginal L1 average calibration error (mL1-ACE) as a training loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.utils import LossReduction
from torch import Tensor
from torch.nn.modules.loss import _Loss

from medcalib.functional.backends import UnusableError
from medcalib.functional.sums import BinSums, SoftmaxSums, bin_sums, can_fuse, softmax_sums

__all__ = ["HardL1ACELoss", "L1ACELoss", "SoftL1ACELoss"]


class L1ACELoss(_Loss):
    """What hard and soft mL1-ACE share: everything but how a probability is spread over bins.

    Attributes:
        soft: soft instead of hard bins.
        check_next: on CUDA, check the values of the next call, which waits for the device. True at first, then false:
            after that, invalid values turn the loss into NaN. On CPU every call is checked, which costs nothing.
    """

    soft: bool
    class_weight: Tensor | None

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        reduction: LossReduction | str = LossReduction.MEAN,
        weight: Sequence[float] | float | Tensor | None = None,
        *,
        right: bool = False,
        ignore_empty_classes: bool = True,
        empty_weight: float = 0.01,
        batch: bool = False,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if sum((sigmoid, softmax, other_act is not None)) > 1:
            raise ValueError("at most one of sigmoid, softmax and other_act can be set.")
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
        self.num_bins = num_bins
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.other_act = other_act
        self.right = right
        self.ignore_empty_classes = ignore_empty_classes
        self.empty_weight = empty_weight
        self.batch = batch
        self.check_next = True
        weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float64)
        if weight is not None and bool((weight < 0).any()):
            raise ValueError("weight must hold no negative value.")
        self.register_buffer("class_weight", weight)

    def shared_sums(self, logits: Tensor, y: Tensor) -> SoftmaxSums | None:
        """Return the sums of one pass over the volume, which other losses may share; None where there is none."""
        if not (self.softmax and self.to_onehot_y and can_fuse(logits, y)):
            return None
        try:
            sums = softmax_sums(logits, y, self.num_bins, soft=self.soft, right=self.right, check=self.check_next)
        except UnusableError:
            return None
        self.check_next = False
        return sums

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss.

        Args:
            input: logits, or probabilities where no activation is set, (B, C, ...).
            target: with ``to_onehot_y`` a label map (B, 1, ...), else a target (B, C, ...).

        Returns:
            A scalar in [0, 1] for the mean (times the weights); with ``reduction="none"`` (B, C, 1, ...), with
            ``batch`` (1, C, 1, ...).

        Raises:
            ValueError: If shapes do not fit, a probability is NaN or outside [0, 1], or a label outside the classes.
        """
        sums = self.shared_sums(input, target)
        if sums is not None:
            return self.reduce(sums.bins, input)
        return self.reduce(self._bin_sums(input, target), input, sliced=True)

    def _bin_sums(self, logits: Tensor, target: Tensor) -> BinSums:
        classes = logits.shape[1]
        if classes > 1 and not self.to_onehot_y and target.shape != logits.shape:
            raise ValueError(
                f"target must have the shape of the input {tuple(logits.shape)}, got {tuple(target.shape)}; set "
                "to_onehot_y=True for a label map of one channel."
            )
        # The softmax of a single channel is 1 everywhere; as in MONAI's losses it is left out.
        probs = logits.softmax(1) if self.softmax and classes > 1 else logits
        if self.sigmoid:
            probs = probs.sigmoid()
        elif self.other_act is not None:
            probs = self.other_act(probs)
        first = 0
        if not self.include_background and classes > 1:
            probs = probs[:, 1:]
            if target.shape[1] == classes:
                target = target[:, 1:]
            else:
                first = 1
        check, self.check_next = self.check_next, False
        return bin_sums(probs, target, self.num_bins, soft=self.soft, right=self.right, first_class=first, check=check)

    def reduce(self, bins: BinSums, logits: Tensor, *, sliced: bool = False) -> Tensor:
        """Return the loss from bin sums; ``sliced`` where they already lack the background."""
        counts, gaps, present = bins
        if not sliced and not self.include_background:
            counts, gaps, present = counts[:, 1:], gaps[:, 1:], present[:, 1:]
        if self.batch:
            counts, gaps, present = (part.sum(0, keepdim=True) for part in (counts, gaps, present))
        filled = counts >= self.empty_weight if self.soft else counts > 0
        error = (gaps / counts.where(filled, 1)).abs().where(filled, 0)
        values = error.sum(-1) / filled.sum(-1).clamp(min=1)
        if self.ignore_empty_classes:
            values = values.where(present > 0, 0)
        # A NaN from unchecked values must not vanish with the bins that it emptied.
        values = values + 0 * gaps.detach().sum(-1)
        if self.class_weight is not None:
            if self.class_weight.ndim and len(self.class_weight) != values.shape[1]:
                raise ValueError(
                    f"weight must hold one value for each of the {values.shape[1]} classes scored, got "
                    f"{len(self.class_weight)}."
                )
            values = values * self.class_weight.to(values.device)
        values = values.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        if self.reduction == LossReduction.MEAN.value:
            return values.mean()
        if self.reduction == LossReduction.SUM.value:
            return values.sum()
        return values.reshape(*values.shape, *[1] * (logits.ndim - 2))


class HardL1ACELoss(L1ACELoss):
    r"""Marginal L1 average calibration error over hard bins.

    .. math::
        \frac{1}{BC} \sum_{b,c} \frac{1}{|K_{bc}|} \sum_{k \in K_{bc}} \left| \bar p_{bck} - \bar y_{bck} \right|

    with the mean probability and the observed frequency of the filled bins :math:`K_{bc}` of each image and class
    (https://arxiv.org/abs/2506.03942). The gradient reaches the probabilities, not the choice of the bin.

    Args:
        num_bins: number of equal bins on [0, 1].
        include_background: score channel 0 as well.
        to_onehot_y: the target is a label map (B, 1, ...); it is never expanded.
        sigmoid: apply a sigmoid first.
        softmax: apply a softmax over the classes first.
        other_act: another activation to apply first.
        reduction: ``"mean"`` or ``"sum"`` over images and classes, or ``"none"``.
        weight: factor for each scored class, or one for all.
        right: a probability on a boundary belongs to the upper bin instead of the lower one.
        ignore_empty_classes: a class that an image's target lacks counts as 0 (it still counts in the mean).
        batch: fill the bins with the voxels of all images of a batch instead of each image's own, so that B is 1 above.
            The mean over few voxels is off by chance, which a loss per image counts as an error of calibration;
            pooled, there is less of that, but over- and under-confident images make up for each other.

    Raises:
        ValueError: If more than one activation is set, ``num_bins < 1``, or a weight is negative.

    Example:
        >>> import torch
        >>> loss = HardL1ACELoss(softmax=True, to_onehot_y=True)
        >>> logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
        >>> label = (torch.arange(64) % 4 == 0).reshape(1, 1, 8, 8)
        >>> round(loss(logits, label).item(), 4)
        0.25
    """

    soft = False

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[[Tensor], Tensor] | None = None,
        reduction: LossReduction | str = LossReduction.MEAN,
        weight: Sequence[float] | float | Tensor | None = None,
        right: bool = False,
        ignore_empty_classes: bool = True,
        *,
        batch: bool = False,
    ) -> None:
        super().__init__(
            num_bins,
            include_background,
            to_onehot_y,
            sigmoid,
            softmax,
            other_act,
            reduction,
            weight,
            right=right,
            ignore_empty_classes=ignore_empty_classes,
            batch=batch,
        )


class SoftL1ACELoss(L1ACELoss):
    r"""Marginal L1 average calibration error over soft bins.

    As :class:`HardL1ACELoss`, but each probability is shared linearly between the two nearest bin centres, so the loss
    is continuous and its gradient also moves probability between bins (https://arxiv.org/abs/2506.03942). What follows
    ``weight`` is given by name.

    Args:
        num_bins: number of equal bins on [0, 1].
        include_background: score channel 0 as well.
        to_onehot_y: the target is a label map (B, 1, ...); it is never expanded.
        sigmoid: apply a sigmoid first.
        softmax: apply a softmax over the classes first.
        other_act: another activation to apply first.
        reduction: ``"mean"`` or ``"sum"`` over images and classes, or ``"none"``.
        weight: factor for each scored class, or one for all.
        right: without effect, since soft bins have no boundaries; for the same arguments as the hard loss.
        ignore_empty_classes: a class that an image's target lacks counts as 0 (it still counts in the mean).
        empty_weight: bins with less weight than this are left out.
        batch: fill the bins with the voxels of all images of a batch, instead of each image's own, as of the hard loss.

    Raises:
        ValueError: If more than one activation is set, ``num_bins < 1``, or a weight is negative.

    Example:
        >>> import torch
        >>> loss = SoftL1ACELoss(softmax=True, to_onehot_y=True)
        >>> logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
        >>> label = (torch.arange(64) % 4 == 0).reshape(1, 1, 8, 8)
        >>> round(loss(logits, label).item(), 4)
        0.25
    """

    soft = True
