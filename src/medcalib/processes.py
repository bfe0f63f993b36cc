"""Name a process so that others can tell whether it still runs."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

from medcalib.errors import UserError

__all__ = ["has_ended", "process_name", "refuse_several_processes"]


def process_name() -> str:
    """A name of this process, of letters, digits and two hyphens: where it runs, its number, when it began.

    Example:
        >>> has_ended(process_name())
        False
    """
    return f"{_place()}-{os.getpid()}-{_start(os.getpid()) or 0}"


def has_ended(name: str) -> bool | None:
    """Whether the process of that name has ended; None where it cannot be known, as of processes of other machines.

    Example:
        >>> has_ended("ffffffff-1-1") is None
        True
    """
    place, _, rest = name.partition("-")
    pid, _, start = rest.partition("-")
    if place != _place() or not pid.isdecimal() or not start.isdecimal():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as somebody else
        pass
    # the number may have been given to another process since
    return (_start(int(pid)) or 0) != int(start)


def refuse_several_processes() -> None:
    """Refuse to be one of several processes that would all do the same work and write the same files.

    Raises:
        UserError: the environment says, as that of torchrun does, that there are several, but they do not share the
            run.
    """
    world_size = os.environ.get("WORLD_SIZE", "")
    if world_size.isdecimal() and int(world_size) > 1:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            return
        raise UserError(
            f"This run was started as one of {world_size} processes (WORLD_SIZE={world_size}), which would all train "
            f"the same into one folder; start it with --num_gpus, with torchrun run_bundle.py, or with "
            f"configs/multi_gpu.yaml as the last of its files, or unset WORLD_SIZE."
        )


@cache
def _place() -> str:
    """What two processes share that can see each other's numbers: the start of the machine, and the container."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]


def _start(pid: int) -> int | None:
    """When a process began, in ticks since the machine was started; None where it cannot be known."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        # the second field is the name of the program, which may hold anything
        fields = stat.rpartition(b")")[2].split()
        # of a process that was killed its parent may not have taken notice yet
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
