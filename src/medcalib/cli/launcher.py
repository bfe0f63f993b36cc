"""Start a run on several processes with torchrun's agent, and say in one sentence what one of them failed by."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medcalib.cli.failures import FOLDER, reported_failures
from medcalib.errors import StoppedError, Terminated, UserError

__all__ = ["check_number", "launch", "quiet_connections"]

# seconds that processes have to end by themselves when one has failed
_PATIENCE = "10"
_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"


def quiet_connections() -> None:
    """Let torch say nothing of connections that end with a process, which the error of the run says in one sentence.

    Torch reads this as it is imported, so it has an effect before that only, and in processes that are started. A level
    that the user has set stays.
    """
    os.environ.setdefault(_LOG_LEVEL, "ERROR")


def check_number(num_gpus: Any, device: str | None) -> None:
    """Check that there are so many GPUs, where a run is to use GPUs.

    Args:
        num_gpus: as it was typed.
        device: as it was typed; None where it was left out.

    Raises:
        UserError: it is no number of processes, there are fewer GPUs, or the device is one of them.
    """
    if not isinstance(num_gpus, int) or isinstance(num_gpus, bool) or num_gpus < 1:
        raise UserError(f"--num_gpus must be a whole number from 1, not {num_gpus!r}.")
    import torch

    if num_gpus > 1 and str(device).startswith("cuda:"):
        raise UserError(
            f"--device={device} is one GPU and --num_gpus={num_gpus} are several; leave one of them out, and choose "
            f"GPUs with CUDA_VISIBLE_DEVICES."
        )
    there = torch.cuda.device_count() if torch.cuda.is_available() and str(device) != "cpu" else 0
    if there and num_gpus > there:
        raise UserError(
            f"--num_gpus is {num_gpus}, but this machine has {there} GPU{'s' if there > 1 else ''}; give a number "
            f"up to {there}."
        )


def launch(module: str, options: Mapping[str, Any], number: int) -> None:
    """Run a module in several processes of this machine until all have ended, or one has failed.

    They are processes of torchrun. When one fails, the others are stopped within seconds.

    Args:
        module: run as ``python -m``, with the options as one word of JSON.
        options: what the processes are to do.
        number: of processes.

    Raises:
        UserError: what one of them failed by.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from medcalib.study.ends_with_parent import command

    # each of its loggers has a level of its own; nothing else logs in this process, which only waits
    logging.disable(logging.CRITICAL)
    words = command([sys.executable, "-m", module, json.dumps(options)])
    with tempfile.TemporaryDirectory(prefix="medcalib_") as folder, _environment(folder, number):
        logs = Path(folder) / "logs"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            local_addr="localhost",
            signals_to_handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
            logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
        )
        try:
            elastic_launch(config, words[0])(*words[1:])
        except ChildFailedError as error:
            killed = {rank: failure.signal_name() for rank, failure in error.failures.items() if failure.exitcode < 0}
            raise _failure(Path(folder), killed, number) from None
        except SignalException as stop:
            raise _stopped(Path(folder), stop.sigval) from None
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def _environment(folder: str, number: int) -> Iterator[None]:
    """What the processes are told; threads are divided unless the user said how many each process has."""
    import torch

    before = dict(os.environ)
    os.environ[FOLDER] = folder
    quiet_connections()
    os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = _PATIENCE
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // number)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _failure(folder: Path, killed: Mapping[int, str], number: int) -> UserError:
    found = reported_failures(folder)
    if found and found[0].is_own:
        return _as_error(found[0].message, found[0].code)
    advice = found[0].message.partition("; ")[2] if found else "give the same command again to go on."
    # those that are stopped after another one has ended are killed only if they do not stop by themselves
    rank, name = next(iter(killed.items()), (None, ""))
    what = "One process" if rank is None else f"Process {rank}"
    how = f"was killed ({name})" if name else "ended without saying why"
    return _as_error(f"{what} of {number} {how}, so the others were stopped; {advice}", 1)


def _stopped(folder: Path, number: signal.Signals) -> UserError:
    found = reported_failures(folder)
    if found and found[0].is_own:
        return _as_error(found[0].message, found[0].code)
    stop = KeyboardInterrupt() if number is signal.SIGINT else Terminated(number)
    advice = found[0].message.partition("; ")[2].rstrip(".") if found else "give the same command again to go on"
    return StoppedError.by(stop, advice)


def _as_error(message: str, code: int) -> UserError:
    error = UserError(message.removeprefix("error: "))
    error.exit_code = code
    return error
