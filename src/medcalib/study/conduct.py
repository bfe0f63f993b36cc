"""Conduct a study: plan, run, compare."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medcalib.bundle.layout import Mode
from medcalib.errors import StoppedError, UserError, suggestion
from medcalib.files.locks import locked_folder
from medcalib.files.writing import read_json, write_json
from medcalib.study.estimates import Measured, check_disk, disk_needed, measured_runs, seconds_needed, size
from medcalib.study.expansion import expand
from medcalib.study.placing import place_bundles
from medcalib.study.planned_runs import Plan, Run
from medcalib.study.progress_lines import clock
from medcalib.study.ray_engine import load_ray, run_with_ray
from medcalib.study.run_states import RunStates, State, is_done, progress_in
from medcalib.study.sequential_engine import run_sequentially
from medcalib.study.study_file import Study, read_study
from medcalib.study.study_report import write_report

__all__ = ["ENGINES", "FailedRunsError", "conduct", "plan_text", "planned", "print_plan", "status_text"]

ENGINES = ("sequential", "ray")
BEGUN = "study.json"
_REFUSAL = "This study is being run already, in {folder}; wait for it, or see how far it is with --status."


class FailedRunsError(UserError):
    """Runs of a study failed; the message names them and their logs."""

    exit_code = 1


def conduct(
    file: str | Path,
    *,
    engine: str = "sequential",
    address: str | None = None,
    gpus_per_run: float = 1.0,
    cpus_per_run: int = 1,
    output_dir: str | Path | None = None,
    bundles_dir: str | Path = "bundles",
) -> Path:
    """Run what a study lacks, and write its report.

    Args:
        file: the study file.
        engine: ``sequential`` or ``ray``.
        address: address of a cluster of Ray.
        gpus_per_run: GPUs of a run with Ray; may be a fraction.
        cpus_per_run: CPUs of a run with Ray.
        output_dir: folder of logs and report; ``studies_output/<name of the study>`` when None.
        bundles_dir: folder of the bundles.

    Returns:
        The page of the report.

    Raises:
        UserError: the study cannot be run as it is given.
        FailedRunsError: runs failed; the report on the others is written where that is possible.
        StoppedError: it was stopped, and goes on when it is called again.
    """
    _check_options(engine, address, gpus_per_run, cpus_per_run)
    if engine == "ray":
        load_ray()
    study, plan, output = planned(file, output_dir, bundles_dir)
    bundles = Path(bundles_dir)
    waiting = print_plan(plan, bundles)
    with locked_folder(output, refusal=_REFUSAL):
        _begin(study, output)
        place_bundles(plan, bundles)
        noted = RunStates(output)
        for run in waiting:
            noted.write(run, State.WAITING)
        try:
            if engine == "ray":
                states = run_with_ray(plan, waiting, output, address, gpus_per_run, cpus_per_run)
            else:
                states = run_sequentially(plan, waiting, output, lambda left: _time_left(left, bundles))
        except KeyboardInterrupt as stop:
            raise StoppedError.by(stop, "the same command goes on with the study") from None
        page = write_report(study, plan, states, output, _command(file, output_dir, bundles_dir))
    failed = [plan.runs[id_] for id_, state in states.items() if state is State.FAILED]
    if failed:
        raise FailedRunsError(_failures(failed, states, noted, page))
    if page is None:
        raise UserError(f"The study {study.name} has nothing to compare.")
    return page


def planned(
    file: str | Path, output_dir: str | Path | None = None, bundles_dir: str | Path = "bundles"
) -> tuple[Study, Plan, Path]:
    """A study, its runs, and its folder; nothing is written.

    Raises:
        UserError: the file, or what it names, cannot be.
    """
    study = read_study(file)
    return study, expand(study, Path(bundles_dir)), Path(output_dir or Path("studies_output", study.name))


def print_plan(plan: Plan, bundles_dir: Path) -> list[Run]:
    """Print what will be run, and return it.

    Raises:
        UserError: the disk is too small for it.
    """
    measured = measured_runs(bundles_dir)
    waiting = [run for run in plan.runs.values() if not is_done(run, plan.runs)]
    print(plan_text(plan, waiting, measured, bundles_dir), flush=True)
    check_disk(bundles_dir, disk_needed(waiting, measured).total)
    return waiting


def plan_text(plan: Plan, waiting: Sequence[Run], measured: Sequence[Measured], bundles_dir: Path) -> str:
    """What will be run, what it will take, and what is done already."""
    left = {run.id for run in waiting}
    lines = [f"{len(plan.evaluated)} to compare, with {plan.reference} as the reference:"]
    lines += [f"  {name}" for name in plan.evaluated]
    lines.append(f"{len(plan.runs)} runs, of which {len(plan.runs) - len(left)} are done:")
    for word, chosen in _kinds(plan):
        waits = sum(run.id in left for run in chosen)
        lines.append(f"  {len(chosen):>4} {word}{'' if waits == len(chosen) else f', {waits} of them to do'}")
    if waiting:
        disk, seconds = disk_needed(waiting, measured), seconds_needed(waiting, measured)
        lines.append(f"disk: {_told(disk.num_known, disk.num_unknown, size(disk.total))} in {bundles_dir}")
        lines.append(
            f"time: {_told(seconds.num_known, seconds.num_unknown, clock(seconds.total))}, one run after the other"
        )
    return "\n".join(lines)


def status_text(plan: Plan, output_dir: Path) -> str:
    """A table of the runs and their states."""
    noted, is_running = RunStates(output_dir), _is_locked(output_dir)
    rows = []
    for run in plan.runs.values():
        state, told = noted.read(run, plan.runs), ""
        if state is State.RUNNING and not is_running:
            state = State.STOPPED
        if state in (State.RUNNING, State.STOPPED) and (progress := progress_in(noted.log(run))):
            told = f"epoch {progress.epoch}/{progress.epochs}"
            told += f", {progress.left} left" if state is State.RUNNING else ""
        if state is State.FAILED:
            told = str(noted.log(run))
        rows.append({"run": run.title, "state": str(state), "": told})
    counted = Counter(row["state"] for row in rows)
    rows.insert(0, {"run": "run", "state": "state", "": ""})
    widths = {name: max(len(row[name]) for row in rows) for name in rows[0]}
    lines = ["  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip() for row in rows]
    return "\n".join([*lines, ", ".join(f"{number} {state}" for state, number in counted.items())])


def _kinds(plan: Plan) -> list[tuple[str, list[Run]]]:
    runs = list(plan.runs.values())
    return [
        ("trainings", [run for run in runs if run.trains_network]),
        ("fits of calibrators", [run for run in runs if run.mode is Mode.TRAIN and not run.trains_network]),
        ("evaluations", [run for run in runs if run.mode is Mode.INFERENCE_EVAL]),
        ("predictions", [run for run in runs if run.mode is Mode.INFERENCE_PRED]),
    ]


def _told(num_known: int, num_unknown: int, total: str) -> str:
    if not num_known:
        return "unknown, since nothing like it was measured yet"
    if not num_unknown:
        return f"about {total}"
    return f"about {total} for {num_known} runs, unknown for {num_unknown} like which nothing was measured yet"


def _time_left(waiting: list[Run], bundles_dir: Path) -> str | None:
    seconds = seconds_needed(waiting, measured_runs(bundles_dir))
    return None if seconds.num_unknown else clock(seconds.total)


def _check_options(engine: str, address: str | None, gpus_per_run: float, cpus_per_run: int) -> None:
    if engine not in ENGINES:
        raise UserError(f"--engine {engine!r} is unknown{suggestion(engine, ENGINES, list_all=True)}")
    if address is not None and engine != "ray":
        raise UserError("--address is that of a cluster of Ray, so it needs --engine ray.")
    for option, value, kinds in (("gpus", gpus_per_run, int | float), ("cpus", cpus_per_run, int)):
        if not isinstance(value, kinds) or isinstance(value, bool) or not value > 0:
            raise UserError(f"--{option}_per_run must be a number above 0, not {value!r}.")
    if gpus_per_run > 1 and gpus_per_run % 1:
        raise UserError(f"--gpus_per_run must be a whole number or below 1, not {gpus_per_run}.")


def _begin(study: Study, output_dir: Path) -> None:
    """Say what is not as it was when the study was run before."""
    path = output_dir / BEGUN
    if path.exists():
        before = read_json(path, "delete it; it only says what the study was when it was last run")
        for key, value in study.content.items():
            then: Any = before.get("study", {}).get(key)
            if then != value:
                print(f"{study.name} was begun with {key}: {then}, now it is {value}; earlier results are kept.")
    write_json(path, {"digest": study.digest, "study": study.content})


def _is_locked(output_dir: Path) -> bool:
    if not output_dir.is_dir():
        return False
    try:
        with locked_folder(output_dir):
            return False
    except UserError:
        return True


def _failures(failed: list[Run], states: dict[str, State], noted: RunStates, page: Path | None) -> str:
    logs = "; ".join(f"{run.title} ({noted.log(run)})" for run in failed)
    not_run = sum(state is State.NOT_RUN for state in states.values())
    told = f"{len(failed)} of {len(states)} runs failed, see their logs: {logs}"
    if not_run:
        told += f"; {not_run} that need them were not run"
    told += "; there is no report" if page is None else f"; the report on the others is {page}"
    return f"{told}; the same command tries them again."


def _command(file: str | Path, output_dir: str | Path | None, bundles_dir: str | Path) -> str:
    words = ["medcalib", "study", str(file)]
    words += [f"--output_dir={output_dir}"] if output_dir is not None else []
    words += [f"--bundles_dir={bundles_dir}"] if str(bundles_dir) != "bundles" else []
    return shlex.join(words)
