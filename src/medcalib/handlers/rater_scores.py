"""Compare the prediction of each case with its raters, and the raters with each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from torch import Tensor

from medcalib.data.dealing import merged_rows
from medcalib.errors import UserError
from medcalib.functional import (
    consensus_dice,
    generalised_energy_distance,
    mean_pairwise_dice,
    member_agreement,
    normalised_cross_correlation,
    pairwise_dice,
    response_variance,
)
from medcalib.functional.raters import DISTANCES
from medcalib.handlers.results import RATED, results_of
from medcalib.keys import CaseKeys, RaterKeys, UncertaintyKeys
from medcalib.task import Task

__all__ = ["RatedCase", "RaterScoresHandler", "labels_of_task"]

_MAPS = (UncertaintyKeys.ENTROPY, UncertaintyKeys.MUTUAL_INFORMATION, UncertaintyKeys.VARIANCE)


class RatedCase(NamedTuple):
    """What was found in one case.

    Attributes:
        case: its id.
        classes: by the name of a metric its value for each reported class, NaN where it has none.
        maps: by the name of a metric its one value.
        consensus: Dice of each rater and the majority of the others, (rater, class); empty where the label is soft.

    Example:
        >>> RatedCase("a", {"ged": [0.1]}, {"ncc_entropy": 0.7}, [[0.9], [0.8]]).num_raters
        2
    """

    case: str
    classes: dict[str, list[float]]
    maps: dict[str, float]
    consensus: list[list[float]]

    @property
    def num_raters(self) -> int:
        """Number of raters of the case."""
        return len(self.consensus)


class RaterScoresHandler:
    r"""Metrics of predictions beside several raters, and of the raters themselves.

    For each case and class: ``ged``, `medcalib.functional.generalised_energy_distance` between members and raters, the
    segmentation being the only sample where there are no members; ``dice_with_raters``, the mean Dice of the
    segmentation and each rater; ``dice_max``, the mean over the raters of the best member's Dice; and ``rater_dice``,
    the mean Dice of any two raters. For each case: ``ncc_entropy``, ``ncc_mutual_information`` and ``ncc_variance``,
    `medcalib.functional.normalised_cross_correlation` of the maps that there are with the variance of the raters, in
    the region of interest where there is one. With a soft label in the place of raters only these are found.

    Leaves them in ``engine.state.metric_details`` and their means in ``engine.state.metrics``, and a `RatedCase` of
    every row in the results of the engine.

    Args:
        task: what the channels are, and which classes are reported.
        distance: of the energy distance, ``dice`` or ``iou``.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Raises:
        UserError: there is no such distance.

    Example:
        >>> engine = Engine(lambda engine, batch: batch)
        >>> RaterScoresHandler(Task(["background", "organ"])).attach(engine)
        >>> votes = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0]])
        >>> case = {"case": "a", "seg": votes[:1], "votes": votes, "entropy": torch.tensor([[0.0, 0.1, 0.6, 0.0]])}
        >>> case["response"] = torch.stack([(votes == c).float().mean(0) for c in range(2)])
        >>> state = engine.run([[case]])
        >>> _ = state.results[RATED]
        >>> {name: round(value, 3) for name, value in state.metrics.items()}
        {'dice_max': 0.833, 'dice_with_raters': 0.833, 'ged': 0.167, 'ncc_entropy': 0.986, 'rater_dice': 0.667}
    """

    def __init__(
        self, task: Task, distance: str = "dice", batch_transform: Callable = from_engine(CaseKeys.CASE)
    ) -> None:
        if distance not in DISTANCES:
            raise UserError(f"raters::distance is {distance!r}: it must be {' or '.join(DISTANCES)}.")
        self.task = task
        self.distance = distance
        self.batch_transform = batch_transform
        self._rows: list[RatedCase] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        results_of(engine).offer(RATED, lambda: self._gather(engine))
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: results_of(engine)[RATED])
        if not hasattr(engine.state, "metric_details"):
            engine.state.metric_details = {}

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _update(self, engine: Engine) -> None:
        cases = self.batch_transform(engine.state.batch)
        for case, batch, output in zip(cases, engine.state.batch, engine.state.output, strict=True):
            self._rows.append(self._found(str(case), {**batch, **output}))

    def _found(self, case: str, item: Mapping[Any, Any]) -> RatedCase:
        maps = {f"ncc_{key}": _correlation(item, key) for key in _MAPS if key in item}
        if RaterKeys.VOTES not in item:
            return RatedCase(case, {}, maps, [])
        task = self.task
        votes = labels_of_task(item[RaterKeys.VOTES], task)
        prediction = _prediction(item["seg"], task)
        members = item.get(UncertaintyKeys.MEMBER_LABELS)
        samples = prediction if members is None else labels_of_task(members, task)
        num_classes = task.num_classes if task.reports_exclusive else votes.shape[1]
        first = 0 if task.include_first_channel else 1
        together = torch.cat([prediction, samples, votes])
        agreement = member_agreement(together, num_classes)[first:]
        own, raters = slice(1, 1 + len(samples)), slice(1 + len(samples), None)
        dice = pairwise_dice(agreement)
        best = torch.where(dice[:, own, raters].isnan(), -1.0, dice[:, own, raters]).amax(1)
        found = {
            "ged": generalised_energy_distance(agreement[:, 1:, 1:], len(samples), self.distance),
            "dice_with_raters": dice[:, 0, raters].nanmean(-1),
            "dice_max": best.masked_fill(best < 0, math.nan).nanmean(-1),
            "rater_dice": mean_pairwise_dice(agreement[:, raters, raters]),
        }
        consensus = consensus_dice(votes, num_classes)[:, first:]
        return RatedCase(case, {name: values.tolist() for name, values in found.items()}, maps, consensus.tolist())

    def _gather(self, engine: Engine) -> list[RatedCase]:
        rows: list[RatedCase] = merged_rows(self._rows, engine.state.dataloader)
        details = {}
        for name in sorted({name for row in rows for name in row.classes}):
            missing = [math.nan] * len(self.task.reported_classes)
            details[name] = torch.tensor([row.classes.get(name, missing) for row in rows], dtype=torch.float64)
        for name in sorted({name for row in rows for name in row.maps}):
            details[name] = torch.tensor([[row.maps.get(name, math.nan)] for row in rows], dtype=torch.float64)
        seen = {row.case: place for place, row in reversed(list(enumerate(rows)))}
        for name, values in sorted(details.items()):
            engine.state.metric_details[name] = values
            engine.state.metrics[name] = values[sorted(seen.values())].nanmean(1).nanmean().item()
        return rows


def _correlation(item: Mapping[Any, Any], key: str) -> float:
    variance = response_variance(item[RaterKeys.RESPONSE])
    mask = item.get("mask")
    return normalised_cross_correlation(
        item[key].as_subclass(Tensor).to(variance.device), variance, None if mask is None else mask.to(variance.device)
    )


def _prediction(seg: Tensor, task: Task) -> Tensor:
    """The segmentation as one sample: a label map (1, ...), or masks (1, C, ...)."""
    seg = seg.as_subclass(Tensor).cpu()
    return seg if task.reports_exclusive else seg.bool()[None]


def labels_of_task(labels: Tensor, task: Task) -> Tensor:
    """Label maps (S, ...), or (S x C, ...) of independent labels, as maps or masks (S, C, ...) of what is reported."""
    labels = labels.as_subclass(Tensor).cpu()
    if not task.exclusive:
        return labels.reshape(-1, task.num_classes, *labels.shape[1:]).bool()
    if task.regions is None:
        return labels
    return torch.stack([torch.isin(labels, labels.new_tensor(list(of))) for of in task.regions.values()], 1)
