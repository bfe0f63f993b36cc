"""Errors that a user can cause or mend, and what is said about those of other libraries."""

from __future__ import annotations

import difflib
import errno
import os
import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["UNFINISHED", "StoppedError", "Terminated", "UserError", "environment_message", "listed", "plain_reason"]

UNFINISHED = ".unfinished."
"""How the name of whatever is still being written begins; a run that was killed may leave such a file."""

# what is wrong with a disk, a folder or the machine, and not with this program
_ENVIRONMENT = {
    getattr(errno, name)
    for name in (
        "EACCES", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENAMETOOLONG", "ENFILE", "ENODEV", "ENOSPC", "ENXIO", "EPERM",
        "EROFS", "ESTALE",
    )
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# how libraries say that their protection against code in a file can be switched off
_UNSAFE_ADVICE = re.compile(r"weights_only|allow_pickle|pickle|unsafe|arbitrary code|safe_globals", re.IGNORECASE)
_TORCH_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


class UserError(ValueError):
    """A mistake in what the user gave: a name, a file, a key, a value.

    The message is one sentence that names the file, key or case and says what to do. The command lines print it without
    a traceback and exit with `exit_code`.

    Attributes:
        exit_code: what a command that ends with this error returns to the shell.
    """

    exit_code: int = 2


class StoppedError(UserError):
    """A run was stopped from outside, and the message says what is left of it and how to go on.

    Args:
        message: one sentence.
        stop: what stopped it; the exit code after a request to end is 128 and the number of the signal, else 130.

    Example:
        >>> StoppedError("Interrupted; nothing was written.", KeyboardInterrupt()).exit_code
        130
    """

    def __init__(self, message: str, stop: BaseException | None = None) -> None:
        super().__init__(message)
        self.exit_code = 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)

    @classmethod
    def by(cls, stop: BaseException, hint: str) -> StoppedError:
        """The error that says what stopped a run, and a hint.

        Example:
            >>> str(StoppedError.by(Terminated(), "nothing was written"))
            'Stopped by a request to end (SIGTERM); nothing was written.'
        """
        what = f"Stopped by a request to end ({stop.number.name})" if isinstance(stop, Terminated) else "Interrupted"
        return cls(f"{what}; {hint}.", stop)


class Terminated(KeyboardInterrupt):
    """The process was asked to end; everything that stops for Ctrl-C stops for it.

    Args:
        number: of the signal: SIGTERM, or SIGUSR1, which schedulers send some time before they end a job.

    Example:
        >>> Terminated(signal.SIGUSR1).number.name
        'SIGUSR1'
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = signal.Signals(number)


def listed(names: Sequence[str], shown: int = 5) -> str:
    """The first of some names, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], shown=2)
        'a, b and 1 more'
    """
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def suggestion(name: str, known: Iterable[str], list_all: bool = False) -> str:
    """End of an error message: the known names nearest to a wrong one; all of them, if wanted, where none is near.

    Example:
        >>> suggestion("hipocampus", ["phantom", "hippocampus"])
        '; did you mean hippocampus?'
        >>> suggestion("nope", ["dynunet", "unet"], list_all=True)
        '; there is dynunet, unet.'
    """
    known = list(known)
    # where all can be named, what is hardly alike says less
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6 if list_all else 0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    if list_all and known:
        return f"; there is {', '.join(known)}."
    return "."


def plain_reason(error: BaseException) -> str:
    """The first line of what a library says is wrong, without its advice to switch protections off.

    Example:
        >>> plain_reason(ValueError("Object arrays cannot be loaded when allow_pickle=False"))
        'it holds Python objects, which could run foreign code'
        >>> plain_reason(EOFError())
        'EOFError'
    """
    text = str(error).strip()
    if _UNSAFE_ADVICE.search(text):
        return "it holds Python objects, which could run foreign code"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return text.partition("\n")[0].rstrip(".") or type(error).__name__


def environment_message(error: BaseException, folder: object = None) -> str | None:
    """One sentence for an error of the disk, of permissions or of memory, in any exception of the chain; else None.

    Args:
        error: the exception.
        folder: what was being written, for errors that do not name their file.

    Example:
        >>> environment_message(OSError(errno.ENOSPC, "No space left on device"), "/data/out")
        '/data/out cannot be written (No space left on device); make room or choose another folder.'
        >>> environment_message(KeyError("x")) is None
        True
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_memory(cause):
            return (
                "There is not enough memory for this run; use smaller patches or batches, fewer workers, or "
                "a cache_rate below 1."
            )
        if isinstance(cause, OSError):
            number = cause.errno
            # a worker process hands over its traceback as a text
            if number is None and (match := re.findall(r"\[Errno (\d+)\]", str(cause))):
                number = int(match[-1])
            if number is not None and number in _ENVIRONMENT:
                named = _named(cause.filename2 or cause.filename or folder)
                if number in _FULL:
                    return f"{named} cannot be written ({os.strerror(number)}); make room or choose another folder."
                return f"{named} cannot be used ({os.strerror(number)}); mend that or choose another folder."
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _named(path: object) -> str:
    """A path as the user knows it, without the hidden folder in which it is still being made."""
    if path is None or isinstance(path, int):
        return "A file"
    parts = Path(os.fsdecode(path)).parts  # type: ignore[arg-type]
    return str(Path(*(part for part in parts if not part.startswith(UNFINISHED))))


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return type(error) is RuntimeError and bool(_TORCH_MEMORY.search(str(error).partition("\n")[0]))
