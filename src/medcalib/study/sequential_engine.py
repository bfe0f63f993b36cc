"""Run the runs of a study one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from medcalib.study.execution import KilledRunError, execute, may_begin
from medcalib.study.planned_runs import Plan, Run
from medcalib.study.progress_lines import ProgressLines
from medcalib.study.run_states import RunStates, State

__all__ = ["run_sequentially"]


def run_sequentially(
    plan: Plan, waiting: list[Run], output_dir: Path, time_left: Callable[[list[Run]], str | None]
) -> dict[str, State]:
    """Run what is not done yet, each in a process of its own; one that fails does not stop the others.

    Args:
        plan: all runs.
        waiting: those that are not done.
        output_dir: folder of the study.
        time_left: the time that runs will take, for people.

    Returns:
        State of every run by id.
    """
    states = dict.fromkeys(plan.runs, State.DONE)
    states |= {run.id: State.WAITING for run in waiting}
    noted = RunStates(output_dir)
    lines = ProgressLines(noted, len(waiting))
    for number, run in enumerate(waiting, start=1):
        if may_begin(run, states):
            lines.begin(run)
            try:
                states[run.id] = execute(run, plan.runs, output_dir, watch=partial(lines.show, [run]))
            except KilledRunError:
                states[run.id] = State.FAILED
        else:
            states[run.id] = State.NOT_RUN
            noted.write(run, State.NOT_RUN)
        lines.end(run, states[run.id], time_left(waiting[number:]))
    return states
