"""Find the cases of a dataset in its folder, and say what is wrong with the folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from medcalib.data.cases import Case, check_case_name
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = [
    "Download",
    "describe_contents",
    "incomplete_cases",
    "make_case",
    "nifti_names",
    "packed_otherwise",
    "visible",
]

NIFTI_ENDINGS = (".nii.gz", ".nii")
_LISTS_INCOMPLETE = ContextVar("lists_incomplete", default=False)


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
        if root.is_file():
            raise UserError(
                f"'{root}' is a file: extract it if it is an archive, and set data::dataset_dir to {self.folder} "
                f"({self.source})."
            )
        if not root.is_dir():
            raise UserError(
                f"The dataset folder '{root}' does not exist: set data::dataset_dir to {self.folder} ({self.source})."
            )
        return root

    def nothing_matched(self, root: Path, looked_for: str) -> UserError:
        """The error of a folder in which no case was found; tells how far its layout is the one that was looked for."""
        known = _known_part(root, looked_for)
        wanted = looked_for.partition(" with ")[0].split("/")[len(known.relative_to(root).parts) :][:1]
        whose = "which" if known == root else f"whose {known.relative_to(root)}/"
        return UserError(
            f"0 cases matched {looked_for} in '{root}', {whose} holds {describe_contents(known, wanted)}: "
            f"set data::dataset_dir to {self.folder} ({self.source})."
        )

    def complete(self, cases: Sequence[Case], root: Path, looked_for: str) -> list[Case]:
        """Check that there are cases and, except within `incomplete_cases`, that all their files exist.

        Args:
            cases: cases that were found by at least one of their files or by their folder.
            root: the dataset's folder.
            looked_for: the pattern of their files.

        Returns:
            The cases, sorted by name.

        Raises:
            UserError: there is no case, a file of one is missing, or no result can have its name; names the case and
                the file.
        """
        if not cases:
            raise self.nothing_matched(root, looked_for)
        ordered = sorted(cases, key=lambda case: case[CaseKeys.CASE])
        for case in ordered:
            check_case_name(case[CaseKeys.CASE], f"A case in '{root}'")
        if _LISTS_INCOMPLETE.get():
            return ordered
        lacking = {case[CaseKeys.CASE]: missing for case in ordered if (missing := _missing_files(case))}
        if lacking:
            name, missing = next(iter(lacking.items()))
            raise UserError(
                f"Case '{name}' has no '{missing[0]}' ({len(ordered) - len(lacking)} cases matched {looked_for}, "
                f"{len(lacking)} did not): extract or download it, or remove the rest of this case ({self.source})."
            )
        return ordered


@contextmanager
def incomplete_cases() -> Iterator[None]:
    """Within this context, cases are listed as if all their files existed, so that all that lack one can be named."""
    token = _LISTS_INCOMPLETE.set(True)
    try:
        yield
    finally:
        _LISTS_INCOMPLETE.reset(token)


def make_case(name: str, image: Path | Sequence[Path], label: Path) -> Case:
    """A case from the paths of its image, or of its channels, and of its label; each may be packed otherwise.

    Example:
        >>> make_case("a", [Path("t1.nii"), Path("t2.nii")], Path("seg.nii"))
        {'case': 'a', 'image': ['t1.nii', 't2.nii'], 'label': 'seg.nii'}
    """
    images = str(_as_packed(image)) if isinstance(image, Path) else [str(_as_packed(path)) for path in image]
    return {
        CaseKeys.CASE.value: name,
        CaseKeys.IMAGE.value: images,
        CaseKeys.LABEL.value: str(_as_packed(label)),
    }


def nifti_names(folder: Path, pattern: str = "*") -> list[str]:
    """Names, sorted and without their ending, of the NIfTI files in a folder, whether they are packed or not.

    Args:
        folder: the folder.
        pattern: of the names without ending.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.nii.gz", "a.nii", "._a.nii", "a.txt"):
        ...         Path(folder, name).touch()
        ...     nifti_names(Path(folder))
        ['a', 'b']
    """
    return sorted(
        {path.name.removesuffix(ending) for ending in NIFTI_ENDINGS for path in visible(folder, f"{pattern}{ending}")}
    )


def visible(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern below a folder, sorted, without hidden files: some archives hold a ``._`` twin of each."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def describe_contents(folder: Path, wanted: Sequence[str] = ()) -> str:
    """Say what a folder holds, for a message; of many names first those that are most like a wanted pattern."""
    names = [path.name + "/" * path.is_dir() for path in visible(folder, "*")]
    for pattern in wanted:
        names.sort(key=lambda name: -_likeness(name.casefold(), pattern.casefold()))
    if not names:
        return "nothing"
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _likeness(name: str, pattern: str) -> int:
    """How many letters a name shares with the beginning and the end of a pattern around its ``*``."""
    first, _, last = pattern.rpartition("*")
    pairs = (zip(name, first, strict=False), zip(name[::-1], last[::-1], strict=False))
    return sum(len(list(takewhile(lambda pair: pair[0] == pair[1], letters))) for letters in pairs)


def _known_part(root: Path, looked_for: str) -> Path:
    """The deepest folder that exists of those that a pattern begins with."""
    known = root
    for part in looked_for.partition(" with ")[0].split("/")[:-1]:
        if any(sign in part for sign in "*{<'") or not (known / part).is_dir():
            break
        known /= part
    return known


def packed_otherwise(path: str) -> str:
    """The same NIfTI file, ``.nii`` in the place of ``.nii.gz`` or the reverse; empty if it is of another kind.

    Example:
        >>> packed_otherwise("a.nii.gz"), packed_otherwise("a.nii"), packed_otherwise("a.png")
        ('a.nii', 'a.nii.gz', '')
    """
    packed, plain = NIFTI_ENDINGS
    if path.endswith(packed):
        return path.removesuffix(packed) + plain
    return path.removesuffix(plain) + packed if path.endswith(plain) else ""


def _as_packed(path: Path) -> Path:
    """A NIfTI file under the name that it has: browsers and macOS unpack what they fetch, and people pack."""
    other = packed_otherwise(str(path))
    return Path(other) if other and not path.is_file() and Path(other).is_file() else path


def _missing_files(case: Case) -> list[str]:
    several = (case[CaseKeys.IMAGE], case[CaseKeys.LABEL])
    paths = [path for one in several for path in ([one] if isinstance(one, str) else one)]
    return [path for path in paths if not Path(path).is_file()]
