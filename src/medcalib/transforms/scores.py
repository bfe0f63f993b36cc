"""Scores that say how uncertain the prediction of a case is, found without its label."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.functional.aggregation import (
    above_threshold_mean,
    foreground_mean,
    image_mean,
    mean_foreground_confidence,
    patch_maximum,
)
from medcalib.functional.agreement import aula, mean_pairwise_dice
from medcalib.functional.uncertainty import entropy, sample_mean_uncertainty
from medcalib.keys import MEMBER_MAPS, UncertaintyKeys
from medcalib.task import Task

__all__ = [
    "CONFIDENCE_SCORES",
    "SCORES",
    "WHOLE_SEGMENTATION",
    "UncertaintyScoresd",
    "image_uncertainties",
    "uncertainty_scores",
]

CONFIDENCE_SCORES = ("pairwise_dice", "mean_foreground_confidence")
"""Scores that are high where a prediction can be trusted; all others are high where it cannot."""

SAMPLE_MEAN = "sample_mean_uncertainty"

SCORES = "scores"
"""Key of a case under which `UncertaintyScoresd` leaves its scores."""

WHOLE_SEGMENTATION = "whole_seg"
"""Key of the segmentation as it was predicted, of a case whose ``seg`` lacks the voxels of unknown truth."""


def uncertainty_scores(case: Mapping[Any, Any], task: Task, patch_size: int = 10) -> dict[str, Tensor]:
    """The scores of one case that `medcalib.handlers.UncertaintyScoresHandler` explains.

    Args:
        case: probabilities ``pred`` (C, ...), segmentation ``seg``, the map ``entropy`` (1, ...), and of several
            members ``mutual_information``, ``variance`` and ``agreement``.
        task: which classes have scores of their own, and whether probabilities exclude each other.
        patch_size: edge length in voxels of the most uncertain cube.

    Returns:
        By name (1,) or (class,), float64 on the CPU; NaN where a score needs foreground and there is none.

    Example:
        >>> case = {"pred": torch.full((2, 4, 4), 0.5), "seg": torch.ones(1, 4, 4)}
        >>> case["entropy"] = torch.full((1, 4, 4), 0.1)
        >>> round(uncertainty_scores(case, Task(["background", "organ"]))["entropy_foreground_mean"].item(), 4)
        0.1
    """
    return {name: value.reshape(-1).double().cpu() for name, value in _scores(case, task, patch_size)}


def image_uncertainties(probabilities: Tensor, task: Task, of_members: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """The uncertainties of `medcalib.handlers.ImagePredictions`.

    Args:
        probabilities: (case, class).
        task: whether the classes exclude each other.
        of_members: those that need several members, (case, 1), if there are several, by their
            `medcalib.keys.MEMBER_MAPS`.

    Returns:
        By name (case,).

    Example:
        >>> sorted(image_uncertainties(torch.tensor([[0.2, 0.8]]), Task(["healthy", "ill"]), {}))
        ['entropy', 'sample_mean_uncertainty']
    """
    return {
        str(UncertaintyKeys.ENTROPY): entropy(probabilities, task.activation)[:, 0],
        **{str(key): of_members[key][:, 0] for key in MEMBER_MAPS if key in of_members},
        SAMPLE_MEAN: sample_mean_uncertainty(probabilities, task.activation)[:, 0],
    }


class UncertaintyScoresd(Transform):
    """Add the `uncertainty_scores` of a case, and leave all else of it as it is.

    Args:
        task: as of `uncertainty_scores`.
        transform: makes ``seg`` and ``entropy`` of the probabilities, and regions where results are reported on them,
            for the scores alone.
        patch_size: as of `uncertainty_scores`.

    Example:
        >>> def segment(case):
        ...     return {**case, "seg": torch.ones(1, 4, 4), "entropy": torch.full((1, 4, 4), 0.1)}
        >>> add = UncertaintyScoresd(Task(["background", "organ"]), segment)
        >>> sorted(add({"pred": torch.full((2, 4, 4), 0.5)}))
        ['pred', 'scores']
    """

    def __init__(self, task: Task, transform: Callable[[dict], Mapping], patch_size: int = 10) -> None:
        self.task = task
        self.transform = transform
        self.patch_size = patch_size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its scores."""
        scores = uncertainty_scores(self.transform(dict(data)), self.task, self.patch_size)
        return {**data, SCORES: scores}


def _scores(case: Mapping[Any, Any], task: Task, patch_size: int) -> Iterator[tuple[str, Tensor]]:
    plain = {key: value.as_subclass(torch.Tensor) for key, value in case.items() if isinstance(value, Tensor)}
    probs, seg = plain[CommonKeys.PRED], plain.get(WHOLE_SEGMENTATION, plain["seg"])
    foreground = seg.any(0, keepdim=True) if seg.shape[0] > 1 else seg > 0
    fraction = float(foreground.float().mean())
    for name in (UncertaintyKeys.ENTROPY, *(name for name in MEMBER_MAPS if name in plain)):
        values = plain[name]
        yield f"{name}_image_mean", image_mean(values)
        yield f"{name}_foreground_mean", foreground_mean(values, foreground)
        yield f"{name}_patch_maximum", patch_maximum(values, patch_size)
        yield f"{name}_above_threshold", above_threshold_mean(values, fraction)
    yield "mean_foreground_confidence", mean_foreground_confidence(probs, foreground)
    unsure = sample_mean_uncertainty(probs[None], task.reported_activation)[0]
    yield "sample_mean_uncertainty", foreground_mean(unsure, foreground)
    if (agreement := plain.get(UncertaintyKeys.AGREEMENT)) is None:
        return
    agreement = agreement[task.segmented_channels]
    yield "pairwise_dice", mean_pairwise_dice(agreement)
    if agreement.shape[-1] > 2:
        yield "aula", aula(agreement)
        yield "aula_normalized", aula(agreement, normalized=True)
