"""Bin the predictions of an epoch once, for every handler that needs calibration numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import evenly_divisible_all_gather, string_list_all_gather

from medcalib.errors import UserError
from medcalib.functional import BinStatistics, bin_statistics
from medcalib.handlers.region_metric import masked_output
from medcalib.keys import CaseKeys

__all__ = ["BinnedCases", "BinningDataHandler"]


class BinnedCases(NamedTuple):
    """Bin statistics of the cases that an engine has seen in one epoch, on the CPU.

    Attributes:
        cases: case ids in the order in which the ranks saw them; a case that two ranks saw stands there twice.
        statistics: bin statistics (case, class, bin), one row per id.
    """

    cases: list[str]
    statistics: BinStatistics

    def first_rows(self) -> list[int]:
        """The row in which each case was seen first."""
        return sorted({case: row for row, case in reversed(list(enumerate(self.cases)))}.values())

    def unique(self) -> BinnedCases:
        """Every case once, as it was seen first."""
        order = self.first_rows()
        return BinnedCases(
            [self.cases[row] for row in order], BinStatistics(*(part[order] for part in self.statistics))
        )

    def absent(self) -> torch.Tensor:
        """Whether the ground truth of a case lacks a class, (case, class)."""
        return self.statistics.sum_true.sum(-1) == 0


class BinningDataHandler:
    """Bin each batch once and keep the statistics for the handlers that are attached after this one.

    ``engine.state.binned_batch`` holds those of the cases of the last iteration, ``engine.state.binned_cases`` those of
    all cases when the epoch ends, gathered from all ranks. Batches may have any size.

    Args:
        num_bins: number of equal bins on [0, 1].
        include_background: whether the first class is kept.
        output_transform: from ``engine.state.output`` to probabilities, labels and masks, lists of (C, ...),
            (1 or C, ...) and (1, ...) or None.
        batch_transform: from ``engine.state.batch`` to the list of case ids.

    Raises:
        UserError: while running, naming the case: its predictions or labels cannot be binned.
    """

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = False,
        output_transform: Callable = masked_output,
        batch_transform: Callable = from_engine(CaseKeys.CASE),
    ) -> None:
        self.num_bins = num_bins
        self.include_background = include_background
        self.output_transform = output_transform
        self.batch_transform = batch_transform
        self._cases: list[str] = []
        self._statistics: list[BinStatistics] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._gather)

    def _start(self, engine: Engine) -> None:
        self._cases, self._statistics = [], []
        engine.state.binned_cases = None

    def _update(self, engine: Engine) -> None:
        y_pred, y, masks = self.output_transform(engine.state.output)
        first = 0 if self.include_background else 1
        cases, batch = [], []
        for case, probs, target, mask in zip(self.batch_transform(engine.state.batch), y_pred, y, masks, strict=True):
            try:
                region = None if mask is None else mask[None]
                statistics = bin_statistics(probs[None], target[None], num_bins=self.num_bins, mask=region)
            except ValueError as error:
                raise UserError(f"Case {case} cannot be evaluated: {error}") from None
            cases.append(str(case))
            batch.append(BinStatistics(*(part[:, first:].cpu() for part in statistics)))
        engine.state.binned_batch = BinnedCases(cases, _stack(batch))
        self._cases += cases
        self._statistics += batch

    def _gather(self, engine: Engine) -> None:
        engine.state.binned_cases = BinnedCases(
            string_list_all_gather(self._cases),
            BinStatistics(*(evenly_divisible_all_gather(part) for part in _stack(self._statistics))),
        )


def _stack(statistics: list[BinStatistics]) -> BinStatistics:
    return BinStatistics(*(torch.cat(parts) for parts in zip(*statistics, strict=True)))


def binned_cases(engine: Engine, reader: Any) -> BinnedCases:
    """The statistics that a `BinningDataHandler` left on the engine.

    Raises:
        RuntimeError: none is attached before the reader.
    """
    binned = getattr(engine.state, "binned_cases", None)
    if binned is None:
        raise RuntimeError(f"{type(reader).__name__} needs a BinningDataHandler attached before it.")
    return binned
