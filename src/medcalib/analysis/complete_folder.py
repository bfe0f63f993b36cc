"""A folder of results that appears only when it is complete."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medcalib.errors import UserError

__all__ = ["complete_folder"]


@contextmanager
def complete_folder(output_dir: str | Path) -> Iterator[Path]:
    """Yield a path at which the results are to be collected; it becomes ``output_dir`` if no error occurs.

    Args:
        output_dir: the folder in which the results will be looked for; it must not exist.

    Raises:
        UserError: it exists, or cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with complete_folder(f"{folder}/results") as draft:
        ...         draft.mkdir()
        ...         print(Path(folder, "results").exists())
        ...     print(Path(folder, "results").exists())
        False
        True
    """
    target = Path(output_dir).expanduser()
    _check_absent(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}); choose another output_dir.") from None
    with temporary as folder:
        draft = Path(folder) / target.name
        yield draft
        _check_absent(target)
        draft.rename(target)


def _check_absent(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target} exists, and results are never overwritten; choose another output_dir or delete it.")
