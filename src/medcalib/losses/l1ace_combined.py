"""mL1-ACE beside cross entropy and Dice: three weighted sums, each over hard and soft bins.

Arguments are given by name: published versions differ in their order.
"""

from __future__ import annotations

from typing import Any

from medcalib.losses.cross_entropy import CrossEntropyLoss
from medcalib.losses.dice import DiceLoss
from medcalib.losses.l1ace import HardL1ACELoss, L1ACELoss, SoftL1ACELoss
from medcalib.losses.weighted_sum import WeightedSumLoss

__all__ = [
    "HardL1ACEandCELoss",
    "HardL1ACEandDiceCELoss",
    "HardL1ACEandDiceLoss",
    "SoftL1ACEandCELoss",
    "SoftL1ACEandDiceCELoss",
    "SoftL1ACEandDiceLoss",
]

_Params = dict[str, Any] | None


def _cross_entropy(ace_params: _Params, ce_params: _Params) -> CrossEntropyLoss:
    """Of exclusive classes, or of independent labels where the calibration error is theirs."""
    return CrossEntropyLoss(**{"sigmoid": (ace_params or {}).get("sigmoid", False), **(ce_params or {})})


class _L1ACEandCELoss(WeightedSumLoss):
    ace_class: type[L1ACELoss]

    def __init__(
        self,
        *,
        to_onehot_y: bool = False,
        ace_weight: float = 0.5,
        ce_weight: float = 0.5,
        ace_params: _Params = None,
        ce_params: _Params = None,
    ) -> None:
        ace = self.ace_class(**{"to_onehot_y": to_onehot_y, **(ace_params or {})})
        super().__init__([ace, _cross_entropy(ace_params, ce_params)], [ace_weight, ce_weight])


class _L1ACEandDiceLoss(WeightedSumLoss):
    ace_class: type[L1ACELoss]

    def __init__(
        self,
        *,
        to_onehot_y: bool = False,
        ace_weight: float = 0.5,
        dice_weight: float = 0.5,
        ace_params: _Params = None,
        dice_params: _Params = None,
    ) -> None:
        ace = self.ace_class(**{"to_onehot_y": to_onehot_y, **(ace_params or {})})
        dice = DiceLoss(**{"to_onehot_y": to_onehot_y, **(dice_params or {})})
        super().__init__([ace, dice], [ace_weight, dice_weight])


class _L1ACEandDiceCELoss(WeightedSumLoss):
    ace_class: type[L1ACELoss]

    def __init__(
        self,
        *,
        to_onehot_y: bool = False,
        ace_weight: float = 0.33,
        dice_weight: float = 0.33,
        ce_weight: float = 0.33,
        ace_params: _Params = None,
        dice_params: _Params = None,
        ce_params: _Params = None,
    ) -> None:
        ace = self.ace_class(**{"to_onehot_y": to_onehot_y, **(ace_params or {})})
        dice = DiceLoss(**{"to_onehot_y": to_onehot_y, **(dice_params or {})})
        super().__init__([ace, dice, _cross_entropy(ace_params, ce_params)], [ace_weight, dice_weight, ce_weight])


class HardL1ACEandCELoss(_L1ACEandCELoss):
    """Weighted sum of :class:`HardL1ACELoss` and cross entropy.

    Args:
        to_onehot_y: the target is a label map (B, 1, ...).
        ace_weight: factor of the calibration error.
        ce_weight: factor of the cross entropy.
        ace_params: further arguments of the calibration error.
        ce_params: arguments of :class:`medcalib.losses.CrossEntropyLoss`; its ``sigmoid`` is that of ``ace_params``
            unless it is given here.

    Example:
        >>> import torch
        >>> loss = HardL1ACEandCELoss(to_onehot_y=True, ace_params={"softmax": True})
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.4716
    """

    ace_class = HardL1ACELoss


class SoftL1ACEandCELoss(_L1ACEandCELoss):
    """Weighted sum of :class:`SoftL1ACELoss` and cross entropy; arguments as :class:`HardL1ACEandCELoss`.

    Example:
        >>> import torch
        >>> loss = SoftL1ACEandCELoss(to_onehot_y=True, ace_params={"softmax": True})
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.4716
    """

    ace_class = SoftL1ACELoss


class HardL1ACEandDiceLoss(_L1ACEandDiceLoss):
    """Weighted sum of :class:`HardL1ACELoss` and MONAI's ``DiceLoss``.

    Args:
        to_onehot_y: the target is a label map (B, 1, ...).
        ace_weight: factor of the calibration error.
        dice_weight: factor of the Dice loss.
        ace_params: further arguments of the calibration error.
        dice_params: further arguments of ``monai.losses.DiceLoss``.

    Example:
        >>> import torch
        >>> activation = {"softmax": True}
        >>> loss = HardL1ACEandDiceLoss(to_onehot_y=True, ace_params=activation, dice_params=activation)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.4583
    """

    ace_class = HardL1ACELoss


class SoftL1ACEandDiceLoss(_L1ACEandDiceLoss):
    """Weighted sum of :class:`SoftL1ACELoss` and MONAI's ``DiceLoss``; arguments as :class:`HardL1ACEandDiceLoss`.

    Example:
        >>> import torch
        >>> activation = {"softmax": True}
        >>> loss = SoftL1ACEandDiceLoss(to_onehot_y=True, ace_params=activation, dice_params=activation)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.4583
    """

    ace_class = SoftL1ACELoss


class HardL1ACEandDiceCELoss(_L1ACEandDiceCELoss):
    """Weighted sum of :class:`HardL1ACELoss`, MONAI's ``DiceLoss`` and cross entropy.

    Args:
        to_onehot_y: the target is a label map (B, 1, ...).
        ace_weight: factor of the calibration error.
        dice_weight: factor of the Dice loss.
        ce_weight: factor of the cross entropy.
        ace_params: further arguments of the calibration error.
        dice_params: further arguments of ``monai.losses.DiceLoss``.
        ce_params: arguments of :class:`medcalib.losses.CrossEntropyLoss`; its ``sigmoid`` is that of ``ace_params``
            unless it is given here.

    Example:
        >>> import torch
        >>> activation = {"softmax": True}
        >>> loss = HardL1ACEandDiceCELoss(to_onehot_y=True, ace_params=activation, dice_params=activation)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.5312
    """

    ace_class = HardL1ACELoss


class SoftL1ACEandDiceCELoss(_L1ACEandDiceCELoss):
    """Weighted sum of :class:`SoftL1ACELoss`, Dice and cross entropy; arguments as :class:`HardL1ACEandDiceCELoss`.

    Example:
        >>> import torch
        >>> activation = {"softmax": True}
        >>> loss = SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params=activation, dice_params=activation)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.5312
    """

    ace_class = SoftL1ACELoss
