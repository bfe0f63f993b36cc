"""Find the cases of a dataset in its folder, and say what is wrong with the folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medcalib.data.cases import Case
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["Download", "describe_contents", "make_case", "visible"]


@dataclass(frozen=True)
class Download:
    """What a dataset looks like on disk, and what to tell a user whose folder looks otherwise.

    Attributes:
        folder: what ``data::dataset_dir`` must be set to, as "the folder that holds ...".
        source: where the data can be had.

    Example:
        >>> download = Download("the folder that holds scans", "the data can be had from https://example.org")
        >>> download.root("/nowhere")
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: The dataset folder '/nowhere' does not exist: set data::dataset_dir to the folder \
that holds scans (the data can be had from https://example.org).
    """

    folder: str
    source: str

    def root(self, dataset_dir: str | Path) -> Path:
        """The dataset's folder.

        Raises:
            UserError: there is no such folder.
        """
        root = Path(dataset_dir).expanduser()
        if not root.is_dir():
            raise UserError(
                f"The dataset folder '{root}' does not exist: set data::dataset_dir to {self.folder} ({self.source})."
            )
        return root

    def nothing_matched(self, root: Path, looked_for: str) -> UserError:
        """The error of a folder in which no case was found."""
        return UserError(
            f"0 cases matched {looked_for} in '{root}', which holds {describe_contents(root)}: "
            f"set data::dataset_dir to {self.folder} ({self.source})."
        )

    def complete(self, cases: Sequence[Case], root: Path, looked_for: str) -> list[Case]:
        """Check that there are cases and that all their files exist.

        Args:
            cases: cases that were found by at least one of their files or by their folder.
            root: the dataset's folder.
            looked_for: the pattern of their files.

        Returns:
            The cases, sorted by name.

        Raises:
            UserError: there is no case, or a file of one is missing; names the case and the file.
        """
        if not cases:
            raise self.nothing_matched(root, looked_for)
        ordered = sorted(cases, key=lambda case: case[CaseKeys.CASE])
        lacking = {case[CaseKeys.CASE]: missing for case in ordered if (missing := _missing_files(case))}
        if lacking:
            name, missing = next(iter(lacking.items()))
            raise UserError(
                f"Case '{name}' has no '{missing[0]}' ({len(ordered) - len(lacking)} cases matched {looked_for}, "
                f"{len(lacking)} did not): extract or download the missing file, or remove the rest of this case "
                f"({self.source})."
            )
        return ordered


def make_case(name: str, image: Path | Sequence[Path], label: Path) -> Case:
    """A case from the paths of its image, or of its channels, and of its label.

    Example:
        >>> make_case("a", [Path("t1.nii"), Path("t2.nii")], Path("seg.nii"))
        {'case': 'a', 'image': ['t1.nii', 't2.nii'], 'label': 'seg.nii'}
    """
    return {
        CaseKeys.CASE.value: name,
        CaseKeys.IMAGE.value: str(image) if isinstance(image, Path) else [str(path) for path in image],
        CaseKeys.LABEL.value: str(label),
    }


def visible(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern below a folder, sorted, without hidden files: some archives hold a ``._`` twin of each."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def describe_contents(folder: Path) -> str:
    """Say what a folder holds, for a message."""
    names = [path.name + "/" * path.is_dir() for path in visible(folder, "*")]
    if not names:
        return "nothing"
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _missing_files(case: Case) -> list[str]:
    image = case[CaseKeys.IMAGE]
    paths = [*([image] if isinstance(image, str) else image), case[CaseKeys.LABEL]]
    return [path for path in paths if not Path(path).is_file()]
