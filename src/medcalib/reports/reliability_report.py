"""Draw reliability figures from the bin statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from ignite.engine import Engine, Events

from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import BINNED, results_of
from medcalib.processes import without_interrupts
from medcalib.visualize.rendering import render_case, render_dataset

__all__ = ["ReliabilityDiagramHandler"]


class ReliabilityDiagramHandler:
    """Write the reliability diagrams of some cases, and diagram and histogram of the dataset.

    The figures go to ``reliability/``: ``case_<case>``, ``dataset_diagram`` and ``dataset_histogram``. With a worker
    they are drawn while the engine goes on with the next cases.

    Args:
        folder: where the files go.
        num_cases: for how many cases a diagram is drawn, the first ones that are seen; all when None.
        formats: file formats of the dataset figures.
        case_formats: file formats of the figures of cases.
        dpi: resolution of raster formats.
        num_workers: processes that draw; 0 draws in this one when the epoch is over.

    Example:
        >>> from medcalib.handlers import CalibrationErrorHandler
        >>> from medcalib.task import Task
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> found = CalibrationErrorHandler(Task(["background", "organ"]))
        >>> for handler in (folder, found, ReliabilityDiagramHandler(folder, num_cases=None)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        num_cases: int | None = 4,
        formats: Sequence[str] = ("png", "pdf"),
        case_formats: Sequence[str] = ("png",),
        dpi: int = 150,
        num_workers: int = 0,
    ) -> None:
        self.folder = folder
        self.num_cases = num_cases
        self.formats = tuple(formats)
        self.case_formats = tuple(case_formats)
        self.dpi = dpi
        self.num_workers = num_workers
        self._pool: Executor | None = None
        self._drawn: dict[str, Future] = {}

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, BINNED)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, _engine: Engine) -> None:
        self._drawn = {}
        if self.folder.writes and self.num_workers > 0:
            # a forked child of a process with threads may hang
            self._pool = ProcessPoolExecutor(self.num_workers, mp_context=get_context("spawn"))

    def _draw_batch(self, engine: Engine) -> None:
        if self._pool is not None and BINNED in results_of(engine).batch:
            self._draw_cases(results_of(engine).batch[BINNED])

    def _finish(self, engine: Engine) -> None:
        binned: BinnedCases = results_of(engine)[BINNED].unique()
        if not self.folder.writes:
            return
        self._draw_cases(binned)
        arrays = [part.numpy() for part in binned.statistics]
        for kind in ("diagram", "histogram"):
            self._submit(f"dataset_{kind}", render_dataset, kind, arrays, binned.classes, self.formats, self.dpi)
        contents = {f"reliability/{name}": future.result() for name, future in self._drawn.items()}
        self.folder.write_figures(contents)
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _draw_cases(self, binned: BinnedCases) -> None:
        for row, case in enumerate(binned.cases):
            name = f"case_{case}"
            if name not in self._drawn and (self.num_cases is None or len(self._drawn) < self.num_cases):
                arrays = [part[row].numpy() for part in binned.statistics]
                self._submit(name, render_case, arrays, binned.classes, case, self.case_formats, self.dpi)

    def _submit(self, name: str, render: Callable[..., dict[str, bytes]], *args: Any) -> None:
        if self._pool is not None:
            # which may start the process that draws
            with without_interrupts():
                self._drawn[name] = self._pool.submit(render, *args)
            return
        self._drawn[name] = Future()
        self._drawn[name].set_result(render(*args))
