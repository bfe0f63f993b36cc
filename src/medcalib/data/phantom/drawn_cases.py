"""Datasets that are written on first use: complete or not at all, and known again by what they were made with."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft
from medcalib.keys import SplitKeys

__all__ = ["PARTS", "SyntheticDataset"]

PARTS = (SplitKeys.TRAINING, SplitKeys.VALIDATION, SplitKeys.TEST)
_DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class SyntheticDataset:
    """A dataset in a folder of its own, in which ``dataset.json`` says how it was made.

    Attributes:
        name: of the dataset.
        case_prefix: cases are named ``<case_prefix>_<number>``.
        format_version: to be raised when the same arguments give other files.
        class_names: names of the classes.
        model: the numbers from which cases are drawn.
        derived: keys of the description that follow from the others, and so are not named where they differ.

    Example:
        >>> dataset = SyntheticDataset("dots", "dot", 1, ["light", "dark"], {"radius": 2.0})
        >>> wanted = dataset.describe(num_training=2, num_validation=1, num_test=1, seed=0)
        >>> wanted["training"], wanted["test"]
        (['dot_001', 'dot_002'], ['dot_004'])
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dataset.make(Path(folder, "dots"), wanted, lambda root, description: (root / "dot.txt").touch())
        ...     sorted(path.name for path in Path(folder, "dots").iterdir())
        ['dataset.json', 'dot.txt']
    """

    name: str
    case_prefix: str
    format_version: int
    class_names: Sequence[str]
    model: Mapping[str, Any]
    derived: tuple[str, ...] = ()

    def describe(self, num_training: int, num_validation: int, num_test: int, seed: int) -> dict[str, Any]:
        """Say what a dataset made with these numbers is, in JSON's own types; it lists the cases of every part.

        Raises:
            UserError: a number is not whole or too small, and is named.
        """
        numbers = {"num_training": num_training, "num_validation": num_validation, "num_test": num_test, "seed": seed}
        for name, number in numbers.items():
            least = 0 if name == "seed" else 1
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise UserError(f"{name} is {number!r}: give a whole number of at least {least}.")
        count = num_training + num_validation + num_test
        names = [f"{self.case_prefix}_{number:03d}" for number in range(1, count + 1)]
        description = {
            "name": self.name,
            "format_version": self.format_version,
            "class_names": self.class_names,
            "seed": seed,
            "model": self.model,
            SplitKeys.TRAINING: names[:num_training],
            SplitKeys.VALIDATION: names[num_training : num_training + num_validation],
            SplitKeys.TEST: names[num_training + num_validation :],
        }
        return json.loads(json.dumps(description))

    def make(
        self, root: Path, description: Mapping[str, Any], write: Callable[[Path, Mapping[str, Any]], None]
    ) -> None:
        """Write the dataset if the folder is missing or empty; otherwise make sure that it holds this very dataset.

        The files are written to a temporary folder that takes its final name in the end, so a run that is interrupted
        leaves no dataset; of two that run at the same time, the first to finish is kept.

        Args:
            root: folder of the dataset.
            description: what `describe` returned.
            write: called with an empty folder and the description; writes all other files.

        Raises:
            UserError: the folder cannot be written, or it holds something else, or cases made with other numbers.
        """
        if not _holds_something(root):
            try:
                self._write(root, description, write)
            except OSError as error:
                raise UserError(
                    f"The dataset {self.name} cannot be written to '{root}' ({error.strerror or error}): set "
                    "data::dataset_dir to a folder you may write to, on a disk with space."
                ) from error
        self._check(root, description)

    def check_files(self, root: Path, paths: Iterable[str | Path]) -> None:
        """Check that files are there.

        Raises:
            UserError: one is not.
        """
        for path in map(Path, paths):
            if not path.is_file():
                raise self.lacks(root, f"'{path.relative_to(root)}'")

    def lacks(self, root: Path, what: str) -> UserError:
        """The error of a dataset of which a part is gone."""
        return UserError(f"The dataset {self.name} in '{root}' lacks {what}: delete the folder to have it made anew.")

    def _write(self, root: Path, description: Mapping[str, Any], write: Callable) -> None:
        with FolderDraft(root.resolve()) as draft:
            draft.folder.mkdir()
            write(draft.folder, description)
            (draft.folder / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
            # another process may have been faster
            with suppress(FileExistsError):
                draft.publish()

    def _check(self, root: Path, wanted: Mapping[str, Any]) -> None:
        try:
            found = json.loads((root / _DESCRIPTION).read_text())
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("name") != self.name:
            raise UserError(
                f"'{root}' does not hold the dataset {self.name} (it has no readable {_DESCRIPTION} of it): "
                "delete it, or set data::dataset_dir to a new folder."
            )
        if found.get("format_version") != self.format_version:
            raise UserError(
                f"The dataset {self.name} in '{root}' was made by another version of medcalib, whose cases are others "
                f"(format_version {found.get('format_version')}, not {self.format_version}): delete the folder to have "
                f"it made anew, or set data::dataset_dir to a new one."
            )
        if different := sorted(key for key in wanted if found.get(key) != wanted[key]):
            different = [key for key in different if key not in self.derived] or different
            raise UserError(
                f"The dataset {self.name} in '{root}' was made with other values of {', '.join(different)}: "
                "delete the folder to have it made anew, or set data::dataset_dir to a new one."
            )


def _holds_something(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))
