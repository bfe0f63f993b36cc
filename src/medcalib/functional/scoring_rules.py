"""Proper scoring rules per class and over exclusive classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from medcalib.functional.inputs import (
    check_probabilities,
    is_label_map,
    plain,
    prepare_labels,
    prepare_mask,
    prepare_target,
    select,
)

__all__ = ["brier_score", "categorical_brier_score", "categorical_negative_log_likelihood", "negative_log_likelihood"]


# Voxels that are scored together.
CHUNK = 1 << 17


def _prepare(y_pred: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, bool]:
    labels = is_label_map(y_pred, y)
    voxel_mask = prepare_mask(y_pred, mask)
    probs = plain(y_pred).reshape(*y_pred.shape[:2], -1)
    check_probabilities(probs, voxel_mask)
    y = prepare_labels(y, probs.shape[1], voxel_mask) if labels else prepare_target(y, voxel_mask)
    return probs, y, voxel_mask, labels


def _clamped(probs: Tensor) -> Tensor:
    # The dtype expresses 1 - eps exactly, and in half precision hardly anything nearer to 1.
    eps = torch.finfo(probs.dtype).eps
    return (probs if probs.dtype == torch.float64 else probs.float()).clamp(eps, 1 - eps)


def _mean(score: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Mean over voxels, the last axis, of a score of values; its intermediate values exist for few voxels at a time."""
    parts = zip(*(value.split(CHUNK, -1) for value in values), strict=True)
    total = torch.stack([score(*part).sum(-1, dtype=torch.float64) for part in parts]).sum(0)
    return total / values[0].shape[-1]


