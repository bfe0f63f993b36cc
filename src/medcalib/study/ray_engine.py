"""Run the runs of a study with Ray, several at a time, on one machine or on a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medcalib.errors import UserError, plain_reason
from medcalib.study.execution import PATIENCE, KilledRunError, execute
from medcalib.study.planned_runs import Plan, Run
from medcalib.study.progress_lines import ProgressLines
from medcalib.study.run_states import RunStates, State

__all__ = ["load_ray", "run_with_ray"]

RETRIES = 3
INTERVAL = 1.0
# runs hand over their states only
_STORE_BYTES = 80 * 2**20
_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


def load_ray() -> Any:
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray needs Ray, which is not installed; pip install 'medcalib[study]', or leave --engine out."
        ) from None
    return ray


def run_with_ray(
    plan: Plan,
    waiting: list[Run],
    output_dir: Path,
    address: str | None = None,
    gpus_per_run: float = 1.0,
    cpus_per_run: int = 1,
) -> dict[str, State]:
    """Run what is not done yet, as many runs at a time as there are GPUs, or CPUs where there is no GPU.

    A run whose worker or process is killed is tried again; a training goes on after its last whole epoch.

    Args:
        plan: all runs.
        waiting: those that are not done.
        output_dir: folder of the study, which all machines see under the same path.
        address: address of a cluster; None starts Ray on this machine, or uses what RAY_ADDRESS names.
        gpus_per_run: GPUs of a run, where there are GPUs; may be a fraction.
        cpus_per_run: CPUs of a run, and threads that it uses.

    Returns:
        State of every run by id.

    Raises:
        UserError: Ray is not installed, cannot be reached, or has less than a run needs.
    """
    ray = load_ray()
    states = dict.fromkeys(plan.runs, State.DONE)
    noted = RunStates(output_dir)
    lines = ProgressLines(noted, len(waiting))
    with _connected(ray, address):
        resources = _resources(ray.cluster_resources(), gpus_per_run, cpus_per_run)
        task = ray.remote(max_retries=RETRIES, retry_exceptions=[KilledRunError], **resources)(_task)
        references: dict[str, Any] = {}
        environment = {name: os.environ.get(name, str(cpus_per_run)) for name in _THREADS}
        folder = Path.cwd()
        for run in waiting:
            needed = [references[id_] for id_ in run.needs if id_ in references]
            after = [references[run.after]] if run.after in references else []
            runs = {id_: plan.runs[id_] for id_ in _all_needs(plan, run)}
            references[run.id] = task.remote(run, runs, output_dir, folder, environment, len(needed), *needed, *after)
        running = {reference: id_ for id_, reference in references.items()}
        try:
            while running:
                done, _ = ray.wait(list(running), timeout=INTERVAL)
                begun = [
                    run for run in (plan.runs[id_] for id_ in running.values()) if noted.noted(run) is State.RUNNING
                ]
                lines.show(begun)
                for reference in done:
                    run = plan.runs[running.pop(reference)]
                    states[run.id] = _outcome(ray, reference, run, output_dir)
                    lines.end(run, states[run.id])
        except BaseException:
            _stop(ray, list(running))
            raise
    return states


def _task(
    run: Run,
    runs: dict[str, Run],
    output_dir: Path,
    folder: Path,
    environment: dict[str, str],
    num_needed: int,
    *before: State,
) -> State:
    """What a worker does when the runs before have ended."""
    os.chdir(folder)
    if any(state is not State.DONE for state in before[:num_needed]):
        RunStates(output_dir).write(run, State.NOT_RUN)
        return State.NOT_RUN
    return execute(run, runs, output_dir, environment, folder=folder)


def _outcome(ray: Any, reference: Any, run: Run, output_dir: Path) -> State:
    try:
        return State(ray.get(reference))
    except ray.exceptions.RayError as error:
        RunStates(output_dir).write(run, State.FAILED, error=plain_reason(error))
        log = RunStates(output_dir).log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n{error}\n")
        return State.FAILED


def _resources(cluster: dict[str, float], gpus_per_run: float, cpus_per_run: int) -> dict[str, float]:
    gpus = cluster.get("GPU", 0)
    wanted = {"num_cpus": float(cpus_per_run), "num_gpus": gpus_per_run if gpus else 0.0}
    for name, there in (("num_cpus", cluster.get("CPU", 0)), ("num_gpus", gpus)):
        if wanted[name] > there:
            option = f"--{name.removeprefix('num_')}_per_run"
            raise UserError(f"{option} {wanted[name]:g} is more than the {there:g} that Ray has; ask for less.")
    return wanted


def _all_needs(plan: Plan, run: Run) -> list[str]:
    found: dict[str, None] = {}
    for id_ in run.needs:
        found |= dict.fromkeys([*_all_needs(plan, plan.runs[id_]), id_])
    return list(found)


def _stop(ray: Any, references: list[Any]) -> None:
    """Ask the runs to end, and wait until they have."""
    for reference in references:
        ray.cancel(reference)
    deadline = time.monotonic() + PATIENCE
    while references and time.monotonic() < deadline:
        _, references = ray.wait(references, num_returns=len(references), timeout=INTERVAL)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    # what is there already has its own settings
    of_own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            **({} if address or "RAY_ADDRESS" in os.environ else of_own),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"Ray cannot be reached at {address or 'this machine'}: {plain_reason(error)}.") from None
    try:
        yield
    finally:
        ray.shutdown()
