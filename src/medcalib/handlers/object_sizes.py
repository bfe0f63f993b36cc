"""How large each class of each case is, as its label says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.data.dealing import merged_rows
from medcalib.errors import UserError
from medcalib.handlers.results import OBJECT_SIZES, results_of
from medcalib.keys import CaseKeys
from medcalib.metrics.spacing import spacings
from medcalib.task import Task

__all__ = ["ObjectSizesHandler"]


class ObjectSizesHandler:
    """Measure the volume of every class of every case of an epoch, whether it is one object or several.

    Leaves the volumes in ml of the cases of all ranks in the results of the engine, (row, class) with the rows of
    `medcalib.handlers.BinnedCases`, float64, on the CPU; 0 for a class that the label lacks. Of images of two axes they
    are areas, in thousands of the square of the unit of the spacing. Labels must be a ``MetaTensor``, which knows the
    voxel size.

    Args:
        task: which classes are measured.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Raises:
        UserError: while running, naming the case: its voxel size is not known.

    Example:
        >>> from monai.data import MetaTensor
        >>> engine = Engine(lambda engine, batch: batch)
        >>> ObjectSizesHandler(Task(["background", "organ"])).attach(engine)
        >>> label = MetaTensor(torch.ones(1, 10, 10, 20), affine=torch.diag(torch.tensor([0.5, 1.0, 2.0, 1.0])))
        >>> engine.run([[{"case": "a", "label": label}]]).results[OBJECT_SIZES]
        tensor([[2.]], dtype=torch.float64)
    """

    def __init__(self, task: Task, batch_transform: Callable = from_engine(CaseKeys.CASE)) -> None:
        self.task = task
        self.batch_transform = batch_transform
        self._rows: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: results_of(engine)[OBJECT_SIZES])
        results_of(engine).offer(OBJECT_SIZES, lambda: self._gather(engine))

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _update(self, engine: Engine) -> None:
        cases = [str(case) for case in self.batch_transform(engine.state.batch)]
        for case, output in zip(cases, engine.state.output, strict=True):
            label = output[CommonKeys.LABEL]
            try:
                (voxel_size,) = spacings(label.unsqueeze(0))
            except ValueError as error:
                raise UserError(f"The objects of case {case} cannot be measured: {error}") from None
            self._rows.append(self._voxels(label.as_subclass(Tensor)) * math.prod(voxel_size) / 1000)

    def _voxels(self, label: Tensor) -> Tensor:
        num_classes, first = self.task.num_exclusive_classes, 0 if self.task.include_first_channel else 1
        if num_classes is not None and len(label) == 1:
            labels = label.flatten().long()
            # where the truth is unknown, labels are below 0
            counts = torch.bincount(labels[labels >= 0], minlength=num_classes)
        else:
            counts = (label >= 0.5).flatten(1).sum(1)
        return counts[first:].double().cpu()

    def _gather(self, engine: Engine) -> Tensor:
        rows = merged_rows(self._rows, engine.state.dataloader)
        return torch.stack(rows) if rows else torch.zeros(0, len(self.task.reported_classes), dtype=torch.float64)
