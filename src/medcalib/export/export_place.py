"""Where an export goes: complete or not there, and never in the place of anything else."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path
from types import TracebackType

from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft

__all__ = ["ExportPlace"]


class ExportPlace:
    """A file or a folder that is written beside its place, and gets there when it is complete.

    What is there already with the same content is left untouched.

    Args:
        target: the place.

    Attributes:
        draft: where to write.

    Raises:
        UserError: nothing can be written there; in `publish`, something else lies there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for _ in range(2):
        ...         with ExportPlace(Path(folder, "a.txt")) as place:
        ...             _ = place.draft.write_text("all of it")
        ...             print(place.publish())
        True
        False
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        # a folder around it, so that the name is right for writers that look at it
        self._draft = FolderDraft(target)

    @property
    def draft(self) -> Path:
        """Where to write."""
        return self._draft.folder

    def __enter__(self) -> ExportPlace:
        """Make sure that something can be written."""
        try:
            self._draft.start()
        except OSError as error:
            self._draft.discard()
            raise UserError(f"{self.target} cannot be written ({error.strerror}); choose another --output.") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Discard what has not been published."""
        self._draft.discard()

    def publish(self) -> bool:
        """Put it in its place; False if the same was there."""
        if os.path.lexists(self.target):
            if different := _difference(self.draft, self.target):
                raise UserError(
                    f"{self.target} exists and is not what would be written (another {different}), and an export never "
                    f"replaces anything; choose another --output, or move it away."
                )
            return False
        try:
            self._draft.publish()
        except FileExistsError:
            raise UserError(f"{self.target} was made by somebody else meanwhile; give the command again.") from None
        return True


def _difference(one: Path, other: Path) -> str | None:
    """The name of the first file that is not the same in both."""
    if one.is_file() or other.is_file():
        return None if one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False) else one.name
    names = [{str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} for root in (one, other)]
    if unmatched := sorted(names[0] ^ names[1]):
        return unmatched[0]
    return next((name for name in sorted(names[0]) if not filecmp.cmp(one / name, other / name, shallow=False)), None)
