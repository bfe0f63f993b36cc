"""MONAI's neighbour-aware calibration loss on label maps."""

from __future__ import annotations

import monai.losses
import torch
from torch import Tensor
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.losses.index_labels import index_labels

__all__ = ["NACLLoss"]


class NACLLoss(monai.losses.NACLLoss):
    r"""``monai.losses.NACLLoss`` on label maps (B, 1, ...), as every other loss here takes them.

    .. math::
        \mathrm{CE} + \alpha \operatorname{mean}_{i,c} |\tilde y_{ic} - z_{ic}|

    pulls the logits z towards the share of each class in the neighbourhood (Murugesan et al. 2023,
    https://arxiv.org/abs/2303.06268). What has a single axis, such as the images of a batch in `WholeImageLoss`, has no
    neighbours: its neighbourhood is itself, as that of a voxel deep inside a region.

    It is made for exclusive classes: logits are pulled to values from 0 to 1, which a softmax compares with each other,
    but of which a sigmoid makes probabilities of 0.5 and more, wherever the label is.

    Args:
        classes: number of classes.
        dim: number of spatial axes, 2 or 3.
        kernel_size: edge length of the neighbourhood in voxels.
        kernel_ops: ``"mean"`` or ``"gaussian"``.
        distance_type: ``"l1"`` or ``"l2"``, which squares the difference.
        alpha: weight of the penalty; 0 is cross entropy.
        sigma: standard deviation of the Gaussian in voxels.
        sigmoid: whether every channel is a binary problem of its own, which is refused.

    Raises:
        UserError: If ``sigmoid`` is set.
        ValueError: If ``dim``, ``kernel_ops`` or ``distance_type`` is not as above.

    Example:
        >>> import torch
        >>> loss = NACLLoss(classes=2, dim=2, alpha=0.0)
        >>> round(loss(torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)).item(), 4)
        0.6931
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        kernel_size: int = 3,
        kernel_ops: str = "mean",
        distance_type: str = "l1",
        alpha: float = 0.1,
        sigma: float = 1.0,
        sigmoid: bool = False,
    ) -> None:
        if sigmoid:
            raise UserError(
                "NACL is defined for exclusive classes only, but the activation is sigmoid; choose another loss, such "
                "as svls, which looks at the neighbours of a voxel, too."
            )
        super().__init__(classes, dim, kernel_size, kernel_ops, distance_type, alpha, sigma)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...).

        Raises:
            ValueError: If the shapes do not fit, or, on CPU, if a label is not a class.
        """
        return super().forward(inputs, index_labels(inputs, targets))

    def of_known(self, inputs: Tensor, targets: Tensor, known: Tensor) -> Tensor:
        """Return the loss of the known voxels alone, whose neighbourhood are the known voxels around them.

        Args:
            inputs: logits (B, C, ...).
            targets: label map (B, 1, ...).
            known: booleans (B, 1, ...).
        """
        labels = index_labels(inputs, targets.where(known, 0))
        seen = known.float()
        one_hot = (F.one_hot(labels, self.nc).movedim(-1, 1) * seen).contiguous()
        if labels.ndim > 2:
            # beyond the border nothing is known, which takes nothing away from the shares there as they are
            share_seen = self.svls_layer(seen).clamp(min=torch.finfo(seen.dtype).tiny)
            one_hot = self.svls_layer(one_hot) * (self.svls_layer(torch.ones_like(seen)) / share_seen)
        where = known[:, 0]
        logits, shares = inputs.movedim(1, -1)[where], one_hot.movedim(1, -1)[where]
        away = (shares - logits).abs() if self.distance_type == "l1" else (shares - logits).square()
        return self.cross_entropy(logits, labels[where]) + self.alpha * away.mean()

    def get_constr_target(self, mask: Tensor) -> Tensor:
        """Return the share of each class (B, C, ...) in the neighbourhood, for class indices (B, ...)."""
        if mask.ndim == 2:
            return F.one_hot(mask, self.nc).movedim(-1, 1).float()
        return super().get_constr_target(mask)
