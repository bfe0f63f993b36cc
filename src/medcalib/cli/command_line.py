"""What the command lines share: every option as its function declares it, and user errors as one sentence."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import NoneType
from typing import Any, NoReturn

import fire

from medcalib.bundle.option_values import override_values, read_switch, read_text, read_value
from medcalib.errors import StoppedError, Terminated, UserError, environment_message

__all__ = ["run_command", "typed_options"]

# Fire's help lists what it keeps at a function as a command of its own, unless the name is private
fire.decorators.FIRE_METADATA = "__fire_metadata__"

# seconds after which a signal that Python swallowed is sent once more
AGAIN = 0.05


def run_command(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a command; when it fails for a reason that can be mended, print one sentence to stderr and exit with a code.

    The code is 2 for a `UserError`, a disk that is full or not writable, and lack of memory; 130 after Ctrl-C; 143
    after SIGTERM.

    With ``--help`` among the arguments of the program, Fire explains the command instead; it would otherwise take this
    for one more option where any are accepted.
    """
    if "--help" in sys.argv[1:] and "--" not in sys.argv:
        sys.argv[1:] = ["--", "--help"]
    for stream in (sys.stdout, sys.stderr):
        # a file name that is no UTF-8 must not keep a message from being printed
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # of a full disk that keeps a line from the log, a sentence tells, and not a traceback for every line
    logging.raiseExceptions = False
    try:
        with _stoppable():
            return command(*args, **kwargs)
    except UserError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        error = StoppedError.by(stop, "give the same command again to go on")
        _end(str(error), error.exit_code)
    except (OSError, MemoryError, RuntimeError) as error:
        told = environment_message(error)
        if told is None:
            raise
        _end(told, UserError.exit_code)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM stop the command as Ctrl-C does, so that nothing is left half written; workers end by themselves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()
    report_ignored = sys.unraisablehook

    def interrupt(_number: int, _frame: Any) -> None:
        # the main process stops its workers
        if os.getpid() == own:
            raise KeyboardInterrupt

    def ignored(event: Any) -> None:
        if not isinstance(event.exc_value, KeyboardInterrupt):
            report_ignored(event)
        elif os.getpid() == own:
            # Python swallows what is raised while it forks or removes an object: the same again in a moment
            number = signal.SIGTERM if isinstance(event.exc_value, Terminated) else signal.SIGINT
            threading.Timer(AGAIN, os.kill, (own, number)).start()

    def terminate(number: int, _frame: Any) -> None:
        if os.getpid() == own:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = {}
    for number, handler in ((signal.SIGINT, interrupt), (signal.SIGTERM, terminate)):
        before[number] = signal.getsignal(number)
        # what the shell makes a command ignore, such as Ctrl-C in the background, it goes on ignoring
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    sys.unraisablehook = ignored
    try:
        yield
    finally:
        sys.unraisablehook = report_ignored
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    # a thread of the pool that fills MONAI's caches aborts the interpreter if it still runs at its end
    for thread in threading.enumerate():
        if thread.name.endswith("(worker)"):
            thread.join()
    sys.exit(code)


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
