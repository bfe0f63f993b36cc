"""Bin the predictions of an epoch once, for everybody who needs calibration numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ignite.engine import Engine
from monai.handlers import from_engine
from torch import Tensor

from medcalib.data.dealing import merged_rows
from medcalib.errors import UserError
from medcalib.functional import BinStatistics, every_calibration_error
from medcalib.handlers.region_metric import RegionMetricHandler, masked_output
from medcalib.handlers.results import BINNED, BOUNDARY_BINNED, results_of
from medcalib.keys import CaseKeys
from medcalib.metrics import BinStatisticsMetric, BoundaryStatisticsMetric
from medcalib.metrics.merging import merge_cases
from medcalib.task import Task

__all__ = ["BinnedCases", "BoundaryCalibrationHandler", "CalibrationErrorHandler"]


class BinnedCases(NamedTuple):
    """Bin statistics of the cases that an engine has seen in one epoch, on the CPU.

    Attributes:
        cases: case ids in the order of the dataset, or of the ranks where these were not dealt out by
            `medcalib.data.dealing.DealtCases`; a case that two ranks saw stands there twice.
        classes: names of the binned classes.
        statistics: bin statistics (case, class, bin), one row per id.

    Example:
        >>> import torch
        >>> statistics = BinStatistics(*torch.ones(3, 3, 1, 20))
        >>> BinnedCases(["a", "b", "a"], ("organ",), statistics).unique().cases
        ['a', 'b']
    """

    cases: list[str]
    classes: tuple[str, ...]
    statistics: BinStatistics

    def first_rows(self) -> list[int]:
        """The row in which each case was seen first."""
        return sorted({case: row for row, case in reversed(list(enumerate(self.cases)))}.values())

    def unique(self) -> BinnedCases:
        """Every case once, as it was seen first."""
        return self.rows(self.first_rows())

    def rows(self, chosen: list[int]) -> BinnedCases:
        """Some of the rows."""
        statistics = BinStatistics(*(part[chosen] for part in self.statistics))
        return BinnedCases([self.cases[row] for row in chosen], self.classes, statistics)

    def absent(self) -> Tensor:
        """Whether the ground truth of a case lacks a class, (case, class)."""
        return self.statistics.sum_true.sum(-1) == 0

    def micro_errors(self, prefix: str = "") -> dict[str, Tensor]:
        """``micro_ece``, ``micro_ace`` and ``micro_mce`` (class,) of the pooled bins; NaN for a class no case has.

        Args:
            prefix: stands before the names of the errors, as in ``micro_boundary_ece``.
        """
        errors = every_calibration_error(self.statistics.pool())
        return {f"micro_{prefix}{name}": of_classes[0] for name, of_classes in errors.items()}


class CalibrationErrorHandler(RegionMetricHandler):
    r"""A `medcalib.metrics.BinStatisticsMetric`, and from its bins the calibration errors of the epoch.

    *Macro* values are computed per case and class; a class that the ground truth of a case lacks is NaN there, and the
    mean is over cases of the mean over classes, both without NaN. *Micro* values are computed once from the pooled
    bins of all cases, :math:`\sum_i` of counts, probabilities and targets, so that perfectly calibrated cases pool to
    zero; a class that no case has is NaN. A case that several ranks saw counts once.

    Leaves ``macro_{ece,ace,mce}`` and ``micro_{ece,ace,mce}`` in ``engine.state.metrics``, the macro values (row,
    class) in ``engine.state.metric_details``, and the `BinnedCases` of all ranks in the results of the engine. Batches
    may have any size.

    Args:
        task: which channels of the probabilities count, and their names.
        num_bins: number of equal bins on [0, 1].
        output_transform: from ``engine.state.output`` to probabilities, labels and masks, lists of (C, ...),
            (1 or C, ...) and (1, ...) or None.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Raises:
        UserError: while running, naming the case: its predictions or labels cannot be binned.

    Example:
        >>> import torch
        >>> engine = Engine(lambda engine, batch: batch)
        >>> CalibrationErrorHandler(Task(["background", "organ"]), num_bins=2).attach(engine)
        >>> pred = torch.tensor([[0.1, 0.1], [0.9, 0.9]])
        >>> state = engine.run([[{"case": "a", "pred": pred, "label": torch.tensor([[0, 1]])}]])
        >>> round(state.metrics["macro_ece"], 4)
        0.4
    """

    part = BINNED
    prefix = ""

    def __init__(
        self,
        task: Task,
        num_bins: int = 20,
        output_transform: Callable = masked_output,
        batch_transform: Callable = from_engine(CaseKeys.CASE),
    ) -> None:
        self.classes = task.reported_classes
        self.batch_transform = batch_transform
        self._cases: list[str] = []
        super().__init__(self._metric(task, num_bins), output_transform, save_details=False)

    def _metric(self, task: Task, num_bins: int) -> BinStatisticsMetric:
        return BinStatisticsMetric(num_bins, include_background=task.include_first_channel)

    def attach(self, engine: Engine, name: str = "calibration") -> None:
        """Register the handler."""
        results_of(engine).offer(self.part, lambda: self._gather(engine))
        if not hasattr(engine.state, "metric_details"):
            engine.state.metric_details = {}
        super().attach(engine, name)

    def reset(self) -> None:
        """Forget the epoch before."""
        self._cases = []
        super().reset()

    def iteration_completed(self, engine: Engine) -> None:
        """Bin a batch, case by case."""
        cases = [str(case) for case in self.batch_transform(engine.state.batch)]
        for case, *tensors in zip(cases, *self._output_transform(engine.state.output), strict=True):
            y_pred, y, mask = (None if tensor is None else tensor[None] for tensor in tensors)
            try:
                self.metric_fn(y_pred, y, mask=mask)
            except ValueError as error:
                raise UserError(f"Case {case} cannot be evaluated: {error}") from None
        self._cases += cases

    def completed(self, engine: Engine, name: str) -> None:
        """Gather the bins, unless somebody asked for them before."""
        results_of(engine)[self.part]

    def _gather(self, engine: Engine) -> BinnedCases:
        loader = engine.state.dataloader
        merge_cases(self.metric_fn, loader)
        statistics = self.metric_fn.aggregate().to("cpu")
        binned = BinnedCases(merged_rows(self._cases, loader), self.classes, statistics)
        unique = binned.unique()
        macro = every_calibration_error(unique.statistics)
        for name, of_rows in every_calibration_error(statistics).items():
            engine.state.metric_details[f"macro_{self.prefix}{name}"] = of_rows
            engine.state.metrics[f"macro_{self.prefix}{name}"] = macro[name].nanmean(1).nanmean().item()
        for name, of_classes in unique.micro_errors(self.prefix).items():
            engine.state.metrics[name] = of_classes.nanmean().item()
        return binned


class BoundaryCalibrationHandler(CalibrationErrorHandler):
    """A `CalibrationErrorHandler` of the voxels within some mm of the true boundary of each class.

    Its numbers are called ``macro_boundary_{ece,ace,mce}`` and ``micro_boundary_{ece,ace,mce}``; which voxels count is
    said in `medcalib.metrics.BoundaryStatisticsMetric`. Labels must be a ``MetaTensor``, which knows the voxel size.

    Args:
        task: which channels of the probabilities count, and their names.
        band_mm: largest distance in mm, above 0.
        num_bins: number of equal bins.
        output_transform: as of `CalibrationErrorHandler`.
        batch_transform: likewise.

    Raises:
        UserError: ``band_mm`` is no number above 0; while running, naming the case: its voxel size is not known, or its
            predictions or labels cannot be binned.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> engine = Engine(lambda engine, batch: batch)
        >>> BoundaryCalibrationHandler(Task(["background", "organ"]), band_mm=1.0, num_bins=2).attach(engine)
        >>> pred, label = torch.tensor([[0.1] * 4, [0.9] * 4]), MetaTensor(torch.tensor([[0, 0, 0, 1]]))
        >>> state = engine.run([[{"case": "a", "pred": pred, "label": label}]])
        >>> round(state.metrics["macro_boundary_ece"], 4)
        0.4
    """

    part = BOUNDARY_BINNED
    prefix = "boundary_"

    def __init__(
        self,
        task: Task,
        band_mm: float,
        num_bins: int = 20,
        output_transform: Callable = masked_output,
        batch_transform: Callable = from_engine(CaseKeys.CASE),
    ) -> None:
        if isinstance(band_mm, bool) or not isinstance(band_mm, int | float) or not band_mm > 0:
            raise UserError(f"The band at boundaries must be a number of mm above 0, such as 3, not {band_mm!r}.")
        self.band_mm = band_mm
        super().__init__(task, num_bins, output_transform, batch_transform)

    def attach(self, engine: Engine, name: str = "boundary_calibration") -> None:
        """Register the handler."""
        super().attach(engine, name)

    def _metric(self, task: Task, num_bins: int) -> BinStatisticsMetric:
        return BoundaryStatisticsMetric(self.band_mm, num_bins, task.include_first_channel)
