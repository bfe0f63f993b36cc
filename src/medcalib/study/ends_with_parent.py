"""Run a module of Python so that it ends when the process that started it ends, even if that is killed.

Otherwise the training of a worker that was killed would go on, and keep its successor from going on with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["command"]

_SET_PARENT_DEATH_SIGNAL = 1


def command(words: list[str]) -> list[str]:
    """The command that runs another one so, ``python -m <module> ...``, on Linux; elsewhere that one itself."""
    if not sys.platform.startswith("linux"):
        return words
    return [words[0], "-m", __name__, str(os.getpid()), *words]


def _main() -> None:
    parent, *words = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    # it may have ended before
    if os.getppid() == int(parent):
        os.execv(words[0], words)


if __name__ == "__main__":
    _main()
