"""Losses on the logits of whole images, which have no spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import monai.losses
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from medcalib.errors import UserError
from medcalib.losses.spatial_label_smoothing import SpatiallyVaryingLabelSmoothingLoss

__all__ = ["WholeImageLoss"]

# they compare regions, or smooth labels over the neighbours of a voxel
SPATIAL = (
    monai.losses.DiceLoss,
    monai.losses.DiceCELoss,
    SpatiallyVaryingLabelSmoothingLoss,
)


class WholeImageLoss(_Loss):
    """Let a loss made for maps see a batch of classified images as the voxels of one image.

    Means over voxels become means over images. Calibration errors, for which the single prediction of an image has no
    bins to fill, are those of the whole batch, so they mean more the larger the batch is.

    Args:
        loss: called with logits (1, C, B), or a list of them, and labels (1, 1, B).

    Raises:
        UserError: the loss compares regions or smooths labels over neighbours, which an image with one label lacks.

    Example:
        >>> import torch
        >>> from medcalib.losses import HardL1ACELoss
        >>> loss = WholeImageLoss(HardL1ACELoss(softmax=True, to_onehot_y=True))
        >>> round(loss(torch.zeros(4, 2), torch.tensor([[0], [0], [0], [1]])).item(), 4)
        0.25
    """

    def __init__(self, loss: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        parts = loss.modules() if isinstance(loss, nn.Module) else ()
        if spatial := next((part for part in parts if isinstance(part, SPATIAL)), None):
            raise UserError(
                f"The loss holds a {type(spatial).__name__}, which needs the regions of a label map, but here whole "
                f"images are classified; choose a loss without it, such as baseline_ce, focal, label_smoothing, nacl, "
                f"mbls, hardl1ace_ce or softl1ace_ce."
            )

    def forward(self, input: Any, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C), or a list of them, one for each head, and class indices (B, 1)."""
        return self.loss(_as_one_image(input), _as_one_image(target))


def _as_one_image(values: Any) -> Any:
    if isinstance(values, list | tuple):
        return [_as_one_image(value) for value in values]
    return values.movedim(0, -1)[None]
