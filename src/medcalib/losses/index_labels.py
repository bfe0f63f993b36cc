"""Label maps as the class indices that torch's losses take."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.losses.channel_targets import channel_targets

__all__ = ["class_target", "index_labels"]


def class_target(logits: Tensor, target: Tensor) -> Tensor:
    """What ``torch.nn.functional.cross_entropy`` takes: class indices of a label map, or a soft target as it is.

    Args:
        logits: (B, C, ...), C at least 2.
        target: label map (B, 1, ...), or shares of the classes (B, C, ...) such as the mean response of several raters.

    Raises:
        ValueError: As of `index_labels`, or, on CPU, if a share is outside [0, 1].

    Example:
        >>> class_target(torch.zeros(1, 2, 1), torch.tensor([[[0.25], [0.75]]])).tolist()
        [[[0.25], [0.75]]]
    """
    if target.shape == logits.shape and target.shape[1] > 1:
        return channel_targets(logits, target)[1]
    return index_labels(logits, target)


def index_labels(logits: Tensor, target: Tensor) -> Tensor:
    """Turn a label map with a channel axis, of any dtype, into class indices without one.

    Args:
        logits: (B, C, ...), C at least 2.
        target: label map (B, 1, ...) of whole numbers in [0, C), in any dtype.

    Returns:
        Plain int64 tensor (B, ...).

    Raises:
        ValueError: If ``logits`` has a single channel, if the shapes do not fit, or, on CPU, where looking costs no
            waiting for the device, if a label is not a class.

    Example:
        >>> index_labels(torch.zeros(1, 2, 3), torch.tensor([[[0.0, 1.0, 1.0]]]))
        tensor([[0, 1, 1]])
    """
    if logits.ndim < 3 or logits.shape[1] < 2:
        raise ValueError(f"logits must have shape (B, C, ...) with at least 2 classes, got {tuple(logits.shape)}.")
    if target.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise ValueError(
            f"target must be a label map of shape {(logits.shape[0], 1, *logits.shape[2:])} to fit the logits, "
            f"got {tuple(target.shape)}."
        )
    labels = target.as_subclass(torch.Tensor)[:, 0].long()
    if labels.device.type == "cpu" and labels.numel():
        low, high = (value.item() for value in labels.aminmax())
        if low < 0 or high >= logits.shape[1]:
            wrong = low if low < 0 else high
            raise ValueError(f"target holds label {wrong}, but the logits have {logits.shape[1]} classes.")
    return labels
