"""Draw reliability figures from the bin statistics of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from ignite.engine import Engine, Events

from medcalib.handlers.binning_data import BinnedCases, binned_cases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.processes import without_interrupts
from medcalib.visualize.rendering import render_case, render_dataset

__all__ = ["ReliabilityDiagramHandler"]


class ReliabilityDiagramHandler:
    """Write the reliability diagrams of some cases, and diagram and histogram of the dataset.

    The figures go to ``reliability/``: ``case_<case>``, ``dataset_diagram`` and ``dataset_histogram``. With a worker
    they are drawn while the engine goes on with the next cases.

    Args:
        folder: where the files go.
        class_names: names of the binned classes.
        num_cases: for how many cases a diagram is drawn, the first ones that are seen; all when None.
        formats: file formats of the dataset figures.
        case_formats: file formats of the figures of cases.
        dpi: resolution of raster formats.
        num_workers: processes that draw; 0 draws in this one when the epoch is over.
    """

    def __init__(
        self,
        folder: ResultFolder,
        class_names: Sequence[str],
        num_cases: int | None = 4,
        formats: Sequence[str] = ("png", "pdf"),
        case_formats: Sequence[str] = ("png",),
        dpi: int = 150,
        num_workers: int = 0,
    ) -> None:
        self.folder = folder
        self.class_names = tuple(str(name) for name in class_names)
        self.num_cases = num_cases
        self.formats = tuple(formats)
        self.case_formats = tuple(case_formats)
        self.dpi = dpi
        self.num_workers = num_workers
        self._pool: Executor | None = None
        self._drawn: dict[str, Future] = {}

    def attach(self, engine: Engine) -> None:
        """Register the handler; attach it after the `BinningDataHandler`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._draw_batch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)
        engine.add_event_handler(Events.COMPLETED, self._announce)

    def _start(self, _engine: Engine) -> None:
        self._drawn = {}
        if self.folder.writes and self.num_workers > 0:
            # a forked child of a process with threads may hang
            self._pool = ProcessPoolExecutor(self.num_workers, mp_context=get_context("spawn"))

    def _draw_batch(self, engine: Engine) -> None:
        if self._pool is not None:
            self._draw_cases(engine.state.binned_batch)

    def _finish(self, engine: Engine) -> None:
        if not self.folder.writes:
            return
        binned = binned_cases(engine, self).unique()
        self._draw_cases(binned)
        arrays = [part.numpy() for part in binned.statistics]
        for kind in ("diagram", "histogram"):
            self._submit(f"dataset_{kind}", render_dataset, kind, arrays, self.class_names, self.formats, self.dpi)
        for name, future in self._drawn.items():
            for suffix, content in future.result().items():
                self.folder.file(f"reliability/{name}.{suffix}").write_bytes(content)
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _draw_cases(self, binned: BinnedCases) -> None:
        for row, case in enumerate(binned.cases):
            name = f"case_{case}"
            if name not in self._drawn and (self.num_cases is None or len(self._drawn) < self.num_cases):
                arrays = [part[row].numpy() for part in binned.statistics]
                self._submit(name, render_case, arrays, self.class_names, case, self.case_formats, self.dpi)

    def _submit(self, name: str, render: Callable[..., dict[str, bytes]], *args: Any) -> None:
        if self._pool is not None:
            # which may start the process that draws
            with without_interrupts():
                self._drawn[name] = self._pool.submit(render, *args)
            return
        self._drawn[name] = Future()
        self._drawn[name].set_result(render(*args))

    def _announce(self, _engine: Engine) -> None:
        if self.folder.writes:
            print("Figures:", *sorted((self.folder.path / "reliability").iterdir()), sep="\n  ")
