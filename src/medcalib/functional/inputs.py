"""Checks that every function on probabilities and targets shares, made once at the public door."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "ROUNDING",
    "check_probabilities",
    "is_label_map",
    "plain",
    "prepare_labels",
    "prepare_mask",
    "prepare_target",
    "select",
]

# Sums of softmax channels (overlapping regions) and means over members pass 1 by a few units in the last place.
ROUNDING = 1e-6


def plain(tensor: Tensor) -> Tensor:
    """Return ``tensor`` detached and as a plain tensor, without copying, so that subclasses cost nothing later on."""
    return tensor.detach().as_subclass(torch.Tensor)


def is_label_map(y_pred: Tensor, y: Tensor, num_bins: int = 1) -> bool:
    """Tell a label map (B, 1, ...) from a target (B, C, ...), and raise where ``y`` is neither.

    Raises:
        ValueError: If ``num_bins < 1``, if ``y_pred`` is not floating point (B, C, ...), or if ``y`` fits none of the
            two shapes.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
    if y_pred.ndim < 2 or not y_pred.is_floating_point():
        raise ValueError(
            f"y_pred must be floating-point probabilities of shape (B, C, ...), got {y_pred.dtype} of shape "
            f"{tuple(y_pred.shape)}."
        )
    if y.shape == y_pred.shape:
        return False
    if y.shape != (y_pred.shape[0], 1, *y_pred.shape[2:]):
        raise ValueError(
            f"y must be a label map of shape {(y_pred.shape[0], 1, *y_pred.shape[2:])} or a target of shape "
            f"{tuple(y_pred.shape)} to fit y_pred, got {tuple(y.shape)}."
        )
    return True


def prepare_mask(y_pred: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return ``mask`` as booleans of shape (B, voxels).

    Raises:
        ValueError: If the shape is not (B, 1, ...), with B and the spatial shape of ``y_pred``.
    """
    if mask is None:
        return None
    if mask.shape != (y_pred.shape[0], 1, *y_pred.shape[2:]):
        raise ValueError(
            f"mask must have shape {(y_pred.shape[0], 1, *y_pred.shape[2:])} to fit y_pred, got {tuple(mask.shape)}."
        )
    return plain(mask).reshape(mask.shape[0], -1) != 0


def prepare_labels(y: Tensor, num_classes: int, mask: Tensor | None = None, *, check: bool = True) -> Tensor:
    """Return a label map as small whole numbers of shape (B, voxels), checked where ``mask`` (B, voxels) is true.

    Without ``check`` nothing waits for the device, and a label outside the classes belongs to none of them.

    Raises:
        ValueError: If ``check`` and a label is not a whole number, or lies outside ``[0, num_classes)``.
    """
    labels = plain(y).reshape(y.shape[0], -1)
    compact = torch.uint8 if num_classes <= 256 else torch.int32
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    if not check:
        wide = torch.int32 if compact == torch.uint8 else torch.int64
        return labels if labels.dtype == torch.uint8 else labels.to(wide)
    seen = labels if mask is None else labels[mask]
    if seen.numel():
        low, high = (value.item() for value in seen.aminmax())
        if not (low >= 0 and high < num_classes):
            wrong = low if not low >= 0 else high
            raise ValueError(f"y holds label {wrong:g}, but y_pred has {num_classes} classes (0 to {num_classes - 1}).")
    if mask is not None:
        labels = labels.where(mask, labels.new_zeros(()))
    whole = labels.to(compact)
    if labels.is_floating_point() and not bool((whole == labels).all()):
        raise ValueError("y is a label map, but holds values that are not whole numbers.")
    return whole


def prepare_target(y: Tensor, mask: Tensor | None = None, *, check: bool = True) -> Tensor:
    """Return a target as values of shape (B, C, voxels), checked where ``mask`` (B, voxels) is true.

    Raises:
        ValueError: If ``check`` and a value is NaN or lies outside [0, 1].
    """
    target = plain(y).reshape(*y.shape[:2], -1)
    if not check or target.dtype == torch.bool:
        return target
    if mask is not None:
        target = target.where(mask[:, None], target.new_zeros(()))
    if target.numel():
        low, high = (float(value) for value in target.aminmax())
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):
            raise ValueError(f"y is a target per class and must lie in [0, 1], but ranges from {low:g} to {high:g}.")
    return target


def check_probabilities(y_pred: Tensor, mask: Tensor | None = None) -> None:
    """Check probabilities (B, C, voxels) where ``mask`` (B, voxels) is true.

    Raises:
        ValueError: If a value is NaN or lies outside [0, 1]; names the batch element.
    """
    for index, case in enumerate(y_pred):
        values = case if mask is None else case[:, mask[index]]
        if not values.numel():
            continue
        low, high = (float(value) for value in values.aminmax())
        if low != low:
            raise ValueError(f"y_pred holds NaN in batch element {index}.")
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise ValueError(
                f"y_pred must be probabilities in [0, 1], but batch element {index} ranges from {low:g} to {high:g}."
            )


def select(values: Tensor, mask: Tensor | None, index: int) -> Tensor:
    """Return the voxels of batch element ``index`` that ``mask`` keeps, along the last axis."""
    return values[index] if mask is None else values[index][..., mask[index]]
