"""What the command lines share: every option as its function declares it, and user errors as one sentence."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import typing
from collections.abc import Callable
from types import NoneType
from typing import Any

import fire

from medcalib.bundle.option_values import override_values, read_switch, read_text, read_value
from medcalib.errors import UserError

__all__ = ["run_command", "typed_options"]


def run_command(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a command; on a `UserError` print its message to stderr and exit with code 2.

    With ``--help`` among the arguments of the program, Fire explains the command instead; it would otherwise take this
    for one more option where any are accepted.
    """
    if "--help" in sys.argv[1:] and "--" not in sys.argv:
        sys.argv[1:] = ["--", "--help"]
    for stream in (sys.stdout, sys.stderr):
        # a file name that is no UTF-8 must not keep a message from being printed
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return command(*args, **kwargs)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        # a thread of the pool that fills MONAI's caches aborts the interpreter if it still runs at its end
        for thread in threading.enumerate():
            if thread.name.endswith("(worker)"):
                thread.join()
        sys.exit(2)


def typed_options(main: Callable[..., Any]) -> Callable[..., Any]:
    """Let Fire hand over what was typed, and read each option as the function's annotation says.

    Fire itself guesses: it takes the case 007 for a number and the word false for a text, which is true. A ``str`` is
    kept letter by letter, a ``bool`` is read from true, false and the like, any other value as YAML has it. What the
    function takes as ``**overrides`` are values by configuration id.

    Args:
        main: function of a command line, all of whose parameters have annotations.

    Example:
        >>> @typed_options
        ... def main(bundle: str = "", debug: bool = False, **overrides):
        ...     return bundle, debug, overrides
        >>> fire.Fire(main, ["--bundle=20240131", "--debug=false", "--num_bins=5"], serialize=lambda result: None)
        ('20240131', False, {'num_bins': 5})
    """
    hints = typing.get_type_hints(main)
    signature = inspect.signature(main)
    named = {name for name, parameter in signature.parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}

    @functools.wraps(main)
    def command(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs).arguments
        values = {name: _read(name, value, hints[name]) for name, value in bound.items() if name in named}
        further = [value for name, value in bound.items() if name not in named]
        return main(**values, **override_values(further[0] if further else {}))

    return fire.decorators.SetParseFn(str)(command)


def _read(name: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, str):
        return value
    accepted = set(typing.get_args(hint) or (hint,))
    if accepted <= {str, NoneType}:
        return read_text(name, value)
    if accepted == {bool}:
        return read_switch(name, value)
    return read_value(name, value)
