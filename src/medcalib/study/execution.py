"""Execute one run in a process of its own, with a log, and note how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from medcalib.study.ends_with_parent import command
from medcalib.study.planned_runs import Run
from medcalib.study.run_states import RunStates, State, is_done, mark_done

__all__ = ["KilledRunError", "execute", "may_begin"]

INTERVAL = 0.5
PATIENCE = 60
"""Seconds after which a run that was asked to end is killed."""


class KilledRunError(RuntimeError):
    """A run was killed from outside, by lack of memory for example; it may be tried again."""


def may_begin(run: Run, states: Mapping[str, State]) -> bool:
    """Whether all is done that a run needs."""
    return all(states.get(id_) is State.DONE for id_ in run.needs)


def execute(
    run: Run,
    runs: Mapping[str, Run],
    output_dir: Path,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> State:
    """Execute a run, unless it is done.

    Args:
        run: the run.
        runs: all runs by id.
        output_dir: folder of the study.
        environment: what is added to the environment of the process.
        watch: called about twice a second while it runs.
        folder: folder in which it runs; the current one when None.

    Returns:
        Done or failed.

    Raises:
        KilledRunError: something killed the process.
    """
    states = RunStates(output_dir)
    if is_done(run, runs):
        return State.DONE
    log = states.log(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    states.write(run, State.RUNNING)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ {run.typed}\n")
        file.flush()
        code = _finish(run, file.fileno(), environment, watch, folder, lambda: states.write(run, State.STOPPED))
    if code < 0:
        states.write(run, State.FAILED, killed_by=-code)
        raise KilledRunError(f"{run.title} was killed by {signal.Signals(-code).name}")
    if code == 0:
        mark_done(run, runs)
    state = State.DONE if code == 0 else State.FAILED
    states.write(run, state, exit_code=code)
    return state


def _finish(
    run: Run,
    log: int,
    environment: Mapping[str, str] | None,
    watch: Callable[[], None] | None,
    folder: Path | None,
    stopped: Callable[[], None],
) -> int:
    """Run the process to its end, which comes soon when this process is asked to end."""
    process = subprocess.Popen(
        command(run.command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        # Ctrl-C is for this process, which asks the other one to end
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            if watch is not None:
                watch()
            try:
                process.wait(INTERVAL)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        process.terminate()
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
        stopped()
        raise
    return process.returncode
