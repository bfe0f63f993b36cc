"""Write a file completely or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medcalib.errors import UNFINISHED, UserError, plain_reason
from medcalib.processes import has_ended, process_name

__all__ = [
    "UNFINISHED",
    "complete_file",
    "draft_path",
    "name_ending",
    "read_json",
    "remove",
    "remove_abandoned",
    "write_json",
    "write_text",
]

ABANDONED = 86400
"""Seconds without a change after which nobody is writing any more what another machine began."""

_ENDING = 40


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it replaces ``path`` if no error occurs, and is removed otherwise.

    The name ends as that of ``path`` does, for writers that look at the suffix. What is written is on the disk before
    it gets its name.

    Args:
        path: the file; its folder is made.

    Raises:
        UserError: the file cannot be written, for example because the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with complete_file(f"{folder}/a.txt") as draft:
        ...         _ = draft.write_text("all of it")
        ...     Path(folder, "a.txt").read_text()
        'all of it'
    """
    path = Path(path)
    draft = draft_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text completely or not at all.

    Raises:
        UserError: as of `complete_file`.
    """
    with complete_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON, completely or not at all.

    A number that is not finite becomes null, as JSON has no word for it.

    Raises:
        UserError: as of `complete_file`.
    """
    write_text(path, json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path, advice: str) -> dict[str, Any]:
    """The dictionary that a JSON file holds.

    Args:
        path: the file.
        advice: what the user can do if it is damaged.

    Raises:
        UserError: the file cannot be read, or holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(f"{folder}/a.json", {"a": 1})
        ...     read_json(f"{folder}/a.json", "write it again")
        {'a': 1}
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({plain_reason(error)}); {advice}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (it holds no dictionary); {advice}.")
    return content


def draft_path(path: Path) -> Path:
    """A hidden path beside ``path``, for what is to become it; it says which process uses it.

    Example:
        >>> draft_path(Path("out/a.nii.gz")).name.endswith(".a.nii.gz")
        True
    """
    return path.with_name(f"{UNFINISHED}{process_name()}-{uuid.uuid4().hex[:8]}.{name_ending(path)}")


def name_ending(path: Path) -> str:
    """The name of a path, or the end of it where a longer one might be too long for a file system."""
    return path.name[-_ENDING:]


def remove_abandoned(folder: str | Path, held: bool = False) -> None:
    """Remove what runs that were killed left in a folder, files and folders whose names begin with `UNFINISHED`.

    What a process of this machine still writes is left alone, and so is what another machine wrote to within a day.

    Args:
        folder: the folder; nothing happens if there is none.
        held: whether this process alone may write to the folder, so that nobody can be at work on another machine.
    """
    with suppress(OSError):
        for path in sorted(Path(folder).iterdir()):
            if path.name.startswith(UNFINISHED) and _is_abandoned(path, held):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_abandoned(path: Path, held: bool) -> bool:
    maker = path.name.removeprefix(UNFINISHED).partition(".")[0].rpartition("-")[0]
    ended = has_ended(maker)
    if ended is None and not held:
        try:
            ended = time.time() - max(one.lstat().st_mtime for one in (path, *path.glob("*"))) > ABANDONED
        except OSError:  # somebody else removed it
            return False
    return ended is not False


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