def negative_log_likelihood(y_pred: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean negative log-likelihood of each class as a binary problem against all others.

    .. math::
        -\frac{1}{N} \sum_i y_i \ln p_i + (1 - y_i) \ln(1 - p_i)

    Probabilities are clamped to ``[eps, 1 - eps]`` with the machine epsilon of their dtype (float32: 1.2e-7), so a
    voxel costs at most ``-ln(eps)`` (float32: 15.9) where it is certain and wrong, and at least ``-ln(1 - eps)``, which
    is ``eps``, where it is certain and right.

    Args:
        y_pred: probabilities (B, C, ...).
        y: integer label map (B, 1, ...) or target (B, C, ...).
        mask: optional (B, 1, ...); voxels where it is zero do not count.

    Returns:
        Values (B, C) in nats per voxel, float64; NaN where no voxel counts.

    Raises:
        ValueError: If shapes do not fit, or values or labels are out of range.

    Example:
        >>> import torch
        >>> negative_log_likelihood(torch.full((1, 1, 4), 0.5), torch.ones(1, 1, 4))
        tensor([[0.6931]], dtype=torch.float64)
    """
    probs, truth, voxel_mask, labels = _prepare(y_pred, y, mask)
    result = torch.empty(probs.shape[:2], dtype=torch.float64, device=probs.device)
    for b in range(probs.shape[0]):
        case, true = select(probs, voxel_mask, b), select(truth, voxel_mask, b)
        for c in range(probs.shape[1]):
            result[b, c] = -_mean(
                partial(_log_likelihood, label=c if labels else None), case[c], _of_class(true, c, labels)
            )
    return result


def _of_class(true: Tensor, index: int, labels: bool) -> Tensor:
    return true if labels else true[index]


def _log_likelihood(probs: Tensor, true: Tensor, label: int | None) -> Tensor:
    """Log-likelihood of a class, whose label is given where ``true`` holds labels."""
    p = _clamped(probs)
    # log1p, since 1 - p would round small probabilities away
    if label is not None or true.dtype == torch.bool:
        return torch.where(true if label is None else true == label, p.log(), torch.log1p(-p))
    t = true.to(p.dtype)
    return t * p.log() + (1 - t) * torch.log1p(-p)


def brier_score(y_pred: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean squared difference of each class as a binary problem, :math:`\frac{1}{N} \sum_i (p_i - y_i)^2`.

    Args:
        y_pred: probabilities (B, C, ...).
        y: integer label map (B, 1, ...) or target (B, C, ...).
        mask: optional (B, 1, ...); voxels where it is zero do not count.

    Returns:
        Values (B, C) in [0, 1], float64; NaN where no voxel counts (Brier 1950,
        https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).

    Raises:
        ValueError: If shapes do not fit, or values or labels are out of range.

    Example:
        >>> import torch
        >>> brier_score(torch.full((1, 1, 4), 0.5), torch.ones(1, 1, 4))
        tensor([[0.2500]], dtype=torch.float64)
    """
    probs, truth, voxel_mask, labels = _prepare(y_pred, y, mask)
    result = torch.empty(probs.shape[:2], dtype=torch.float64, device=probs.device)
    for b in range(probs.shape[0]):
        case, true = select(probs, voxel_mask, b), select(truth, voxel_mask, b)
        for c in range(probs.shape[1]):
            result[b, c] = _mean(partial(_squared, label=c if labels else None), case[c], _of_class(true, c, labels))
    return result


def _squared(probs: Tensor, true: Tensor, label: int | None) -> Tensor:
    p = probs if probs.dtype == torch.float64 else probs.float()
    return ((true if label is None else true == label).to(p.dtype) - p).square_()


def categorical_negative_log_likelihood(y_pred: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean negative log-likelihood of exclusive classes, :math:`-\frac{1}{N} \sum_i \sum_c y_{ic} \ln p_{ic}`.

    Probabilities are clamped to ``[eps, 1 - eps]`` with the machine epsilon of their dtype (float32: 1.2e-7), as in
    :func:`negative_log_likelihood`.

    Args:
        y_pred: probabilities (B, C, ...) that sum to 1 over the classes, C at least 2.
        y: integer label map (B, 1, ...) or one-hot or soft target (B, C, ...).
        mask: optional (B, 1, ...); voxels where it is zero do not count.

    Returns:
        Values (B,) in nats per voxel, float64; NaN where no voxel counts.

    Raises:
        ValueError: If shapes do not fit, or values or labels are out of range.

    Example:
        >>> import torch
        >>> categorical_negative_log_likelihood(torch.full((1, 4, 8), 0.25), torch.zeros(1, 1, 8))
        tensor([1.3863], dtype=torch.float64)
    """
    probs, truth, voxel_mask, labels = _prepare(y_pred, y, mask)
    result = torch.zeros(probs.shape[0], dtype=torch.float64, device=probs.device)
    for b in range(probs.shape[0]):
        case, true = select(probs, voxel_mask, b), select(truth, voxel_mask, b)
        if labels:
            result[b] = -_mean(lambda p, t: _clamped(p.gather(0, t[None].long())[0]).log_(), case, true)
            continue
        for c in range(probs.shape[1]):
            result[b] -= _mean(lambda p, t: t.to(_clamped(p).dtype) * _clamped(p).log(), case[c], true[c])
    return result


def categorical_brier_score(y_pred: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Mean squared distance of exclusive classes, :math:`\frac{1}{N} \sum_i \sum_c (p_{ic} - y_{ic})^2`.

    Args:
        y_pred: probabilities (B, C, ...) that sum to 1 over the classes.
        y: integer label map (B, 1, ...) or one-hot or soft target (B, C, ...).
        mask: optional (B, 1, ...); voxels where it is zero do not count.

    Returns:
        Values (B,) in [0, 2], float64; NaN where no voxel counts.

    Raises:
        ValueError: If shapes do not fit, or values or labels are out of range.

    Example:
        >>> import torch
        >>> categorical_brier_score(torch.full((1, 4, 8), 0.25), torch.zeros(1, 1, 8))
        tensor([0.7500], dtype=torch.float64)
    """
    return brier_score(y_pred, y, mask).sum(1)
