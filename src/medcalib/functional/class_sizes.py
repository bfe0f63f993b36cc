"""How large a class is, as its probabilities say."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medcalib.functional.inputs import plain

__all__ = ["ClassVolumes", "class_volumes"]


class ClassVolumes(NamedTuple):
    """Sizes of classes in voxels.

    Attributes:
        expected: mean of the distribution of the size, the sum of the probabilities, (C,), float64.
        low: lower end of the interval, (C,), float64.
        high: upper end of the interval, (C,), float64.

    Example:
        >>> class_volumes(torch.tensor([[1.0, 0.0]])).expected
        tensor([1.], dtype=torch.float64)
    """

    expected: Tensor
    low: Tensor
    high: Tensor


def class_volumes(probs: Tensor, confidence: float = 0.95) -> ClassVolumes:
    """Expected size of each class, and an interval for voxels that err together.

    Probabilities say nothing of how the labels of two voxels depend on each other. If they were independent, the size
    of a class would be known almost exactly, which is absurd for a border that is drawn too wide or too narrow as a
    whole. The interval assumes the other extreme: one number u, uniform on [0, 1], decides all voxels of the class,
    which has those with p > u. Of all joint distributions with these probabilities, this one has the largest variance
    of the size; its mean is the sum of the probabilities (Dhaene et al., The concept of comonotonicity in actuarial
    science and finance, Insurance: Mathematics and Economics 31, 2002). With a = (1 - confidence) / 2 the interval ends
    at the numbers of voxels with p > 1 - a and with p > a.

    So it holds the size with this confidence if the probabilities are right and the class grows and shrinks along its
    level sets; if the voxels depend on each other less than that, nearly always more often. It knows nothing of
    probabilities that are wrong.

    Args:
        probs: probabilities of one case (C, ...).
        confidence: probability that the interval is to hold, in (0, 1).

    Returns:
        Sizes in voxels.

    Raises:
        ValueError: ``confidence`` is not in (0, 1).

    Example:
        >>> sizes = class_volumes(torch.tensor([[1.0, 0.99, 0.5, 0.25, 0.01]]))
        >>> round(sizes.expected.item(), 2), sizes.low.item(), sizes.high.item()
        (2.75, 2.0, 4.0)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    values = plain(probs).flatten(1)
    tail = (1 - confidence) / 2
    return ClassVolumes(
        values.sum(1, dtype=torch.float64),
        (values > 1 - tail).sum(1).double(),
        (values > tail).sum(1).double(),
    )
