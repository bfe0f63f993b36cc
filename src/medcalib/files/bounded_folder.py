"""Arrays in a folder of bounded size, from which those go that nobody used for longest."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from medcalib.errors import plain_reason
from medcalib.files.writing import draft_path, remove_abandoned

__all__ = ["BoundedFolder"]

SUFFIX = ".npz"
RESERVE = 1 << 30
"""Bytes of the disk that stay free for results."""
_SLACK = 1 / 64


class BoundedFolder:
    """Keep arrays by name in files that several processes may read, write and remove at once.

    Every entry is one NumPy archive, uncompressed, under its name completely or not at all. Its checksums are looked at
    whenever it is read. Before one is written, those go that were not used for longest, until there is room; those that
    this object has read or written stay, so that a run which needs more than there is room for keeps its first entries
    instead of replacing each by the next. Processes that write at once may exceed the bound by a sixty-fourth each.

    Args:
        folder: the folder, made when something is written.
        max_bytes: largest size of all entries together.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = BoundedFolder(f"{parent}/entries", max_bytes=10_000)
        ...     folder.write("a", {"x": np.ones(2, np.float32)}), folder.read("a"), folder.read("b")
        (True, {'x': array([1., 1.], dtype=float32)}, None)
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._own: set[str] = set()
        self._size: int | None = None
        self._unseen = 0

    def read(self, name: str, arrays: Collection[str] | None = None) -> dict[str, np.ndarray] | None:
        """The arrays of an entry, or those of the given names that it has, in its order; None if it is not there.

        Warns:
            UserWarning: it is damaged; it is removed.
        """
        path = self._path(name)
        try:
            with np.load(path, allow_pickle=False) as archive:
                wanted = [array for array in archive.files if arrays is None or array in arrays]
                found = {array: archive[array] for array in wanted}
        except OSError:  # not there, not any more, or not for us
            return None
        except MemoryError:
            raise
        except Exception as error:  # whatever a damaged file makes of itself
            warnings.warn(f"{path} is damaged ({plain_reason(error)}), so it is made again.", stacklevel=2)
            self.discard(name)
            return None
        self._own.add(path.name)
        with suppress(OSError):
            os.utime(path)
        return found

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> bool:
        """Write an entry, in the place of an older one of that name, and say whether there was room for it.

        Raises:
            OSError: the folder cannot be made or written, or hardly anything is free on its disk.
        """
        size = sum(array.nbytes for array in arrays.values()) + 512 * (len(arrays) + 1)
        path = self._path(name)
        if not self._make_room(size):
            return False
        draft = draft_path(path)
        try:
            with draft.open("xb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # names of arrays, not options
            draft.replace(path)
        finally:
            with suppress(OSError):
                draft.unlink()
        self._own.add(path.name)
        self._unseen += size
        return True

    def discard(self, name: str) -> None:
        """Remove an entry, if it is there and can be removed."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _make_room(self, size: int) -> bool:
        if self._size is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
        if size > self.max_bytes:
            return False
        # what others write meanwhile is seen when the folder is looked through again
        if self._size is None or self._unseen > self.max_bytes * _SLACK or self._size + self._unseen > self.max_bytes:
            self._size, self._unseen = self._remove_oldest(self.max_bytes - size), 0
        if self._size + self._unseen + size > self.max_bytes:
            return False
        if shutil.disk_usage(self.folder).free < size + RESERVE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        return True

    def _remove_oldest(self, allowed: int) -> int:
        """Remove what was not used for longest, until no more is left than is allowed; return how much is left."""
        entries = []
        with os.scandir(self.folder) as found:
            for entry in found:
                with suppress(OSError):  # removed by somebody else meanwhile
                    if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                        status = entry.stat()
                        entries.append((status.st_mtime_ns, status.st_size, entry.name))
        left = sum(size for _, size, _ in entries)
        for _, size, name in sorted(entries):
            if left <= allowed:
                break
            if name not in self._own:
                with suppress(OSError):
                    (self.folder / name).unlink()
                    left -= size
        return left
