"""Show cases to guarantees on the grid of their files."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.guarantees import GuaranteeCase, JointGuarantees
from medcalib.keys import MEMBER_MAPS, CaseKeys
from medcalib.metrics.spacing import spacings
from medcalib.task import Task
from medcalib.transforms.scores import CONFIDENCE_SCORES, image_uncertainties, uncertainty_scores

__all__ = ["GUARANTEED", "SETS", "ApplyGuaranteesd", "ObserveGuaranteesd", "guarantee_case", "said_of"]

GUARANTEED = "guaranteed"
"""Key of a case under which transforms leave what guarantees say of it: plain values."""

SETS = "sets"
"""Key of a case under which `ApplyGuaranteesd` leaves sets of voxels (C, ...), bool, by name."""

_MM3_PER_ML = 1000.0


def guarantee_case(case: Mapping[Any, Any], task: Task, group: str | None = None) -> GuaranteeCase:
    """What guarantees see of a case.

    Args:
        case: its id ``case``; probabilities ``pred``, segmentation ``seg``, ``entropy`` and, if it has one, ``label``
            on the grid of its files, of regions where results are reported on them; and what several members say.
        task: what the channels are.
        group: the group of the case.

    Returns:
        The case of the foreground classes, in which voxels of unknown truth do not count; without a label its target
        is None and its Dice NaN. Of an image that is classified as a whole, whose probabilities are (C,), the case of
        all classes, without segmentation and Dice.
    """
    name = str(case[CaseKeys.CASE])
    if case[CommonKeys.PRED].ndim == 1:
        return _whole_image(name, case, task, group)
    channels = task.foreground_channels
    probs = case[CommonKeys.PRED]
    segmentation = _channels(case["seg"], task)
    label = case.get(CommonKeys.LABEL)
    target = _channels(label, task) if isinstance(label, Tensor) else None
    if isinstance(probs, MetaTensor) and probs.ndim == 4:
        spacing = spacings(probs[None])[0]
    else:
        spacing = (1.0,) * (probs.ndim - 1)
    scores = {score: float(value.nanmean()) for score, value in uncertainty_scores(case, task).items()}
    return GuaranteeCase(
        name,
        probs.as_subclass(Tensor)[channels],
        segmentation,
        target,
        spacing,
        case.get(CaseKeys.KNOWN),
        {score: -value if score in CONFIDENCE_SCORES else value for score, value in scores.items()},
        _mean_dice(segmentation, target),
        group,
    )


def _whole_image(name: str, case: Mapping[Any, Any], task: Task, group: str | None) -> GuaranteeCase:
    plain = {str(key): case[key].as_subclass(Tensor)[None].cpu() for key in MEMBER_MAPS if key in case}
    probs, label = case[CommonKeys.PRED].as_subclass(Tensor).float(), case.get(CommonKeys.LABEL)
    target = None
    if isinstance(label, Tensor):
        classes = torch.arange(task.num_classes, device=probs.device)
        target = classes == label.as_subclass(Tensor).to(probs.device).reshape(-1)[0]
    scores = image_uncertainties(probs[None].cpu(), task, plain)
    return GuaranteeCase(
        name, probs, target=target, scores={key: float(value) for key, value in scores.items()}, group=group
    )


class ObserveGuaranteesd(Transform):
    """Keep of a calibration case only what guarantees observe of it, under the key `GUARANTEED`.

    Args:
        guarantees: the guarantees.
        task: what the channels are.
        groups: group of each case by its id.
    """

    def __init__(self, guarantees: JointGuarantees, task: Task, groups: Mapping[str, str] | None = None) -> None:
        self.guarantees = guarantees
        self.task = task
        self.groups = dict(groups or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``case``, and of it ``observed``, ``scores``, ``dice`` and ``group``."""
        name = str(data[CaseKeys.CASE])
        case = guarantee_case(data, self.task, self.groups.get(name))
        found = {
            "observed": self.guarantees.observe(case),
            "scores": dict(case.scores),
            "dice": case.dice,
            "group": case.group,
        }
        return {CaseKeys.CASE: name, GUARANTEED: found}


