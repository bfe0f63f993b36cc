"""Label values: as files hold them and as classes count them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medcalib.keys import IGNORED

__all__ = ["LABEL_TOLERANCE", "disk_values", "label_dtype", "no_class", "replaced_values", "value_text", "whole_labels"]

LABEL_TOLERANCE = 0.01
"""So far from a whole number a label value is that number: files with a slope in their header hold 1.0000153 for 1."""


def whole_labels(label: Tensor) -> Tensor:
    """Round label values that are whole numbers but for what a file's format made of them.

    Args:
        label: values (...), of any type.

    Returns:
        The label itself if nothing had to be rounded. Values further than `LABEL_TOLERANCE` from a whole number stay.

    Example:
        >>> whole_labels(torch.tensor([0.0, 1.0000153, 1.9999999, 0.5])).tolist()
        [0.0, 1.0, 2.0, 0.5]
    """
    if not label.is_floating_point():
        return label
    rounded = label.round()
    off = (label - rounded).abs()
    return label if not off.any() else torch.where(off <= LABEL_TOLERANCE, rounded, label)


def no_class(label: Tensor, num_values: int, ignored: bool = False) -> Tensor:
    """Where a label is no whole number from 0 to less than ``num_values``, nor to be ignored where that is allowed.

    Example:
        >>> no_class(torch.tensor([0.0, 1.5, 2.0]), 2).tolist()
        [False, True, True]
    """
    wrong = (label < 0) | (label >= num_values)
    wrong = wrong | (label != label.round()) if label.is_floating_point() else wrong
    return wrong & (label != IGNORED) if ignored else wrong


def label_dtype(num_values: int, ignored: bool = False) -> torch.dtype:
    """The smallest type that this package uses for labels from 0 to less than ``num_values``.

    Args:
        num_values: number of values.
        ignored: whether there is `medcalib.keys.IGNORED`, too, which needs a sign.

    Example:
        >>> label_dtype(256), label_dtype(257), label_dtype(3, ignored=True)
        (torch.uint8, torch.int32, torch.int8)
    """
    if ignored:
        return torch.int8 if num_values <= 128 else torch.int16
    return torch.uint8 if num_values <= 256 else torch.int32


def value_text(value: float | Tensor) -> str:
    """A label value for a message, with as many digits as tell it from every other float32.

    Example:
        >>> value_text(2.0), value_text(2.0000002)
        ('2', '2.0000002')
    """
    value = float(value)
    return str(int(value)) if value.is_integer() else str(np.float32(value))


def replaced_values(label_map: Mapping[int, int] | None) -> dict[int, int]:
    """Numbers of classes that are no values in files, since one other value alone stands for their class.

    Where several values are mapped to a class, they are united with the one that is its number; so is what is mapped to
    the background with 0.

    Args:
        label_map: label value on disk: class index, for those that differ.

    Returns:
        By the index of the class the value that stands for it.

    Example:
        >>> replaced_values({4: 3}), replaced_values({3: 3, 4: 3}), replaced_values({2: 1, 3: 1}), replaced_values(None)
        ({3: 4}, {}, {}, {})
        >>> replaced_values({1: 0, 2: 1})
        {}
    """
    listed = {int(value): int(index) for value, index in (label_map or {}).items()}
    targets = list(listed.values())
    return {index: value for value, index in listed.items() if index not in {0, *listed} and targets.count(index) == 1}


def disk_values(label_map: Mapping[int, int] | None, num_classes: int) -> list[int]:
    """The value that stands for each class in the files of a dataset.

    It is the smallest of those that ``label_map`` maps to the class, and the index of the class if there is none. An
    index that is the value of another class would be misread, so the first number that stands for nothing takes its
    place.

    Args:
        label_map: label value on disk: class index, for those that differ.
        num_classes: number of classes.

    Example:
        >>> disk_values({4: 3}, 4), disk_values({2: 1, 3: 1}, 2)
        ([0, 1, 2, 4], [0, 2])
    """
    listed = {int(value): int(index) for value, index in (label_map or {}).items()}
    mapped = {index: min(value for value in listed if listed[value] == index) for index in listed.values()}
    values = [mapped.get(index, index if index not in listed else None) for index in range(num_classes)]
    used = {*listed, *range(num_classes)}
    free = (number for number in range(len(used) + num_classes) if number not in used)
    return [next(free) if value is None else value for value in values]
