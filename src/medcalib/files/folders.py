"""Fill a folder completely or not at all, also in the place of an older one."""

from __future__ import annotations

import errno
import os
import stat
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from medcalib.errors import UserError, environment_message
from medcalib.files.writing import draft_path, name_ending, remove, remove_abandoned
from medcalib.processes import has_ended, process_name

__all__ = ["FolderDraft", "complete_folder", "started_draft"]

ASIDE = ".replaced."
"""How the name of a complete older folder begins while a newer one takes its place."""

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class FolderDraft:
    """A folder that is filled under a hidden name beside its own, which it gets when it is complete.

    Under the final name there is never a part of a folder. A run that is killed while an older folder is replaced
    leaves one of both complete: under the final name, or under a hidden one that `start` of the next run brings back.

    Args:
        path: the final name. A link to a folder is followed, so the results may lie on another disk.

    Attributes:
        path: the final name, links followed.
        folder: where to write; it is made by whoever writes to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent, FolderDraft(f"{parent}/results") as draft:
        ...     draft.folder.mkdir()
        ...     draft.publish()
        ...     print(sorted(os.listdir(parent)))
        ['results']
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path).expanduser()
        self.path = path.resolve() if path.is_symlink() else path
        self._holder = draft_path(self.path)

    @property
    def folder(self) -> Path:
        """Where to write."""
        return self._holder / self.path.name

    def join(self, folder: Path) -> None:
        """Write to the ``folder`` of the draft of another process, which has started it and will publish it."""
        self._holder = folder.parent

    def __enter__(self) -> FolderDraft:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard whatever has not been published."""
        self.discard()

    def start(self) -> None:
        """Make the place to write to, bring back what a killed run set aside, and remove what it left.

        Raises:
            OSError: nothing can be written beside ``path``.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _recover(self.path)
        remove_abandoned(self.path.parent)
        self._holder.mkdir()

    def check_replaceable(self) -> None:
        """Make sure, before any work is done, that the older folder of that name can be replaced.

        Raises:
            UserError: it is a file or the root of a disk, or belongs to somebody else.
        """
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file in the place of a folder of results; move it away.")
        if self.path.is_mount():
            raise UserError(
                f"{self.path} is the root of a disk, which cannot be replaced by newer results; put a link there to a "
                f"folder on that disk, or choose another output_dir."
            )
        for folder in (self.path, *(Path(root, name) for root, names, _ in os.walk(self.path) for name in names)):
            if folder.is_symlink() or (os.access(folder, os.W_OK | os.X_OK) and not _is_kept_by_others(folder)):
                continue
            raise UserError(
                f"{folder} belongs to {_owner(folder)} or is write-protected, so it cannot be replaced by newer "
                f"results; have {self.path} moved away, or choose another output_dir."
            )

    def publish(self) -> None:
        """Give the folder its name.

        Raises:
            FileExistsError: there is something of that name, which is left as it is.
            OSError: it cannot be renamed.
        """
        self._write_through()
        try:
            self.folder.rename(self.path)
        except OSError as error:
            if error.errno in _TAKEN:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path)) from None
            raise
        self.discard()

    def replace(self) -> None:
        """Give the folder its name, in the place of an older one if there is one.

        Warns:
            UserWarning: the older one cannot be removed altogether; what is left of it is named.

        Raises:
            OSError: it cannot be renamed; the older folder is where it was.
        """
        self._write_through()
        aside = self.path.with_name(f"{ASIDE}{process_name()}-{uuid.uuid4().hex[:8]}.{name_ending(self.path)}")
        try:
            with suppress(FileNotFoundError):
                self.path.rename(aside)
            self.folder.rename(self.path)
        except BaseException:
            if aside.exists() and not os.path.lexists(self.path):
                aside.rename(self.path)
            raise
        self.discard()
        _discard_aside(aside)

    def keep_old(self) -> Path:
        """Rename the older folder to ``<path>_<n>``, and return its new name."""
        number = 1
        while True:
            free = self.path.with_name(f"{self.path.name}_{number}")
            number += 1
            if os.path.lexists(free):
                continue
            try:
                return self.path.rename(free)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise

    def discard(self) -> None:
        """Remove what has not been published."""
        remove(self._holder)

    def _write_through(self) -> None:
        """Have everything on the disk before it gets its name."""
        for root, _, names in os.walk(self.folder):
            for name in names:
                with Path(root, name).open("rb") as file:
                    os.fsync(file.fileno())


@contextmanager
def complete_folder(output_dir: str | Path) -> Iterator[Path]:
    """Yield a path at which the results are to be collected; it becomes ``output_dir`` if no error occurs.

    Args:
        output_dir: the folder in which the results will be looked for; it must not exist.

    Raises:
        UserError: it exists, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with complete_folder(f"{folder}/results") as draft:
        ...         draft.mkdir()
        ...         print(Path(folder, "results").exists())
        ...     print(Path(folder, "results").exists())
        False
        True
    """
    target = Path(output_dir).expanduser()
    exists = f"{target} exists, and results are never overwritten; choose another output_dir or delete it."
    if os.path.lexists(target):
        raise UserError(exists)
    with started_draft(target, "output_dir") as draft:
        yield draft.folder
        if os.path.lexists(target):
            raise UserError(exists)
        try:
            draft.publish()
        except FileExistsError:
            raise UserError(exists) from None


@contextmanager
def started_draft(target: Path, option: str) -> Iterator[FolderDraft]:
    """Yield a draft of a folder that is being written; what is not published when the block ends is discarded.

    Args:
        target: the folder.
        option: the option that names it, for messages.

    Raises:
        UserError: it cannot be written.
    """
    draft = FolderDraft(target)
    try:
        draft.start()
    except OSError as error:
        draft.discard()
        raise UserError(f"{target} cannot be written ({error.strerror}); choose another {option}.") from None
    try:
        yield draft
    except OSError as error:
        if told := environment_message(error, target):
            raise UserError(told) from error
        raise
    finally:
        draft.discard()


def _recover(path: Path) -> None:
    """Bring back the folder that a killed run set aside, or remove it if a newer one is there."""
    asides = sorted(
        (one for one in path.parent.glob(f"{ASIDE}*") if one.name.endswith(f".{name_ending(path)}")),
        key=lambda one: one.stat().st_mtime,
        reverse=True,
    )
    for aside in asides:
        if has_ended(aside.name.removeprefix(ASIDE).partition(".")[0].rpartition("-")[0]) is False:
            continue
        if os.path.lexists(path):
            _discard_aside(aside)
        else:
            aside.rename(path)


def _discard_aside(aside: Path) -> None:
    if not os.path.lexists(aside):
        return
    # from here on it is not complete, so it must not be brought back
    trash = draft_path(aside)
    aside.rename(trash)
    remove(trash)
    if trash.exists():
        warnings.warn(
            f"Some of the earlier results that were replaced cannot be removed; delete {trash}.", stacklevel=3
        )


def _is_kept_by_others(folder: Path) -> bool:
    """Whether the parent of a folder is one, such as /tmp, from which only the owner may remove it."""
    parent = folder.parent.stat()
    own = os.geteuid()
    return bool(parent.st_mode & stat.S_ISVTX) and own not in (0, parent.st_uid, folder.stat().st_uid)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):  # a user that this machine, or this container, does not know
        return f"user {path.stat().st_uid}"
