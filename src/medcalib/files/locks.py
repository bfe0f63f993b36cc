"""Let one process at a time write to a folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from medcalib.errors import UserError
from medcalib.files.writing import draft_path
from medcalib.processes import has_ended, process_name

__all__ = ["locked_folder"]

REFUSAL = "Another run of this bundle and seed is writing to {folder}; wait for it or choose another --seed."
LOCK, HOLDER = ".lock", ".lock_holder"
INTERVAL = 0.5
# how often a folder may be missing just after it was made, and for how long to wait then
VANISHED, PAUSE = 50, 0.01
# what file systems over a network answer that have no locks
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class _Lock(NamedTuple):
    release: Callable[[], None]


@contextmanager
def locked_folder(folder: Path, wait: bool = False, refusal: str = REFUSAL) -> Iterator[bool]:
    """Make a folder if it is missing, and let no other process that asks write to it.

    Where the file system has no locks, a file ``.lock_holder`` in the folder says who writes; one that a process of
    this machine left that has ended is taken away.

    Args:
        folder: the folder.
        wait: wait, with a message, until another process has finished, instead of refusing.
        refusal: what is said where another process writes to the ``{folder}``.

    Yields:
        Whether the folder was made for this process.

    Raises:
        UserError: another process writes to the folder, or it cannot be written.

    Warns:
        UserWarning: the file system has no locks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent, locked_folder(Path(parent, "results")) as made:
        ...     made
        True
    """
    made, told, vanished = False, False, 0
    while True:
        try:
            made = _make(folder) or made
            lock = _try_lock(folder)
        except OSError as error:
            # who made the folder may have removed it again, but not for ever
            if isinstance(error, FileNotFoundError) and (vanished := vanished + 1) < VANISHED:
                time.sleep(PAUSE)
                continue
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}){_whose(folder)}; choose another folder with "
                f"--output_dir."
            ) from None
        if lock is not None:
            break
        holder = _holder(folder)
        if not wait:
            raise UserError(refusal.format(folder=f"{folder}{holder}"))
        if not told:
            print(f"Another run is writing to {folder}{holder}; waiting for it.", flush=True)
            told = True
        # what that run wrote is not this one's
        made = False
        time.sleep(INTERVAL)
    try:
        yield made
    finally:
        lock.release()


def _make(folder: Path) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        return False
    return True


def _try_lock(folder: Path) -> _Lock | None:
    """A lock, or None if another process has it."""
    path = folder / LOCK
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino != path.stat().st_ino:  # of a folder that was removed meanwhile
            raise FileNotFoundError
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        if error.errno not in _NO_LOCKS:
            raise
        return _lock_by_file(folder)
    except BaseException:
        file.close()
        raise
    with suppress(OSError):  # on a full disk nobody learns who it is
        file.truncate(0)
        # past the buffer, which would be written once more when the file is closed
        os.write(file.fileno(), _own_name().encode())
    return _Lock(file.close)


def _lock_by_file(folder: Path) -> _Lock | None:
    path = folder / HOLDER
    name = _own_name()
    while not _create(path, name):
        held = _read(path)
        if has_ended(str(held.get("process"))) is not True:
            return None
        _take_away(path, held)
    warnings.warn(
        f"The file system of {folder} has no locks, so {path} says that this run writes there; a run that another "
        f"machine starts before this one ends is refused as long as that file is there.",
        stacklevel=4,
    )

    def release() -> None:
        if _read(path) == json.loads(name):
            with suppress(OSError):
                path.unlink()

    return _Lock(release)


def _create(path: Path, text: str) -> bool:
    """Write a file that must not exist; with all of its text from the beginning where the file system can do that."""
    draft = draft_path(path)
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        except OSError:
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _take_away(path: Path, held: dict[str, str]) -> None:
    """Remove the file of a process that has ended, unless another run was faster and this is its file already."""
    taken = draft_path(path)
    try:
        path.rename(taken)
    except FileNotFoundError:
        return
    if _read(taken) != held:
        with suppress(OSError):
            os.link(taken, path)
    taken.unlink(missing_ok=True)


def _own_name() -> str:
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"process": process_name(), "pid": os.getpid(), "host": socket.gethostname(), "since": since})


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _holder(folder: Path) -> str:
    by_file = (folder / HOLDER).exists()
    held = _read(folder / (HOLDER if by_file else LOCK))
    if not held:
        return ""
    told = f" (process {held.get('pid')} on {held.get('host')}, since {held.get('since')})"
    if by_file and has_ended(str(held.get("process"))) is None:
        told += f", or was killed on another machine and left {folder / HOLDER}, to be deleted then"
    return told


def _whose(folder: Path) -> str:
    """Name the owner of a folder or a lock that belongs to somebody else."""
    for path in (folder / LOCK, folder):
        try:
            if path.stat().st_uid != os.geteuid():
                return f", since {path} belongs to {_user(path)}"
        except OSError:
            continue
    return ""


def _user(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"
