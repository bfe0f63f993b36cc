"""What several raters of one case say together: their mean response, their variability, and predictions beside them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medcalib.functional.agreement import pairwise_dice
from medcalib.functional.inputs import plain

__all__ = [
    "consensus_dice",
    "generalised_energy_distance",
    "majority",
    "mean_response",
    "normalised_cross_correlation",
    "response_variance",
]

DISTANCES = ("dice", "iou")
# voxels that are looked at together
_PART = 1 << 20


def mean_response(votes: Tensor, num_classes: int) -> Tensor:
    """The mean human response: the share of the raters that give a voxel each class.

    Args:
        votes: label maps of the raters (R, ...), whole numbers in any dtype; or, for labels that may overlap, their
            channels of 0 and 1 (R, C, ...) as booleans.
        num_classes: number of classes C.

    Returns:
        Shares (C, ...), float32, in [0, 1]; of label maps they sum to 1 but for rounding. Where all raters agree they
        are exactly 0 and 1.

    Raises:
        ValueError: If there is no rater, or booleans have another number of channels.

    Example:
        >>> import torch
        >>> mean_response(torch.tensor([[0, 1, 1], [0, 0, 1]]), num_classes=2)
        tensor([[1.0000, 0.5000, 0.0000],
                [0.0000, 0.5000, 1.0000]])
    """
    votes = plain(votes)
    masks = votes.dtype == torch.bool
    if votes.ndim < 1 + masks or not votes.shape[0] or (masks and votes.shape[1] != num_classes):
        raise ValueError(
            f"votes must be label maps (R, ...) or masks (R, {num_classes}, ...) of one rater at least, got "
            f"{votes.dtype} of shape {tuple(votes.shape)}."
        )
    raters = votes.shape[0]
    if masks:
        return votes.sum(0, dtype=torch.float32) / raters
    response = torch.empty((num_classes, *votes.shape[1:]), dtype=torch.float32, device=votes.device)
    for index in range(num_classes):
        torch.div((votes == index).sum(0, dtype=torch.float32), raters, out=response[index])
    return response


def majority(response: Tensor, sigmoid: bool = False) -> Tensor:
    """The majority vote: the class that most raters give a voxel.

    A tie goes to the first of the classes, that is to the background where it is one of them; of independent labels,
    one that exactly half of the raters see is not there.

    Args:
        response: shares (C, ...) of :func:`mean_response`, or other soft labels.
        sigmoid: every channel is a binary problem of its own.

    Returns:
        Class indices (1, ...), uint8, or int32 of more than 256 classes; with ``sigmoid`` 0 and 1 (C, ...), uint8.

    Example:
        >>> import torch
        >>> majority(torch.tensor([[0.5, 0.4], [0.5, 0.6]])), majority(torch.tensor([[0.5, 0.6]]), sigmoid=True)
        (tensor([[0, 1]], dtype=torch.uint8), tensor([[0, 1]], dtype=torch.uint8))
    """
    response = plain(response)
    # shares of as many raters, which may differ by a rounding where they were interpolated
    tolerance = 1e-6
    if sigmoid:
        return (response > 0.5 + tolerance).to(torch.uint8)
    largest = response[:1].clone()
    winner = torch.zeros(
        (1, *response.shape[1:]),
        dtype=torch.uint8 if response.shape[0] <= 256 else torch.int32,
        device=response.device,
    )
    for index in range(1, response.shape[0]):
        wins = response[index : index + 1] > largest + tolerance
        winner[wins] = index
        torch.where(wins, response[index : index + 1], largest, out=largest)
    return winner


def response_variance(response: Tensor) -> Tensor:
    r"""How far the raters of a voxel differ: the variance of their votes, :math:`\frac1C \sum_c p_c (1 - p_c)`.

    Args:
        response: shares (C, ...) of :func:`mean_response`, or other soft labels.

    Returns:
        Map (1, ...) in [0, 0.25], 0 where all agree.

    Example:
        >>> import torch
        >>> response_variance(torch.tensor([[1.0, 0.5], [0.0, 0.5]]))
        tensor([[0.0000, 0.2500]])
    """
    response = plain(response)
    total = torch.zeros_like(response[:1])
    for channel in response:
        total[0] += channel * (1 - channel)
    return total / response.shape[0]


def normalised_cross_correlation(one: Tensor, other: Tensor, mask: Tensor | None = None) -> float:
    r"""Correlation of two maps over their voxels, such as uncertainty and the variability of raters.

    .. math::
        \frac{\sum_i (a_i - \bar a)(b_i - \bar b)}{\sqrt{\sum_i (a_i - \bar a)^2 \sum_i (b_i - \bar b)^2}}

    It is 1 for a map and itself, however it is scaled and shifted (Hu et al. 2019, https://arxiv.org/abs/1907.01949;
    reported by ValUES, https://arxiv.org/abs/2401.08501, less by the factor :math:`1 - 1/N` for N voxels, since its
    standard deviations divide by :math:`N - 1`).

    Args:
        one: map of any shape.
        other: map of the same shape.
        mask: optional, of the same shape; voxels where it is zero do not count.

    Returns:
        A value in [-1, 1]; NaN where one of the maps has a single value throughout, as where all raters agree.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> a = torch.tensor([0.0, 1.0, 3.0])
        >>> round(normalised_cross_correlation(a, 5 - 2 * a), 6)
        -1.0
    """
    if one.shape != other.shape or (mask is not None and mask.shape != one.shape):
        shapes = [tuple(tensor.shape) for tensor in (one, other, mask) if tensor is not None]
        raise ValueError(f"maps and mask must have one shape, got {shapes}.")
    keep = slice(None) if mask is None else plain(mask).reshape(-1) != 0
    a, b = (plain(tensor).reshape(-1)[keep].double() for tensor in (one, other))
    if not a.numel() or bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return max(-1.0, min(1.0, float((a @ b) / (a.norm() * b.norm()))))


def generalised_energy_distance(agreement: Tensor, num_samples: int, distance: str = "dice") -> Tensor:
    r"""Squared generalised energy distance between the samples of a prediction and the raters, for each class.

    .. math::
        2\, E[d(S, Y)] - E[d(S, S')] - E[d(Y, Y')]

    with the distance :math:`d = 1 - \mathrm{Dice}`, or :math:`1 - \mathrm{IoU}`, of two segmentations; means are over
    all pairs, those of one and itself among them, as ValUES (https://arxiv.org/abs/2401.08501) and Kohl et al. 2018
    (https://arxiv.org/abs/1806.05034) take them. Two segmentations that both lack the class are the same, d = 0. Both
    overlaps are positive definite kernels, so it is never below 0, and it is 0 where the samples are the raters. A
    prediction without members is a single sample.

    Args:
        agreement: weights (C, M + R, M + R) of :func:`medcalib.functional.member_agreement` of samples and raters
            together, the M samples first.
        num_samples: number of samples M, at least 1 and fewer than all.
        distance: ``"dice"`` or ``"iou"``.

    Returns:
        Values (C,), float64, in [0, 2]; less is better.

    Raises:
        ValueError: If ``agreement`` has another shape, samples or raters are missing, or there is no such distance.

    Example:
        >>> import torch
        >>> from medcalib.functional import member_agreement
        >>> sample, raters = torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 1], [0, 0, 1]])
        >>> generalised_energy_distance(member_agreement(torch.cat([sample, raters]), 2), num_samples=1)[1]
        tensor(0.1667, dtype=torch.float64)
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}.")
    if agreement.ndim != 3 or agreement.shape[1] != agreement.shape[2] or not 0 < num_samples < agreement.shape[1]:
        raise ValueError(
            f"agreement must have shape (C, M + R, M + R) with M = {num_samples} samples and at least one rater, got "
            f"{tuple(agreement.shape)}."
        )
    dice = pairwise_dice(agreement)
    distances = 1 - torch.where(dice.isnan(), 1.0, dice if distance == "dice" else dice / (2 - dice))
    samples, raters = slice(None, num_samples), slice(num_samples, None)
    between, within, among = (
        distances[:, one, other].mean((1, 2))
        for one, other in ((samples, raters), (samples, samples), (raters, raters))
    )
    # what is below 0 is a rounding
    return (2 * between - within - among).clamp(min=0)


