"""Kill a process between two of its file operations."""

import os
import signal

OPERATIONS = ("rename", "replace", "link", "unlink", "mkdir", "rmdir", "fsync")


def killed_at(number, work):
    """Do some work in a process that is killed right before its file operation of that number; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            _kill_at(number)
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _kill_at(number):
    left = [number]

    def deadly(operation):
        def run(*args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return operation(*args, **kwargs)

        return run

    for name in OPERATIONS:
        setattr(os, name, deadly(getattr(os, name)))
