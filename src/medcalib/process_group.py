"""Be one of several processes that share a run, as ``torchrun`` or ``--num_gpus`` start them.

The environment says so: ``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``. Once the group is
joined, ``torch.distributed`` and with it ``ignite.distributed`` know rank and number of processes.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from medcalib.errors import StoppedError, UserError

__all__ = [
    "PeerLostError",
    "check_agreement",
    "claimed",
    "code_digest",
    "first_decides",
    "is_first",
    "is_not_first",
    "is_peer_loss",
    "join_group",
    "joined_group",
    "num_processes",
    "process_rank",
]

JOIN_SECONDS = "MEDCALIB_JOIN_SECONDS"
"""Environment variable: for how many seconds processes wait for each other as they begin; 300 when unset."""

# the first process may fit a calibrator, or wait for another run, while the others wait for it
_PATIENCE = timedelta(days=7)
_LOST = re.compile(
    r"connection (was )?(closed|reset)|broken pipe|gloo|NCCL|socket|connection refused|recvVal", re.IGNORECASE
)
_ENDED = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe", re.IGNORECASE)
_NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")

Value = TypeVar("Value")


class PeerLostError(StoppedError):
    """This process stopped because another one of the run ended, which is what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.exit_code = 1


def num_processes() -> int:
    """How many processes share the run; 1 where there is no group, and none was asked for.

    Example:
        >>> num_processes(), process_rank(), is_first()
        (1, 0, True)
    """
    return dist.get_world_size() if _joined() else _wanted()


def process_rank() -> int:
    """Number of this process among those of the run, from 0."""
    if _joined():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0")) if _wanted() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes and tells what all of them found; true where it is alone."""
    return process_rank() == 0


def is_not_first() -> bool:
    """Whether another process writes and tells; for configurations, in which ``not`` is no component."""
    return not is_first()


@contextmanager
def joined_group(device: str | None = None) -> Iterator[None]:
    """Join the processes of the run, if there are several, and leave them at the end.

    On GPUs each process has its own, that of its ``LOCAL_RANK``, and `torch.cuda.current_device` is that one. What the
    first process prints to the standard output is printed, what the others print is not.

    Args:
        device: as the user gave it; when None, GPUs if there are any.

    Raises:
        UserError: the environment says only half of what it must, ``device`` is one GPU for all, not all processes
            came within `JOIN_SECONDS`, or one of them ended.

    Example:
        >>> with joined_group():
        ...     num_processes()
        1
    """
    if _wanted() == 1 or _joined():
        yield
        return
    join_group(device)
    try:
        with ExitStack() as stack:
            if not is_first():
                stack.enter_context(redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
            yield
    except BaseException as error:
        # who takes leave of others would wait for one that failed
        atexit.unregister(leave_group)
        if isinstance(error, Exception) and not isinstance(error, UserError) and is_peer_loss(error):
            raise PeerLostError("Another process of this run ended; give the same command again to go on.") from None
        raise
    leave_group()


def join_group(device: str | None = None) -> None:
    """Join the processes of the run until this one ends, unless it is alone or has joined them; as `joined_group`."""
    if _wanted() == 1 or _joined():
        return
    if missing := [name for name in _NEEDED if not os.environ.get(name)]:
        raise UserError(
            f"This is one of {_wanted()} processes (WORLD_SIZE={_wanted()}), but {', '.join(missing)} is not set; "
            f"start them with --num_gpus or torchrun, or unset WORLD_SIZE."
        )
    backend = _choose_gpu(device)
    seconds = _join_seconds()
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=seconds)))
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Not all of the {_wanted()} processes of this run met at {where} within {seconds:g} seconds "
            f"({_reason(error)}); start all of them, let MASTER_ADDR, MASTER_PORT and WORLD_SIZE be the same for all, "
            f"and raise {JOIN_SECONDS} where they need longer."
        ) from None
    store.set_timeout(_PATIENCE)
    try:
        dist.init_process_group(
            backend, store=dist.PrefixStore("medcalib", store), rank=rank, world_size=size, timeout=_PATIENCE
        )
    except RuntimeError as error:
        # all of them have met, so one has ended since
        if _ENDED.search(str(error)):
            raise PeerLostError("Another process of this run ended; give the same command again to go on.") from None
        raise
    atexit.register(leave_group)


def leave_group() -> None:
    """Leave the group; nothing where none was joined."""
    if _joined():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dist.destroy_process_group()


def first_decides(work: Callable[[], Value]) -> Value:
    """Let the first process do some work, and give its result to all of them.

    Args:
        work: its result can be pickled.

    Example:
        >>> first_decides(lambda: 3)
        3
    """
    result = [work() if is_first() else None]
    if _joined():
        dist.broadcast_object_list(result, src=0)
    return result[0]  # type: ignore[return-value]  # that of the first process


def check_agreement(values: Mapping[str, object]) -> None:
    """Check that all processes were started alike.

    Args:
        values: what must be equal, by what it is called in messages.

    Raises:
        UserError: a process has another value than the first one; in all processes.
    """
    if not _joined():
        return
    of_all: list[dict[str, str]] = [{}] * num_processes()
    dist.all_gather_object(of_all, {name: str(value) for name, value in values.items()})
    for rank, found in enumerate(of_all):
        for name, value in of_all[0].items():
            if found.get(name) != value:
                raise UserError(
                    f"The processes of this run differ in their {name}: {value} in process 0, {found.get(name)} in "
                    f"process {rank}; start all of them with the same command, bundle and version of medcalib."
                )


@cache
def code_digest() -> str:
    """Digest of the source files of this package."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def claimed(what: str) -> bool:
    """Whether this process is the first one to ask for something, such as telling an error; true where it is alone."""
    if not _joined():
        return True
    name = f"claimed {hashlib.sha256(what.encode()).hexdigest()}"
    try:
        return dist.distributed_c10d._get_default_store().add(name, 1) == 1
    except (dist.DistError, RuntimeError):  # who keeps the store has ended
        return is_first()


def is_peer_loss(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, says that another process of the run is gone."""
    if num_processes() == 1:
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, dist.DistError) or (type(cause) is RuntimeError and _LOST.search(str(cause))):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _wanted() -> int:
    """How many processes the environment asks for."""
    size = os.environ.get("WORLD_SIZE", "")
    return int(size) if size.isdecimal() and int(size) > 0 else 1


def _choose_gpu(device: str | None) -> str:
    """Take the GPU of this process, and name the backend by which processes speak with each other."""
    if device is not None and re.fullmatch(r"cuda:\d+", str(device)):
        raise UserError(
            f"--device={device} is one GPU, but {_wanted()} processes share this run; leave --device out, and choose "
            f"GPUs with CUDA_VISIBLE_DEVICES."
        )
    if str(device) == "cpu" or not torch.cuda.is_available():
        return "gloo"
    # where a scheduler shows each process its own GPU only, that one is number 0
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % torch.cuda.device_count())
    return "nccl"


def _join_seconds() -> float:
    text = os.environ.get(JOIN_SECONDS) or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise UserError(f"{JOIN_SECONDS} must be a number of seconds above 0, not {text!r}.")
    return seconds


def _reason(error: BaseException) -> str:
    """The first sentence of what torch says, without where in its code it says so."""
    text = re.sub(r"^\[.*?\]:?\s*", "", str(error).strip().partition("\n")[0])
    return text.partition(". Exception raised")[0].rstrip(". ") or type(error).__name__
