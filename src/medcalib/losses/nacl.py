"""MONAI's neighbour-aware calibration loss on label maps."""

from __future__ import annotations

import monai.losses
from torch import Tensor

from medcalib.losses.index_labels import index_labels

__all__ = ["NACLLoss"]


class NACLLoss(monai.losses.NACLLoss):
    r"""``monai.losses.NACLLoss`` on label maps (B, 1, ...), as every other loss here takes them.

    .. math::
        \mathrm{CE} + \alpha \operatorname{mean}_{i,c} |\tilde y_{ic} - z_{ic}|

    pulls the logits z towards the share of each class in the neighbourhood (Murugesan et al. 2023,
    https://arxiv.org/abs/2303.06268).

    Args:
        classes: number of classes.
        dim: number of spatial axes, 2 or 3.
        kernel_size: edge length of the neighbourhood in voxels.
        kernel_ops: ``"mean"`` or ``"gaussian"``.
        distance_type: ``"l1"`` or ``"l2"``, which squares the difference.
        alpha: weight of the penalty; 0 is cross entropy.
        sigma: standard deviation of the Gaussian in voxels.

    Raises:
        ValueError: If ``dim``, ``kernel_ops`` or ``distance_type`` is not as above.

    Example:
        >>> import torch
        >>> loss = NACLLoss(classes=2, dim=2, alpha=0.0)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.6931
    """

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...).

        Raises:
            ValueError: If the shapes do not fit, or, on CPU, if a label is not a class.
        """
        return super().forward(inputs, index_labels(inputs, targets))
