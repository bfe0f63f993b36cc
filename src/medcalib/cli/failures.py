"""Tell the error of a command once, however many processes share its run."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from medcalib.errors import StoppedError, UserError

__all__ = ["FOLDER", "Failure", "in_several", "reported_failures", "tell", "tell_fault"]

FOLDER = "MEDCALIB_FAILURES"
"""Environment variable: the folder in which the processes of a launcher leave what they failed by."""

# how long to wait for the one that knows what is wrong, before saying that it is another one
_PAUSE = 1.0


class Failure(NamedTuple):
    """What a process failed by.

    Attributes:
        is_own: whether it is what is wrong, and not the end of another process or a request to stop.
        seconds: when.
        message: one line, or a traceback.
        code: exit code of the command.
    """

    is_own: bool
    seconds: float
    message: str
    code: int


def in_several() -> bool:
    """Whether this process is one of several; without asking torch, which takes long to import."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def tell(error: UserError) -> None:
    """Say what stopped a command, in one line to the standard error output; what others say already, is not repeated.

    Args:
        error: the error, with the exit code.
    """
    _tell(f"error: {' '.join(str(error).split())}", error.exit_code, not isinstance(error, StoppedError))


def tell_fault(error: BaseException) -> None:
    """Say by what fault of the program a command failed, with the traceback."""
    _tell("".join(traceback.format_exception(error)).rstrip(), 1, True)


def reported_failures(folder: Path) -> list[Failure]:
    """What the processes of a launcher failed by, those first that know what is wrong, and of these the earliest."""
    found = [Failure(*json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    return sorted(found, key=lambda failure: (not failure.is_own, failure.seconds))


def _tell(message: str, code: int, is_own: bool) -> None:
    if folder := os.environ.get(FOLDER):
        failure = Failure(is_own, time.time(), message, code)
        draft = Path(folder) / f"{os.getpid()}.draft"
        draft.write_text(json.dumps(failure), encoding="utf-8")
        draft.rename(draft.with_suffix(".json"))
        return
    if in_several():
        from medcalib.process_group import claimed

        if not is_own:
            time.sleep(_PAUSE)
        if not claimed("to tell the error"):
            return
    print(message, file=sys.stderr)