class ApplyGuaranteesd(Transform):
    """Add what fitted guarantees say of a case, and leave all else of it as it is.

    Args:
        guarantees: the guarantees.
        task: what the channels are.
        transform: brings the probabilities, which it may replace, and the label to the grid of the files, and makes
            segmentation, entropy and regions of them; nothing of this where images are classified as a whole.
        groups: group of each case by its id.
        keep_sets: whether the sets of voxels themselves are kept, as `SETS`.
    """

    def __init__(
        self,
        guarantees: JointGuarantees,
        task: Task,
        transform: Callable[[dict], Mapping] | None = None,
        groups: Mapping[str, str] | None = None,
        keep_sets: bool = False,
    ) -> None:
        self.guarantees = guarantees
        self.task = task
        self.transform = transform
        self.groups = dict(groups or {})
        self.keep_sets = keep_sets

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with ``values``, ``losses`` and sizes of ``sets`` under `GUARANTEED`."""
        name = str(data[CaseKeys.CASE])
        shown = data if self.transform is None else self.transform(dict(data))
        case = guarantee_case(shown, self.task, self.groups.get(name))
        found, sets = said_of(case, self.guarantees)
        return {**data, GUARANTEED: found, **({SETS: sets} if self.keep_sets else {})}


def said_of(case: GuaranteeCase, guarantees: JointGuarantees) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What fitted guarantees say of a case: plain values, as they stand under `GUARANTEED`, and sets of voxels."""
    applied = guarantees.apply(case)
    values = dict(applied.values)
    if values.get("score") in CONFIDENCE_SCORES:
        # as tables have it, not turned as guarantees see it
        values["score_value"] = -values["score_value"]
    pictures = len(case.spacing) < 3
    found = {
        "group": case.group,
        "dice": case.dice,
        "scores": dict(case.scores),
        "values": _in_pixels(values) if pictures else values,
        "groups": applied.groups,
        "losses": {kind: losses.tolist() for kind, losses in applied.losses.items()},
        "unit": "pixels" if pictures else "ml",
        "segmentation": _sizes(case.segmentation, case.spacing),
        "set_names": applied.set_names,
        "sets": {key: _sizes(voxels, case.spacing) for key, voxels in applied.sets.items()},
    }
    return found, applied.sets


def _channels(values: Tensor, task: Task) -> Tensor:
    """Booleans (C, ...) of the foreground classes, of a label map (1, ...) or of channels."""
    plain = values.as_subclass(Tensor)
    if not task.reports_exclusive:
        return plain != 0
    return torch.cat([plain == index for index in range(task.num_classes)[task.foreground_channels]])


def _mean_dice(segmentation: Tensor, target: Tensor | None) -> float:
    """Mean over the classes that the target has."""
    if target is None:
        return float("nan")
    both = (segmentation & target).flatten(1).sum(1).double()
    sizes = target.flatten(1).sum(1).double()
    dice = 2 * both / (sizes + segmentation.flatten(1).sum(1))
    return float(torch.where(sizes > 0, dice, torch.nan).nanmean())


def _sizes(voxels: Tensor | None, spacing: tuple[float, ...]) -> list[float]:
    """Volume of each channel in ml; of pictures the number of pixels."""
    if voxels is None:
        return []
    factor = torch.tensor(spacing, dtype=torch.float64).prod().item() / (_MM3_PER_ML if len(spacing) == 3 else 1.0)
    return (voxels.flatten(1).sum(1).double() * factor).tolist()


def _in_pixels(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a picture, in which to guarantees a pixel is a millimetre wide and a cubic millimetre large."""
    found = {}
    for name, value in values.items():
        if name.endswith("_ml"):
            found[f"{name.removesuffix('_ml')}_pixels"] = value * _MM3_PER_ML
        elif name.endswith("_mm"):
            found[f"{name.removesuffix('_mm')}_pixels"] = value
        else:
            found[name] = value
    return found
