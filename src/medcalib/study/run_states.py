"""What is known of the runs of a study: which are done, and how far the others are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from medcalib.bundle.layout import Mode
from medcalib.errors import UserError
from medcalib.files.writing import read_json, write_json
from medcalib.study.planned_runs import Run, short_digest

__all__ = ["Progress", "RunStates", "State", "is_done", "mark_done", "progress_in"]

RECORDS = "study"
_TAIL = 4000
_EPOCH = re.compile(r"^\w[\w ]*: epoch (\d+)/(\d+).*, ([\d:?]+) left", re.MULTILINE)


class State(StrEnum):
    """State of a run."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    NOT_RUN = "not run"
    """A run that it needs failed."""
    STOPPED = "stopped"
    """The study was stopped while it ran; it goes on when the study does."""


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: number of whole epochs.
        epochs: number of epochs of all.
        left: the time left, as its log has it.
    """

    epoch: int
    epochs: int
    left: str


class RunStates:
    """States of the runs, as files in the folder of the study.

    Args:
        output_dir: folder of the study.
    """

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / "runs"
        self.logs = output_dir / "logs"

    def log(self, run: Run) -> Path:
        """The log of a run."""
        return self.logs / f"{run.id}.log"

    def write(self, run: Run, state: State, **details: Any) -> None:
        """Note the state of a run."""
        write_json(self.folder / f"{run.id}.json", {"state": str(state), "digest": run.digest, **details})

    def read(self, run: Run, runs: Mapping[str, Run]) -> State:
        """The state of a run."""
        if is_done(run, runs):
            return State.DONE
        noted = self.noted(run)
        # its results are not what they were
        return State.WAITING if noted is State.DONE else noted

    def noted(self, run: Run) -> State:
        """The state that was noted of a run; with other settings it counts for nothing."""
        try:
            noted = read_json(self.folder / f"{run.id}.json", "")
            state = State(noted["state"])
        except (UserError, KeyError, ValueError):
            return State.WAITING
        return state if noted.get("digest") == run.digest else State.WAITING


def progress_in(log: Path) -> Progress | None:
    r"""How far a training is according to its log; None before its first epoch.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder, "a.log")
        ...     _ = log.write_text("training: epoch 2/20, loss 0.7, 01:30 left\n")
        ...     progress_in(log)
        Progress(epoch=2, epochs=20, left='01:30')
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    # what an earlier attempt wrote says nothing of this one
    found = _EPOCH.findall(text.rpartition("\n$ ")[2])
    return Progress(int(found[-1][0]), int(found[-1][1]), found[-1][2]) if found else None


def is_done(run: Run, runs: Mapping[str, Run]) -> bool:
    """Whether the results of a run lie there as it left them, made from what the runs that it needs left.

    Args:
        run: the run.
        runs: all runs by id.
    """
    path = _record(run)
    if not path.exists():
        return False
    try:
        record = read_json(path, "")
    except UserError:
        return False
    if record.get("run") != run.digest or not record.get("results"):
        return False
    if not all(is_done(runs[id_], runs) for id_ in run.needs):
        return False
    return record.get("inputs") == _inputs(run, runs) and record["results"] == _results(run)


def mark_done(run: Run, runs: Mapping[str, Run]) -> None:
    """Record what a run left, beside it.

    Raises:
        UserError: it left nothing, or the record cannot be written.
    """
    results = _results(run)
    if not results:
        raise UserError(f"{run.title} ended without results in {run.output_dir}.")
    write_json(_record(run), {"run": run.digest, "inputs": _inputs(run, runs), "results": results})


def _record(run: Run) -> Path:
    return run.output_dir / RECORDS / f"{run.mode}.json"


def _inputs(run: Run, runs: Mapping[str, Run]) -> dict[str, str | None]:
    """Digest of what each run left that this one needs."""
    found: dict[str, str | None] = {}
    for id_ in run.needs:
        try:
            found[id_] = short_digest(read_json(_record(runs[id_]), "")["results"], 64)
        except (UserError, KeyError):
            found[id_] = None
    return found


def _results(run: Run) -> dict[str, str]:
    """Digest of every file that decides what follows from a run."""
    return {
        path.relative_to(run.output_dir).as_posix(): _file_digest(path, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(_deciding_files(run))
    }


@cache
def _file_digest(path: Path, _size: int, _time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _deciding_files(run: Run) -> Iterator[Path]:
    if run.mode is Mode.TRAIN:
        # the checkpoint, too: whether a training is finished stands there
        yield from (run.output_dir / "models").glob("[!.]*.pt")
    elif run.mode is Mode.INFERENCE_EVAL:
        for pattern in ("*.json", "*.csv", "*.npz"):
            yield from (run.output_dir / "evaluation").glob(f"[!.]{pattern}")
    else:
        yield from (run.output_dir / "predictions").glob("[!.]*.json")
        yield from (run.output_dir / "predictions").glob("[!.]*.csv")
