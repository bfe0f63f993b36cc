"""Scores that say how uncertain the prediction of a whole case is."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys, evenly_divisible_all_gather
from torch import Tensor

from medcalib.functional.aggregation import (
    above_threshold_mean,
    foreground_mean,
    image_mean,
    mean_foreground_confidence,
    patch_maximum,
)
from medcalib.functional.agreement import aula, mean_pairwise_dice
from medcalib.functional.uncertainty import sample_mean_uncertainty
from medcalib.handlers.results import CASE_SCORES, results_of
from medcalib.keys import MEMBER_MAPS, UncertaintyKeys
from medcalib.task import Task

__all__ = ["CONFIDENCE_SCORES", "UncertaintyScoresHandler"]

CONFIDENCE_SCORES = ("pairwise_dice", "mean_foreground_confidence")
"""Scores that are high where a prediction can be trusted; all others are high where it cannot."""


class UncertaintyScoresHandler:
    """Reduce the maps of each case to one number each, and compare the members' segmentations.

    None of the scores looks at a label. Of entropy and, where there are several members, of mutual information and
    variance: ``<map>_image_mean``, ``<map>_foreground_mean`` (predicted foreground), ``<map>_patch_maximum`` (the most
    uncertain cube) and ``<map>_above_threshold`` (the most uncertain voxels, as many as there is foreground). Of the
    probabilities:
    ``mean_foreground_confidence`` and ``sample_mean_uncertainty`` (predicted foreground). Of the members, per class:
    ``pairwise_dice``, and for three or more ``aula`` and ``aula_normalized`` of neighbours.

    Leaves the scores of the cases of all ranks in the results of the engine: by name, on the CPU, (row, 1) or
    (row, class) of `medcalib.task.Task.segmented_classes`, with the rows of `medcalib.handlers.BinnedCases`.

    Args:
        task: which classes have scores of their own, and whether probabilities exclude each other.
        patch_size: edge length in voxels of the most uncertain cube.

    Example:
        >>> engine = Engine(lambda engine, batch: batch)
        >>> UncertaintyScoresHandler(Task(["background", "organ"])).attach(engine)
        >>> maps = dict.fromkeys(["entropy"], torch.full((1, 4, 4), 0.1))
        >>> case = {"pred": torch.full((2, 4, 4), 0.5), "seg": torch.ones(1, 4, 4), **maps}
        >>> scores = engine.run([[case]]).results[CASE_SCORES]
        >>> round(scores["entropy_image_mean"].item(), 4)
        0.1
    """

    def __init__(self, task: Task, patch_size: int = 10) -> None:
        self.task = task
        self.patch_size = patch_size
        self._rows: list[dict[str, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: results_of(engine)[CASE_SCORES])
        results_of(engine).offer(CASE_SCORES, self._gather)

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _update(self, engine: Engine) -> None:
        for case in engine.state.output:
            self._rows.append({name: value.reshape(-1).double().cpu() for name, value in self._scores(case)})

    def _gather(self) -> dict[str, Tensor]:
        names = list(self._rows[0]) if self._rows else []
        return {
            name: evenly_divisible_all_gather(torch.stack([row[name] for row in self._rows]), concat=True)
            for name in names
        }

    def _scores(self, case: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        plain = {key: value.as_subclass(torch.Tensor) for key, value in case.items() if isinstance(value, Tensor)}
        probs, seg = plain[CommonKeys.PRED], plain["seg"]
        foreground = seg.any(0, keepdim=True) if seg.shape[0] > 1 else seg > 0
        fraction = float(foreground.float().mean())
        for name in (UncertaintyKeys.ENTROPY, *(name for name in MEMBER_MAPS if name in plain)):
            values = plain[name]
            yield f"{name}_image_mean", image_mean(values)
            yield f"{name}_foreground_mean", foreground_mean(values, foreground)
            yield f"{name}_patch_maximum", patch_maximum(values, self.patch_size)
            yield f"{name}_above_threshold", above_threshold_mean(values, fraction)
        yield "mean_foreground_confidence", mean_foreground_confidence(probs, foreground)
        unsure = sample_mean_uncertainty(probs[None], self.task.reported_activation)[0]
        yield "sample_mean_uncertainty", foreground_mean(unsure, foreground)
        if (agreement := plain.get(UncertaintyKeys.AGREEMENT)) is None:
            return
        agreement = agreement[self.task.segmented_channels]
        yield "pairwise_dice", mean_pairwise_dice(agreement)
        if agreement.shape[-1] > 2:
            yield "aula", aula(agreement)
            yield "aula_normalized", aula(agreement, normalized=True)
