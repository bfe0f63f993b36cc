"""One line for every run: what it is, how far, and how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection

from tqdm import tqdm

from medcalib.study.planned_runs import Run
from medcalib.study.run_states import RunStates, State, progress_in

__all__ = ["ProgressLines", "clock"]


class ProgressLines:
    """Print a line for every run; on a terminal it shows the epochs while the run goes on.

    Args:
        states: the states of the runs.
        number: number of runs.
    """

    def __init__(self, states: RunStates, number: int) -> None:
        self.states = states
        self.number = number
        self._ended = 0
        self._begun: dict[str, float] = {}
        self._width = 0

    def begin(self, run: Run) -> None:
        """A run begins."""
        self._begun[run.id] = time.monotonic()
        if not sys.stdout.isatty():
            print(f"{self._place(self._ended + 1)} {run.title}: begins", flush=True)

    def show(self, runs: Collection[Run]) -> None:
        """Show how far those runs are that go on."""
        for run in runs:
            if run.id not in self._begun:
                self.begin(run)
        if not sys.stdout.isatty() or not runs:
            return
        told = []
        for run in runs:
            progress = progress_in(self.states.log(run))
            where = f"epoch {progress.epoch}/{progress.epochs}, {progress.left} left" if progress else "runs"
            told.append(f"{run.title}: {where}")
        self._overwrite(f"{self._place(self._ended + 1)} {'; '.join(told)}")

    def end(self, run: Run, state: State, left: str | None = None) -> None:
        """A run ended.

        Args:
            run: the run.
            state: how.
            left: the time left for the others; not shown when None.
        """
        self._ended += 1
        took = f" after {clock(time.monotonic() - self._begun[run.id])}" if run.id in self._begun else ""
        rest = f", {left} left" if left is not None and self._ended < self.number else ""
        if sys.stdout.isatty():
            self._overwrite("")
        print(f"{self._place(self._ended)} {run.title}: {state}{took}{rest}", flush=True)

    def _place(self, number: int) -> str:
        return f"[{number:>{len(str(self.number))}}/{self.number}]"

    def _overwrite(self, text: str) -> None:
        print(f"\r{text:<{self._width}}\r{text}", end="", flush=True)
        self._width = len(text)


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds.

    Example:
        >>> clock(75), clock(3700)
        ('01:15', '1:01:40')
    """
    return tqdm.format_interval(seconds)
