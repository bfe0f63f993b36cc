"""Label smoothing that follows the labels of the neighbourhood."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from medcalib.losses.channel_targets import channel_targets
from medcalib.losses.index_labels import index_labels

__all__ = ["SpatiallyVaryingLabelSmoothingLoss"]

# less than any neighbour has, more than rounding leaves where there is none
_LEAST_WEIGHT = 1e-6


class SpatiallyVaryingLabelSmoothingLoss(_Loss):
    r"""Cross entropy against one-hot labels that are smoothed over the neighbouring voxels.

    .. math::
        -\operatorname{mean}_i \sum_c \tilde y_{ic} \ln p_{ic}, \quad \tilde y_i = w\, y_i +
        (1 - w) \frac{\sum_{j \ne i} G_{ij} y_j}{\sum_{j \ne i} G_{ij}}

    with Gaussian weights G over a cube around each voxel, whose border repeats the volume's. Inside a region the target
    stays one-hot, at a boundary it says how contested the voxel is. The published kernel gives the voxel itself the
    weight of all its neighbours together, w = 1/2, whatever sigma is (Islam and Glocker 2021,
    https://arxiv.org/abs/2104.05788).

    With ``sigmoid`` every channel is a binary problem of its own: its target is smoothed in the same way, and the loss
    is the mean over voxels and channels of the binary cross entropy against it.

    Args:
        sigma: standard deviation of the Gaussian in voxels.
        kernel_size: edge length of the cube in voxels, odd.
        center_weight: w in [0, 1]; 1 is cross entropy. None leaves the Gaussian as it is, which tends to cross entropy
            as sigma tends to 0.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.

    Raises:
        ValueError: If ``sigma`` is not above 0, ``kernel_size`` is not odd and at least 3, or ``center_weight`` is
            outside [0, 1].

    Example:
        >>> import torch
        >>> loss = SpatiallyVaryingLabelSmoothingLoss()
        >>> loss.smooth_target(torch.tensor([[0, 0, 1, 1]]), num_classes=2, dtype=torch.float32)
        tensor([[[1.0000, 0.7500, 0.2500, 0.0000],
                 [0.0000, 0.2500, 0.7500, 1.0000]]])
    """

    def __init__(
        self, sigma: float = 1.0, kernel_size: int = 3, center_weight: float | None = 0.5, sigmoid: bool = False
    ) -> None:
        super().__init__()
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma}.")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 3, got {kernel_size}.")
        if center_weight is not None and not 0 <= center_weight <= 1:
            raise ValueError(f"center_weight must lie in [0, 1], got {center_weight}.")
        self.sigma = sigma
        self.kernel_size = kernel_size
        self.center_weight = center_weight
        self.sigmoid = sigmoid

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of logits (B, C, ...) and a label map (B, 1, ...), with ``sigmoid`` a target (B, C, ...).

        In nats.

        Raises:
            ValueError: If the shapes do not fit, or, on CPU, if a label is not a class or a target outside [0, 1].
        """
        if self.sigmoid:
            logits, truth = channel_targets(input, target)
            return F.binary_cross_entropy_with_logits(logits, self._smoothed(truth))
        labels = index_labels(input, target)
        return F.cross_entropy(input, self.smooth_target(labels, input.shape[1], input.dtype))

    def of_known(self, input: Tensor, target: Tensor, known: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of the known voxels alone, whose labels are smoothed over the known voxels around them.

        A label that has no known neighbour stays as it is.

        Args:
            input: logits (B, C, ...).
            target: label map (B, 1, ...), with ``sigmoid`` a target (B, C, ...).
            known: booleans (B, 1, ...).
        """
        target, where = target.where(known, 0), known[:, 0]
        if self.sigmoid:
            logits, truth = channel_targets(input, target)
        else:
            logits = input
            truth = _one_hot(index_labels(input, target), input.shape[1], input.dtype)
        smoothed = self._smoothed(truth, known.to(truth.dtype))
        logits, smoothed = logits.movedim(1, -1)[where], smoothed.movedim(1, -1)[where]
        if self.sigmoid:
            return F.binary_cross_entropy_with_logits(logits, smoothed)
        return F.cross_entropy(logits, smoothed)

    @torch.no_grad()
    def smooth_target(self, labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
        """Smooth class indices (B, ...) into targets (B, num_classes, ...), in float32 at least, that sum to 1."""
        return self._smoothed(_one_hot(labels, num_classes, dtype))

    @torch.no_grad()
    def _smoothed(self, target: Tensor, known: Tensor | None = None) -> Tensor:
        """Smooth every channel of a target (B, C, ...), over voxels that are 1 in ``known`` (B, 1, ...) alone."""
        radius = self.kernel_size // 2
        weights = [math.exp(-0.5 * (step / self.sigma) ** 2) for step in range(-radius, radius + 1)]
        weights = [weight / sum(weights) for weight in weights]
        smoothed = _filtered(target if known is None else target * known, weights)
        if known is not None:
            sums = _filtered(known, weights)
            if self.center_weight is None or target.ndim < 3:
                return smoothed / sums.clamp(min=_LEAST_WEIGHT)
            center = weights[radius] ** (target.ndim - 2)
            around = sums - center * known
            mean = ((smoothed - center * target) / around.clamp(min=_LEAST_WEIGHT)).clamp(0, 1)
            return torch.where(around > _LEAST_WEIGHT, mean, target).lerp(target, self.center_weight)
        if self.center_weight is not None and target.ndim > 2:
            # A Gaussian is a product over the axes, and so is the weight of its centre.
            center = weights[radius] ** (target.ndim - 2)
            share = (1 - self.center_weight) / (1 - center) if center < 1 else 0.0
            smoothed = smoothed.mul_(share).add_(target, alpha=1 - share)
        return smoothed


def _one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    shape = (labels.shape[0], num_classes, *labels.shape[1:])
    one_hot = torch.zeros(shape, dtype=torch.promote_types(dtype, torch.float32), device=labels.device)
    return one_hot.scatter_(1, labels[:, None], 1.0)


def _filtered(values: Tensor, weights: list[float]) -> Tensor:
    for axis in range(2, values.ndim):
        values = _filter(values, axis, weights)
    return values


def _filter(values: Tensor, axis: int, weights: list[float]) -> Tensor:
    """Weighted sum of shifted copies along one axis, with the border repeated."""
    radius, size = len(weights) // 2, values.shape[axis]
    padded = torch.cat(
        [values.narrow(axis, 0, 1)] * radius + [values] + [values.narrow(axis, size - 1, 1)] * radius, axis
    )
    result = torch.zeros_like(values)
    for step, weight in enumerate(weights):
        result.add_(padded.narrow(axis, step, size), alpha=weight)
    return result
