"""Write a file completely or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medcalib.errors import UserError

__all__ = ["UNFINISHED", "complete_file", "write_json", "write_text"]

UNFINISHED = ".unfinished."
"""How the name of whatever is still being written begins; a run that was killed may leave such a file."""


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
    draft = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text completely or not at all.

    Raises:
        UserError: as of `complete_file`.
    """
    with complete_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON, completely or not at all.

    Raises:
        UserError: as of `complete_file`.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")
