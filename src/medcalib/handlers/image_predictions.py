"""Gather the predictions of classified images, and write them as one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.data.dealing import merged_rows
from medcalib.files.result_tables import write_table
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import IMAGES, results_of
from medcalib.keys import MEMBER_MAPS, CaseKeys
from medcalib.task import Task
from medcalib.transforms.scores import image_uncertainties

__all__ = ["ImagePredictions", "ImagePredictionsHandler", "PredictionTableHandler", "image_uncertainties"]


class ImagePredictions(NamedTuple):
    """The classified images that an engine has seen in one epoch, each once, on the CPU.

    Attributes:
        cases: case ids in the order in which they were seen.
        classes: names of the classes.
        probabilities: (case, class), float32.
        labels: class indices (case, 1); None where images have no label.
        uncertainties: one number a case, (case,), by name: ``entropy`` in nats, ``sample_mean_uncertainty`` in
            [0.5, 1], and from engines that draw several members ``mutual_information`` in nats, ``variance`` in
            [0, 0.25].

    Example:
        >>> found = ImagePredictions(["a"], ("healthy", "ill"), torch.tensor([[0.2, 0.8]]), None, {})
        >>> found.classes[found.probabilities[0].argmax()]
        'ill'
    """

    cases: list[str]
    classes: tuple[str, ...]
    probabilities: Tensor
    labels: Tensor | Any  # None, too, but reports of labels are for images that have them
    uncertainties: dict[str, Tensor]


class ImagePredictionsHandler:
    """Leave the `ImagePredictions` of an epoch, gathered from all ranks, in the results of the engine.

    Args:
        task: names of the classes, and whether they exclude each other.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Example:
        >>> engine = Engine(lambda engine, batch: batch)
        >>> ImagePredictionsHandler(Task(["healthy", "ill"])).attach(engine)
        >>> engine.run([[{"case": "a", "pred": torch.tensor([0.2, 0.8])}]]).results[IMAGES].cases
        ['a']
    """

    def __init__(self, task: Task, batch_transform: Callable = from_engine(CaseKeys.CASE)) -> None:
        self.task = task
        self.batch_transform = batch_transform
        self._cases: list[str] = []
        self._rows: list[dict[str, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: results_of(engine)[IMAGES])
        results_of(engine).offer(IMAGES, lambda: self._gather(engine))

    def _start(self, _engine: Engine) -> None:
        self._cases, self._rows = [], []

    def _update(self, engine: Engine) -> None:
        kept = (CommonKeys.PRED, CommonKeys.LABEL, *MEMBER_MAPS)
        self._cases += [str(case) for case in self.batch_transform(engine.state.batch)]
        self._rows += [
            {str(key): case[key].as_subclass(Tensor).detach().cpu() for key in kept if case.get(key) is not None}
            for case in engine.state.output
        ]

    def _gather(self, engine: Engine) -> ImagePredictions:
        loader = engine.state.dataloader
        cases, rows = merged_rows(self._cases, loader), merged_rows(self._rows, loader)
        first = sorted({case: row for row, case in reversed(list(enumerate(cases)))}.values())
        gathered = {key: torch.stack([rows[row][key] for row in first]) for key in rows[0]}
        probabilities = gathered[CommonKeys.PRED].float()
        return ImagePredictions(
            [cases[row] for row in first],
            tuple(self.task.class_names),
            probabilities,
            gathered.get(CommonKeys.LABEL),
            image_uncertainties(probabilities, self.task, gathered),
        )


class PredictionTableHandler:
    """Write ``predictions.csv``, one row per image.

    Its columns are ``case``, ``predicted`` (the name of the class of the largest probability), ``probability_<class>``
    of every class, and the uncertainties of `ImagePredictions`. It needs an
    `ImagePredictionsHandler` on the same engine.

    Args:
        folder: where the file goes.

    Example:
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("predictions")
        >>> for handler in (folder, ImagePredictionsHandler(Task(["healthy", "ill"])), PredictionTableHandler(folder)):
        ...     handler.attach(engine)
    """

    def __init__(self, folder: ResultFolder) -> None:
        self.folder = folder

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, IMAGES)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the table."""
        found: ImagePredictions = results_of(engine)[IMAGES]
        if self.folder.writes:
            columns = {
                "case": found.cases,
                "predicted": [found.classes[index] for index in found.probabilities.argmax(1)],
                **{f"probability_{name}": found.probabilities[:, i] for i, name in enumerate(found.classes)},
                **found.uncertainties,
            }
            write_table(pd.DataFrame(columns), self.folder.file("predictions.csv"))
