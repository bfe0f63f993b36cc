"""Whether fragments go together where cases have several raters or a soft label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcalib.bundle.contract import TASKS, task_of
from medcalib.bundle.fragments import FragmentKind, walk
from medcalib.errors import UserError
from medcalib.keys import LabelType

__all__ = ["check_soft_labels", "has_soft_labels"]

_HARD_LOSSES = {
    "FocalLoss": "weights a voxel by the probability of its one true class",
    "NACLLoss": "pulls logits towards the one-hot labels of neighbours",
}
_DEFINED = "baseline_dice_ce, softl1ace_dice_ce, label_smoothing, mbls or svls"


def has_soft_labels(about: Mapping[str, Any]) -> bool:
    """Whether a data fragment, below its key ``data``, has several raters or a soft label.

    Example:
        >>> has_soft_labels({}), has_soft_labels({"label_type": "raters"})
        (False, True)
    """
    return about.get("label_type") in (LabelType.RATERS, LabelType.PROBABILITIES)


def check_soft_labels(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
    """Check that what is composed is defined for soft labels.

    Args:
        configs: the parsed fragments by kind.
        sources: where they were read, for messages.

    Raises:
        UserError: the data have soft labels, and the loss is published for hard ones alone, whole images are
            classified, a soft label is to be mapped, voxels are to be ignored, or labels are turned into regions before
            they are compared.
    """
    about, data = configs[FragmentKind.DATA]["data"], sources[FragmentKind.DATA].stem
    if not has_soft_labels(about):
        return
    if task_of(about) != TASKS[0]:
        raise UserError(
            f"The data fragment {data} has data::label_type {about['label_type']}, which is for segmentation, but its "
            f"task is {task_of(about)}; leave out one of the two."
        )
    if about.get("ignore_label") is not None:
        raise UserError(
            f"{sources[FragmentKind.DATA]}: data::ignore_label is not defined for data::label_type "
            f"{about['label_type']}, where raters may disagree on which voxels are unknown; set one of the two to null."
        )
    for _, value in walk(configs[FragmentKind.LOSS]["loss"]):
        name = str(value).rpartition(".")[2]
        if name in _HARD_LOSSES and isinstance(value, str) and "." in value:
            raise UserError(
                f"The loss {sources[FragmentKind.LOSS].stem} is published for hard labels alone ({name} "
                f"{_HARD_LOSSES[name]}), but data::label_type of {data} is {about['label_type']}; choose {_DEFINED}."
            )
    if about["label_type"] == LabelType.PROBABILITIES and about.get("label_map"):
        raise UserError(
            f"{sources[FragmentKind.DATA]}: data::label_map maps values of label maps, but data::label_type is "
            f"probabilities; set data::label_map to null."
        )
    for index, transform in enumerate(about["preprocessing"]):
        if isinstance(transform, Mapping) and str(transform.get("_target_", "")).endswith(".Regionsd"):
            raise UserError(
                f"{sources[FragmentKind.DATA]}: data::preprocessing::{index} makes regions of labels, which is not "
                f"defined before raters are averaged; report regions with data::regions and data::evaluate instead."
            )
