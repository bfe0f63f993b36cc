"""Turn user errors of a command line into one sentence and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from medcalib.errors import UserError

__all__ = ["run_command"]


def run_command(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a command; on a `UserError` print its message to stderr and exit with code 2."""
    try:
        return command(*args, **kwargs)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
