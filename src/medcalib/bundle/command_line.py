"""What the command lines share: options with the words of YAML, and user errors as one sentence and exit code 2."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from medcalib.errors import UserError

__all__ = ["run_command", "yaml_words"]

YAML_WORDS = {"null": None, "true": True, "false": False}


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


def yaml_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as Fire parsed them, with null, true, false and lists as they are in a configuration.

    Example:
        >>> yaml_words({"limit_cases": "null", "amp": "true", "data::patch_size": (16, 16)})
        {'limit_cases': None, 'amp': True, 'data::patch_size': [16, 16]}
    """
    return {name: _from_yaml(value) for name, value in options.items()}


def _from_yaml(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return YAML_WORDS.get(value, value) if isinstance(value, str) else value
