"""Draw predictions over their images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional.unknown_truth import known_voxels
from medcalib.handlers.result_folder import ResultFolder
from medcalib.keys import IGNORED, CaseKeys, SplitKeys, UncertaintyKeys
from medcalib.task import Task
from medcalib.transforms.guaranteed_cases import SETS
from medcalib.visualize import draw_case_overlay

__all__ = ["CaseOverlayHandler"]


class CaseOverlayHandler:
    """Write ``<case>/<case>_overlay``: image, outlines of prediction and label, map of uncertainty, in one slice.

    Where outputs hold the sets of voxels of a guarantee, ``inner`` or ``outer``, they are a band around the outlines;
    those of regions, which outlines are not of, are left out.

    Predictions and maps must lie in the geometry of the image file already. A case without label is drawn without it.

    Args:
        folder: where the files go.
        split: the dataset's split, which names the files of each case.
        load: from the files of a case to image and label, such as a `medcalib.transforms.LoadCased`.
        task: names of the classes, and the upper end of the scale of the uncertainty.
        num_cases: how many cases are drawn, the first ones of the dataset of the engine, or else those seen first.
        cases: ids of the cases that are drawn instead.
        uncertainty: which map is drawn.
        formats: file formats.
        dpi: resolution of raster formats.

    Raises:
        UserError: ``cases`` names one that is not in the test split.

    Example:
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("predictions")
        >>> split = {"test": [{"case": "a", "image": "a.nii.gz"}]}
        >>> CaseOverlayHandler(folder, split, dict, Task(["background", "organ"]), cases=["a"]).attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        split: Mapping[str, Sequence[Mapping[str, Any]]],
        load: Callable[[dict], Mapping],
        task: Task,
        num_cases: int = 4,
        cases: Sequence[str] | None = None,
        uncertainty: str = UncertaintyKeys.ENTROPY,
        formats: Sequence[str] = ("png",),
        dpi: int = 200,
    ) -> None:
        self.folder = folder
        self.files = {str(case[CaseKeys.CASE]): dict(case) for case in split[SplitKeys.TEST]}
        for case in cases or ():
            if str(case) not in self.files:
                raise UserError(f"overlays::cases names {case}, which is not in the test split.")
        self.load = load
        self.task = task
        self.num_cases = num_cases
        self.cases = None if cases is None else {str(case) for case in cases}
        self.uncertainty = str(uncertainty)
        self.formats = tuple(formats)
        self.dpi = dpi
        self.batch_transform = from_engine(CaseKeys.CASE)
        self._num_drawn = 0
        self._first: set[str] | None = None

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw_batch)

    def _start(self, engine: Engine) -> None:
        self._num_drawn = 0
        # of several processes each sees some of the cases only
        listed = getattr(getattr(engine.state.dataloader, "dataset", None), "data", None)
        self._first = None if listed is None else {str(case[CaseKeys.CASE]) for case in listed[: self.num_cases]}

    def _draw_batch(self, engine: Engine) -> None:
        for case, output in zip(self.batch_transform(engine.state.batch), engine.state.output, strict=True):
            wanted = self._first if self.cases is None else self.cases
            if self._num_drawn < self.num_cases if wanted is None else str(case) in wanted:
                self._num_drawn += 1
                self._draw(str(case), output)

    def _draw(self, case: str, output: Mapping[str, Tensor]) -> None:
        files = self.files[case]
        label_files = files.get(CaseKeys.LABEL, "")
        paths = label_files if isinstance(label_files, list | tuple) else [label_files]
        if not all(Path(str(path)).is_file() for path in paths):
            files.pop(CaseKeys.LABEL, None)
        loaded = self.load(files)
        image, label = loaded[CaseKeys.IMAGE], loaded.get(CaseKeys.LABEL)
        seg = output["seg"]
        names = self.task.class_names if self.task.exclusive else ("background", *self.task.class_names)
        picture = image.ndim == 3
        figure = draw_case_overlay(
            image.cpu().numpy(),
            _label_map(seg),
            output[self.uncertainty].cpu().numpy(),
            None if label is None else _label_map(label),
            class_names=list(names),
            affine=None if picture else image.affine.cpu().numpy(),
            rgb=picture and image.shape[0] == 3,
            origin="upper" if picture else "lower",
            maximum=self.task.max_entropy,
            title=case,
            **self._sets(output, names[1:]),
        )
        self.folder.save_figure(f"{case}/{case}_overlay", figure, self.formats, self.dpi)

    def _sets(self, output: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        sets = output.get(SETS) or {}
        if list(self.task.foreground_classes) != list(names):
            return {}
        return {name: sets[name].cpu().numpy() for name in ("inner", "outer") if name in sets}


def _label_map(labels: Tensor) -> Any:
    """Labels (1, ...), or channels (C, ...) of which the last one that is set is shown, as whole numbers (...).

    Where they are unknown, they are below 0.
    """
    labels = torch.as_tensor(labels).cpu()
    if labels.shape[0] > 1:
        numbers = torch.arange(1, labels.shape[0] + 1).reshape(-1, *[1] * (labels.ndim - 1))
        known = known_voxels(labels, channel_axis=0)
        labels = ((labels > 0) * numbers).amax(0, keepdim=True)
        labels = labels if known is None else labels.where(known, IGNORED)
    return labels[0].long().numpy()
