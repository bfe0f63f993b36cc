"""Turn user errors of a command line into one sentence and exit code 2."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from medcalib.errors import UserError

__all__ = ["run_command"]


def run_command(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a command; on a `UserError` print its message to stderr and exit with code 2.

    With ``--help`` among the arguments of the program, Fire explains the command instead; it would otherwise take this
    for one more option where any are accepted.
    """
    if "--help" in sys.argv[1:] and "--" not in sys.argv:
        sys.argv[1:] = ["--", "--help"]
    try:
        return command(*args, **kwargs)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        # a thread of the pool that fills MONAI's caches aborts the interpreter if it still runs at its end
        for thread in threading.enumerate():
            if thread.name.endswith("(worker)"):
                thread.join()
        sys.exit(2)
