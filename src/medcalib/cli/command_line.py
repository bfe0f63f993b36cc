"""What the commands share: errors and warnings as one sentence, and how they are stopped."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from medcalib.cli.failures import in_several, tell, tell_fault
from medcalib.errors import StoppedError, Terminated, UserError, environment_message

__all__ = ["run_command"]

# seconds after which a signal that Python swallowed is sent once more
AGAIN = 0.05


def run_command(command: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a command; when it fails for a reason that can be mended, print one sentence to stderr and exit with a code.

    The code is 2 for a `UserError`, a disk that is full or not writable, and lack of memory; 130 after Ctrl-C; 143
    after SIGTERM and 138 after SIGUSR1, which schedulers send some time before they end a job; 141, without a word,
    where nobody reads on, as in ``medcalib --help | head``.
    A warning is printed as one sentence, too, and the same one once. Of several processes that share a run, one prints.
    """
    for stream in (sys.stdout, sys.stderr):
        # a file name that is no UTF-8 must not keep a message from being printed
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # of a full disk that keeps a line from the log, a sentence tells, and not a traceback for every line
    logging.raiseExceptions = False
    if in_several():
        # what torch logs is not for users, such as that a connection was closed by a process that failed
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    try:
        with _stoppable(), _plain_warnings():
            result = command(*args, **kwargs)
        sys.stdout.flush()
        return result
    except UserError as error:
        _end(error)
    except KeyboardInterrupt as stop:
        _end(StoppedError.by(stop, "give the same command again to go on"))
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            sys.exit(128 + signal.SIGPIPE)
        told = environment_message(error) if isinstance(error, OSError | MemoryError | RuntimeError) else None
        if told is not None:
            _end(UserError(told))
        if not in_several():
            raise
        tell_fault(error)
        sys.exit(1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 stop the command as Ctrl-C does, so that nothing is left half written.

    Workers end by themselves.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()
    report_ignored = sys.unraisablehook
    is_ending = False

    def interrupt(_number: int, _frame: Any) -> None:
        # the main process stops its workers
        if os.getpid() == own:
            raise KeyboardInterrupt

    def ignored(event: Any) -> None:
        if not isinstance(event.exc_value, KeyboardInterrupt):
            report_ignored(event)
        elif os.getpid() == own:
            # Python swallows what is raised while it forks or removes an object: the same again in a moment
            nonlocal is_ending
            is_ending = False
            number = event.exc_value.number if isinstance(event.exc_value, Terminated) else signal.SIGINT
            threading.Timer(AGAIN, os.kill, (own, number)).start()

    def terminate(number: int, _frame: Any) -> None:
        nonlocal is_ending
        if os.getpid() == own:
            # schedulers ask every process of a run to end, and torchrun asks its own once more
            if is_ending:
                return
            is_ending = True
            raise Terminated(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = {}
    for number, handler in (
        (signal.SIGINT, interrupt),
        (signal.SIGTERM, terminate),
        (signal.SIGUSR1, terminate),
    ):
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


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print the text of each warning once, without the line of code that warns; what records warnings sees them all."""
    told = set()
    formatted = warnings.formatwarning

    def sentence(message: Warning | str, *_where: Any) -> str:
        text = f"warning: {' '.join(str(message).split())}\n"
        # MONAI's trainer makes its gradient scaler in a way that torch means to drop, which no user can mend; pictures
        # that are not resized need no inverse
        if text in told or "torch.cuda.amp.GradScaler" in text or "no invertible transforms" in text:
            return ""
        told.add(text)
        if in_several():
            from medcalib.process_group import claimed

            return text if claimed(text) else ""
        return text

    warnings.formatwarning = sentence  # type: ignore[assignment]  # it may be given more
    try:
        yield
    finally:
        warnings.formatwarning = formatted


def _is_unread() -> bool:
    """Whether whoever read what is printed has gone; what is printed from now on is lost, without an error."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in watch.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _end(error: UserError) -> NoReturn:
    tell(error)
    # a thread of the pool that fills MONAI's caches aborts the interpreter if it still runs at its end
    for thread in threading.enumerate():
        if thread.name.endswith("(worker)"):
            thread.join()
    sys.exit(error.exit_code)
