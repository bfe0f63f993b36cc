"""Report how far the raters of the cases agree, beside how far the prediction agrees with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.handlers import from_engine
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.files.result_tables import write_table
from medcalib.functional import response_variance
from medcalib.handlers.rater_scores import RatedCase, labels_of_task
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import RATED, results_of
from medcalib.keys import CaseKeys, RaterKeys, UncertaintyKeys
from medcalib.task import Task
from medcalib.visualize.rater_maps import draw_rater_maps

__all__ = ["RaterReportHandler"]

_COLUMNS = {
    "rater_dice": "Dice of two raters",
    "dice_with_raters": "of prediction and rater",
    "dice_max": "of best member and rater",
    "ged": "energy distance",
}
_CORRELATIONS = {
    "ncc_entropy": "of the entropy",
    "ncc_mutual_information": "of the mutual information",
    "ncc_variance": "of the members' variance",
}


class RaterReportHandler:
    """Write each rater's agreement with the others, print it beside the prediction's, and draw some cases.

    ``raters.csv`` has a row for each rater of each case: the Dice with the majority of the other raters, per class and
    on average; ``rater_summary.csv`` the mean over the cases of each rater, with their number. Ties among the others go
    to the first class. Where the dataset does not name the raters, they are called by their place in the list. Figures
    go to ``raters/<case>``, where results are on the grid of the network.

    Args:
        folder: where the files go.
        task: what the channels are, and which classes are reported.
        split: the dataset's split, which names the raters of its cases.
        num_figures: for how many cases a figure is drawn, the first ones that are seen; all when None.
        formats: file formats of the figures.
        dpi: resolution of raster formats.

    Example:
        >>> from medcalib.handlers import RaterScoresHandler
        >>> engine, folder, task = Engine(lambda engine, batch: batch), ResultFolder("out"), Task(["rest", "organ"])
        >>> for handler in (folder, RaterScoresHandler(task), RaterReportHandler(folder, task)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        task: Task,
        split: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        num_figures: int | None = 2,
        formats: Sequence[str] = ("png",),
        dpi: int = 150,
    ) -> None:
        self.folder = folder
        self.task = task
        cases = [case for part in (split or {}).values() for case in part if CaseKeys.RATERS in case]
        self.names = {str(case[CaseKeys.CASE]): [str(name) for name in case[CaseKeys.RATERS]] for case in cases}
        self.num_figures = num_figures
        self.formats = tuple(formats)
        self.dpi = dpi
        self.batch_transform = from_engine(CaseKeys.CASE)
        self._num_drawn = 0

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, RATED)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _engine: Engine) -> None:
        self._num_drawn = 0

    def _write(self, engine: Engine) -> None:
        rows: dict[str, RatedCase] = {}
        for row in results_of(engine)[RATED]:
            rows.setdefault(row.case, row)
        if not self.folder.writes:
            return
        rated = [row for row in rows.values() if row.num_raters]
        if rated:
            table = self._table(rated)
            write_table(table, self.folder.file("raters.csv"))
            write_table(_by_rater(table), self.folder.file("rater_summary.csv"))
        self.folder.tell(self._text(list(rows.values()), rated))

    def _table(self, rated: Sequence[RatedCase]) -> pd.DataFrame:
        classes = list(self.task.reported_classes)
        lines = []
        for row in rated:
            names = self.names.get(row.case) or []
            for place, values in enumerate(row.consensus):
                name = names[place] if len(names) == row.num_raters else f"rater {place + 1}"
                lines.append([row.case, name, *values, _mean(values)])
        return pd.DataFrame(lines, columns=["filename", "rater", *classes, "mean"])

    def _text(self, rows: Sequence[RatedCase], rated: Sequence[RatedCase]) -> str:
        lines = []
        if rated:
            classes = list(self.task.reported_classes)
            found = {
                title: np.array([row.classes[name] for row in rated]).reshape(len(rated), len(classes))
                for name, title in _COLUMNS.items()
            }
            table = pd.DataFrame(
                {
                    title: [_mean(column) for column in values.T] + [_mean([_mean(row) for row in values])]
                    for title, values in found.items()
                },
                index=[*classes, "mean"],
            )
            numbers = Counter(row.num_raters for row in rated)
            counted = ", ".join(
                f"{number} rater{'s' * (number != 1)} in {cases} case{'s' * (cases != 1)}"
                for number, cases in sorted(numbers.items())
            )
            lines += [f"\nRaters: {counted}.", table.to_string(float_format=lambda value: f"{value:.4f}", na_rep="-")]
        shown = [
            f"{title} {value:.4f}"
            for name, title in _CORRELATIONS.items()
            if not math.isnan(value := _mean([row.maps.get(name, math.nan) for row in rows]))
        ]
        if shown:
            lines.append(f"Correlation with the variance of the raters: {', '.join(shown)}.")
        return "\n".join(lines)

    def _draw_batch(self, engine: Engine) -> None:
        cases = self.batch_transform(engine.state.batch)
        for case, batch, output in zip(cases, engine.state.batch, engine.state.output, strict=True):
            if self.num_figures is None or self._num_drawn < self.num_figures:
                self._num_drawn += 1
                self._draw(str(case), {**batch, **output})

    def _draw(self, case: str, item: Mapping[Any, Any]) -> None:
        image, seg = item[CommonKeys.IMAGE], item["seg"]
        # where results are on the grid of the files, there is no image on it
        if RaterKeys.VOTES not in item or not _lie_together(image, item[RaterKeys.VOTES]):
            return
        channels, task = self.task.foreground_channels, self.task
        masks = labels_of_task(item[RaterKeys.VOTES], task)
        predicted = seg.as_subclass(Tensor).cpu()
        if task.reports_exclusive:
            masks = torch.stack([masks == number for number in range(task.num_classes)], 1)
            predicted = torch.stack([predicted[0] == number for number in range(task.num_classes)])
        picture = image.ndim == 3
        figure = draw_rater_maps(
            image.as_subclass(Tensor).cpu().numpy(),
            masks[:, channels].numpy(),
            predicted[channels].bool().numpy(),
            response_variance(item[RaterKeys.RESPONSE]).cpu().numpy(),
            item[UncertaintyKeys.ENTROPY].as_subclass(Tensor).cpu().numpy(),
            class_names=task.foreground_classes,
            affine=None if picture or not isinstance(image, MetaTensor) else image.affine.cpu().numpy(),
            maximum=task.max_entropy,
            rgb=picture and image.shape[0] == 3,
            title=case,
        )
        self.folder.save_figure(f"raters/{case}", figure, self.formats, self.dpi)


def _lie_together(image: Tensor, votes: Tensor) -> bool:
    if image.shape[1:] != votes.shape[1:]:
        return False
    if not (isinstance(image, MetaTensor) and isinstance(votes, MetaTensor)):
        return True
    return bool(torch.allclose(image.affine.cpu().double(), votes.affine.cpu().double(), atol=1e-4))


def _by_rater(table: pd.DataFrame) -> pd.DataFrame:
    values = table.drop(columns="filename").groupby("rater", sort=True)
    summary = values.mean()
    summary["num_cases"] = values.size()
    return summary.reset_index()


def _mean(values: Any) -> float:
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan
