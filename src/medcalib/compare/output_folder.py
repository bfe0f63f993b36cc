"""The folder of a comparison: complete or not there, and never in the place of anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft, started_draft

__all__ = ["comparison_folder"]

_OWN_FILES = {"comparison.csv", "comparison.md", "comparison.tex", "index.html", "levels.csv", "levels.md"}
_OWN_FILES |= {"levels.tex", "ranks.csv"}
_FIGURES = (".pdf", ".png", ".svg")


@contextmanager
def comparison_folder(output: str | Path) -> Iterator[Path]:
    """Yield a folder to write a comparison to; it becomes ``output``, in the place of an older one, if no error occurs.

    Args:
        output: the folder in which the comparison will be looked for.

    Raises:
        UserError: it holds something else than a comparison, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for content in ("older", "newer"):
        ...         with comparison_folder(f"{folder}/out") as draft:
        ...             _ = (draft / "comparison.csv").write_text(content)
        ...     Path(folder, "out", "comparison.csv").read_text()
        'newer'
    """
    if not str(output).strip():
        raise UserError("No output is given; name the folder to which the comparison is written.")
    target = Path(output).expanduser()
    if not target.name:
        target = target.resolve()
    _check(target)
    FolderDraft(target).check_replaceable()
    with started_draft(target, "output") as draft:
        draft.folder.mkdir()
        yield draft.folder
        _check(target)
        draft.replace()


def _check(target: Path) -> None:
    if not target.is_dir():
        return
    for path in sorted(target.rglob("*")):
        inside = path.relative_to(target)
        figure = inside == Path("figures") or (inside.parts[0] == "figures" and path.suffix in _FIGURES)
        if str(inside) not in _OWN_FILES and not figure:
            raise UserError(
                f"{target} holds {inside}, which is no part of a comparison and would be lost; choose another output."
            )