def consensus_dice(votes: Tensor, num_classes: int) -> Tensor:
    """Dice of each rater and the majority of all others.

    Args:
        votes: label maps of the raters (R, ...), or masks (R, C, ...) as booleans, as of :func:`mean_response`.
        num_classes: number of classes C.

    Returns:
        Values (R, C), float64, in [0, 1]; NaN where neither the rater nor the majority of the others has the class,
        and for a single rater. Ties among the others are broken as :func:`majority` does.

    Example:
        >>> import torch
        >>> consensus_dice(torch.tensor([[0, 1, 1], [0, 1, 1], [0, 0, 1]]), num_classes=2)[:, 1]
        tensor([0.6667, 0.6667, 0.6667], dtype=torch.float64)
    """
    votes = plain(votes)
    raters, masks = votes.shape[0], votes.dtype == torch.bool
    if raters < 2:
        return torch.full((raters, num_classes), math.nan, dtype=torch.float64)
    sizes = torch.zeros(3, raters, num_classes, dtype=torch.float64)
    flat = votes.reshape(*votes.shape[: 1 + masks], -1)
    classes = torch.arange(num_classes, device=votes.device)[:, None]
    for start in range(0, flat.shape[-1], _PART):
        part = flat[..., start : start + _PART]
        counts = mean_response(part, num_classes) * raters
        for rater in range(raters):
            own = part[rater] if masks else part[rater] == classes
            others = majority((counts - own.to(counts.dtype)) / (raters - 1), sigmoid=masks)
            others = others.bool() if masks else others == classes
            for row, mask in enumerate((own & others, own, others)):
                sizes[row, rater] += mask.sum(-1).cpu()
    both, own_size, other_size = sizes
    return 2 * both / (own_size + other_size)
