"""What the values of a prediction are, checked against what they are said to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.image_files.label_values import label_dtype, no_class, value_text, whole_labels
from medcalib.keys import Activation

__all__ = ["PredictionKind", "label_targets", "logits_of_values"]

# Half precision and 8-bit files round.
RANGE_TOLERANCE, SUM_TOLERANCE = 1e-3, 1e-2
FLOAT32 = torch.finfo(torch.float32)
# Voxels that are looked at together, so that intermediate values never take as much memory as the prediction.
CHUNK = 1 << 17
# Wrong label values that a message lists.
NAMED = 5


class PredictionKind(StrEnum):
    """What a network's output is, before or after softmax or sigmoid."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"


def logits_of_values(values: Tensor, kind: PredictionKind, activation: Activation, what: str) -> Tensor:
    r"""Logits of what a file holds, whose softmax or sigmoid are the probabilities.

    Of probabilities of exclusive classes these are :math:`\ln p`, of independent ones :math:`\ln p - \ln(1 - p)`. A
    probability of 0 has no logarithm; it was smaller than what the file can hold, so half of the smallest that it holds
    stands for it, and at most 1.2e-7, the machine epsilon of float32.

    Args:
        values: (C, ...), finite; contiguous float32 values are overwritten.
        kind: what they are.
        activation: how logits become probabilities.
        what: case and file, with which messages begin.

    Returns:
        Logits (C, ...), float32.

    Raises:
        UserError: there is a single class where classes exclude each other, or the values cannot be what they are said
            to be: probabilities outside [0, 1] or, of exclusive classes, with a sum that is not 1; logits that are
            probabilities.

    Example:
        >>> values = torch.tensor([[0.25], [0.75]])
        >>> logits_of_values(values, PredictionKind.PROBABILITIES, Activation.SOFTMAX, "a").softmax(0)[:, 0]
        tensor([0.2500, 0.7500])
    """
    exclusive = activation is Activation.SOFTMAX
    if exclusive and values.shape[0] < 2:
        raise UserError(
            f"{what} has a single class; with activation softmax it needs one for each class, background included, on "
            f"its fourth axis; give activation sigmoid if it is the probability of the one structure."
        )
    values = values.float().contiguous()
    low, high = (float(value) for value in values.aminmax())
    if kind is PredictionKind.LOGITS:
        if low >= 0 and high <= 1 and not (exclusive and _count_wrong_sums(values)[0]):
            raise UserError(
                f"{what} has only values in [0, 1]{', which sum to 1 over the classes' if exclusive else ''}, as "
                f"probabilities do, but kind says logits; give kind probabilities."
            )
        return values
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        raise UserError(
            f"{what} has values from {low:g} to {high:g}, but kind says probabilities, which lie in [0, 1]; give kind "
            f"logits if softmax or sigmoid was not applied yet."
        )
    if exclusive:
        wrong, example = _count_wrong_sums(values)
        if wrong:
            raise UserError(
                f"{what} has {wrong} voxel(s) whose probabilities do not sum to 1 over the classes, but, for example, "
                f"to {example:.3g}; give activation sigmoid if the classes do not exclude each other."
            )
        least = _least(values)
        for part in _parts(values):
            part.copy_(_logarithm(part, least))
        return values
    least, least_rest = _least(values), _least(values, rest=True)
    for part in _parts(values):
        part.copy_(_logarithm(part, least) - _logarithm(1 - part, least_rest))
    return values


def label_targets(
    label: Tensor, num_classes: int, activation: Activation, regions: Mapping[str, Sequence[int]] | None, what: str
) -> Tensor:
    """Labels in the form in which predictions are compared with them.

    Args:
        label: label map (1, ...), or with the sigmoid also one channel per class (C, ...).
        num_classes: number of predicted classes, C.
        activation: with the softmax, label c is class c. With the sigmoid, classes are independent: channel c is where
            the label is c + 1, unless ``regions`` say otherwise.
        regions: with the sigmoid, the labels of each channel by its name.
        what: case and file, with which messages begin.

    Returns:
        Labels (1, ...) with the softmax, targets (C, ...) with the sigmoid; uint8, or int32 of more than 256 classes.
        Values that are whole numbers but for a rounding are rounded.

    Raises:
        UserError: there is a label without class, or the number of channels does not fit.

    Example:
        >>> regions = {"whole": [1, 2], "core": [2]}
        >>> label_targets(torch.tensor([[0, 1, 2]]), 2, Activation.SIGMOID, regions, "a").tolist()
        [[0, 1, 1], [0, 0, 1]]
    """
    exclusive = activation is Activation.SOFTMAX
    if label.shape[0] != 1:
        if exclusive or label.shape[0] != num_classes:
            raise UserError(
                f"{what} has {label.shape[0]} channels, but the prediction {num_classes}; give one label map, or with "
                f"activation sigmoid one channel for each predicted."
            )
        largest = 1
    else:
        listed = [value for values in (regions or {}).values() for value in values]
        largest = num_classes - 1 if exclusive else max(listed, default=num_classes)
    if regions is None or label.shape[0] != 1:
        expected = f"0 to {largest}"
    else:
        expected = f"0 and those of the regions, up to {largest}"
    slabs, strange = [], set()
    for slab in label.split(max(CHUNK // max(label[:, :1].numel(), 1), 1), 1):
        slab = whole_labels(slab)
        strange.update(slab[no_class(slab, largest + 1)].unique()[: NAMED + 1].tolist())
        slabs.append(slab.to(label_dtype(largest + 1)))
    if strange:
        listed = ", ".join(map(value_text, sorted(strange)[:NAMED]))
        raise UserError(
            f"{what} holds the label{'s' * (len(strange) > 1)} {listed}{' and others' * (len(strange) > NAMED)}, but "
            f"{num_classes} classes are predicted, so labels are {expected}; renumber the label in the order of the "
            f"classes, or predict the class."
        )
    label = torch.cat(slabs, 1)
    if exclusive or label.shape[0] != 1:
        return label
    of_channels = list(regions.values()) if regions else [[number + 1] for number in range(num_classes)]
    parts = [torch.isin(label[0], label.new_tensor(list(labels))) for labels in of_channels]
    return torch.stack(parts).to(torch.uint8)


def _parts(values: Tensor) -> Iterator[Tensor]:
    """Views (C, voxels) of a contiguous tensor (C, ...)."""
    yield from values.reshape(values.shape[0], -1).split(CHUNK, 1)


def _count_wrong_sums(values: Tensor) -> tuple[int, float]:
    """How many voxels do not sum to 1 over the classes, and the sum of the first of them."""
    count, example = 0, 1.0
    for part in _parts(values):
        sums = part.sum(0, dtype=torch.float64)
        wrong = sums[(sums - 1).abs() > SUM_TOLERANCE]
        if wrong.numel() and not count:
            example = float(wrong[0])
        count += wrong.numel()
    return count, example


def _least(values: Tensor, rest: bool = False) -> float:
    """What stands for a probability of 0, or if ``rest`` for one minus a probability of 1."""
    positive = (
        FLOAT32.eps * 2,
        *(float(left.min()) for part in _parts(values) if (left := _positive(part, rest)).numel()),
    )
    return max(min(positive) / 2, FLOAT32.tiny)


def _positive(part: Tensor, rest: bool) -> Tensor:
    part = 1 - part if rest else part
    return part[part > 0]


def _logarithm(probabilities: Tensor, least: float) -> Tensor:
    return probabilities.where(probabilities > 0, least).clamp(max=1).log()
