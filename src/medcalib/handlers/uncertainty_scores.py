"""Scores that say how uncertain the prediction of a whole case is."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from medcalib.data.dealing import merged_rows
from medcalib.handlers.results import CASE_SCORES, results_of
from medcalib.task import Task
from medcalib.transforms.scores import CONFIDENCE_SCORES, uncertainty_scores

__all__ = ["CONFIDENCE_SCORES", "UncertaintyScoresHandler"]


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
        results_of(engine).offer(CASE_SCORES, lambda: self._gather(engine))

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _update(self, engine: Engine) -> None:
        for case in engine.state.output:
            self._rows.append(uncertainty_scores(case, self.task, self.patch_size))

    def _gather(self, engine: Engine) -> dict[str, Tensor]:
        rows = merged_rows(self._rows, engine.state.dataloader)
        return {name: torch.stack([row[name] for row in rows]) for name in (rows[0] if rows else ())}
