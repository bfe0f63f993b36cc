"""Negative log-likelihood of logits, and of scaled and shifted logits with its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from medcalib.calibrators.calibration_cases import Voxels

__all__ = ["AffineLikelihood", "LikelihoodTerms", "negative_log_likelihood"]

# Voxels of which the float64 intermediates are held at a time.
CHUNK = 1 << 16
# Voxels whose likelihood is computed at a time where there are no derivatives.
LARGE_CHUNK = 1 << 17


def negative_log_likelihood(voxels: Voxels, sigmoid: bool) -> Tensor:
    r"""Sum over voxels of :math:`-\sum_c y_c \ln p_c`, or with the sigmoid the mean over classes of the binary one.

    Unlike :func:`medcalib.functional.categorical_negative_log_likelihood` it starts from logits and clamps nothing.

    Args:
        voxels: logits (C, N) and their truth.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.

    Returns:
        Float64 scalar in nats, differentiable in the logits.
    """
    logits = voxels.logits
    if logits.shape[1] > LARGE_CHUNK:
        parts = zip(logits.split(LARGE_CHUNK, 1), voxels.truth.split(LARGE_CHUNK, -1), strict=True)
        return torch.stack([negative_log_likelihood(Voxels(*part), sigmoid) for part in parts]).sum()
    if sigmoid:
        losses = F.binary_cross_entropy_with_logits(logits, voxels.target(), reduction="none")
        return losses.sum(dtype=torch.float64) / logits.shape[0]
    truth = voxels.truth.long() if voxels.truth.ndim == 1 else voxels.target()
    return F.cross_entropy(logits[None], truth[None], reduction="none").sum(dtype=torch.float64)


class LikelihoodTerms(NamedTuple):
    """A mean NLL and its derivatives with respect to the scales and the biases of all classes, float64 on the CPU.

    Attributes:
        value: nats per voxel, ().
        gradient: (2C,), scales first.
        hessian: (2C, 2C).
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor


class AffineLikelihood:
    r"""Mean negative log-likelihood of :math:`a_c z_c + b_c` over voxels, in one pass with gradient and Hessian.

    It is convex in a and b. Everything is summed in float64.

    Args:
        voxels: returns an iterator over logits (C, N) with their truth, and weights (N,) or None for 1.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.

    Example:
        >>> import torch
        >>> voxels = Voxels(torch.zeros(2, 4), torch.tensor([0, 0, 0, 1]))
        >>> terms = AffineLikelihood(lambda: [(voxels, None)], sigmoid=False)(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        >>> terms.value, terms.gradient
        (tensor(0.6931, dtype=torch.float64), tensor([ 0.0000,  0.0000, -0.2500,  0.2500], dtype=torch.float64))
    """

    def __init__(self, voxels: Callable[[], Iterable[tuple[Voxels, Tensor | None]]], sigmoid: bool) -> None:
        self.voxels = voxels
        self.sigmoid = sigmoid

    def __call__(self, affine: Tensor) -> LikelihoodTerms:
        """Evaluate at scales and biases (2C,)."""
        sums: list[Tensor] = []
        for voxels, weights in self.voxels():
            for start in range(0, voxels.logits.shape[1], CHUNK):
                part = slice(start, start + CHUNK)
                terms = self._terms(
                    Voxels(voxels.logits[:, part].double(), voxels.truth[..., part]),
                    voxels.logits.new_ones(()) if weights is None else weights[part],
                    affine.to(voxels.logits.device, torch.float64),
                )
                sums = [mine + theirs for mine, theirs in zip(sums, terms, strict=True)] if sums else terms
        value, gradient, hessian, total = (term.cpu() for term in sums)
        if self.sigmoid:
            total = total * (affine.numel() // 2)
        return LikelihoodTerms(value / total, gradient / total, hessian / total)

    def _terms(self, voxels: Voxels, weights: Tensor, affine: Tensor) -> list[Tensor]:
        logits, target = voxels.logits, voxels.target()
        scale, bias = affine.reshape(2, -1, 1)
        scaled = logits * scale + bias
        weights = weights.double().expand(logits.shape[1])
        if self.sigmoid:
            value = (F.binary_cross_entropy_with_logits(scaled, target, reduction="none") * weights).sum()
            probs = scaled.sigmoid_()
            curvature = probs * (1 - probs)
        else:
            log_probs = scaled.log_softmax(0)
            value = -(target * log_probs * weights).sum()
            probs = log_probs.exp_()
            curvature = probs
        residual = (probs - target).mul_(weights)
        gradient = torch.cat([(residual * logits).sum(1), residual.sum(1)])
        curvature = curvature * weights
        first, second = curvature * logits, curvature * logits.square()
        hessian = torch.cat(
            [
                torch.cat([second.sum(1).diag(), first.sum(1).diag()], 1),
                torch.cat([first.sum(1).diag(), curvature.sum(1).diag()], 1),
            ]
        )
        if not self.sigmoid:
            features = torch.cat([probs * logits, probs])
            hessian = hessian - (features * weights) @ features.T
        return [value, gradient, hessian, weights.sum()]
