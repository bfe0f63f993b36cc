"""Patterns of file names, in which marks stand for the case, the part of the split, and the class."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from medcalib.data.dataset_folders import packed_otherwise, visible
from medcalib.errors import UserError, suggestion

__all__ = ["CASE", "CLASS", "PART", "checked_pattern", "filled", "found_cases", "marks_of", "matching_files"]

CASE, PART, CLASS = "{case}", "{split}", "{class}"
"""What stands in a pattern for the case id, for the part of the split, and for the class."""

_MARKS = (PART, CLASS, CASE)
_NAME = {mark: mark.strip("{}") for mark in _MARKS}


def marks_of(pattern: str) -> tuple[str, ...]:
    """The marks in a pattern, the part first, then the class, then the case.

    Example:
        >>> marks_of("{split}/{case}/{case}.png")
        ('{split}', '{case}')
    """
    return tuple(mark for mark in _MARKS if mark in pattern)


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """A pattern with values in the place of its marks.

    Example:
        >>> filled("{split}/{case}.png", {"{split}": "train", "{case}": "a"})
        'train/a.png'
    """
    for mark in marks_of(pattern):
        pattern = pattern.replace(mark, values[mark]) if mark in values else pattern
    return pattern


def checked_pattern(root: Path, text: str, more: Sequence[str] = ()) -> str:
    """A pattern without ``./`` and, where it begins at the root of the file system, without the dataset's folder.

    Args:
        root: the folder.
        text: the pattern.
        more: marks that it may hold besides those of this module.

    Raises:
        UserError: it lacks ``{case}``, has an unknown mark or a ``*``, or is not below the folder.
    """
    if CASE not in text:
        raise UserError(f"The pattern '{text}' in data::cases lacks {CASE}, which stands for the case id.")
    known = (*_MARKS, *more)
    if unknown := [mark for mark in re.findall(r"\{[^{}/]*\}", text) if mark not in known]:
        raise UserError(
            f"The pattern '{text}' in data::cases holds {unknown[0]}, but only {', '.join(known)} stand for something"
            f"{suggestion(unknown[0], known)}"
        )
    if wild := re.search(r"[*?]", text):
        slices = Path(text).name in ("*", "*.dcm", "*.DCM", "*.ima", "*.IMA")
        raise UserError(
            f"The pattern '{text}' in data::cases holds {wild[0]}, which stands for nothing else here: write {CASE} "
            f"where the case id stands, and the rest of the name as it is"
            f"{'; of DICOM slices, name the folder that holds them' * slices}."
        )
    path = Path(text).expanduser()
    if not path.is_absolute():
        return path.as_posix()
    for folder in (root, root.absolute(), root.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    raise UserError(
        f"The pattern '{text}' in data::cases is not below the dataset folder '{root}': set data::dataset_dir to a "
        f"folder that holds both images and labels, and write patterns from there on."
    )


def matching_files(root: Path, patterns: Iterable[str]) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """Files and folders that fit one of several patterns; one that fits several belongs to that of most letters.

    Args:
        root: the folder below which the patterns lie.
        patterns: as of `checked_pattern`. A NIfTI file fits also if it is packed otherwise.

    Yields:
        The pattern, the path, and what stands in the place of each mark.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.png", "a_mask.png"):
        ...         Path(folder, name).touch()
        ...     found = list(matching_files(Path(folder), ["{case}.png", "{case}_mask.png"]))
        >>> [(pattern, values) for pattern, _, values in found]
        [('{case}_mask.png', {'{case}': 'a'}), ('{case}.png', {'{case}': 'a'})]
    """
    taken = set()
    for pattern in sorted(dict.fromkeys(patterns), key=_letters, reverse=True):
        known = _expression(pattern)
        forms = [pattern, other] if (other := packed_otherwise(pattern)) else [pattern]
        for path in (path for form in forms for path in visible(root, _wildcards(form))):
            name = path.relative_to(root).as_posix()
            match = known.fullmatch(name) or known.fullmatch(packed_otherwise(name) or "")
            if match and path not in taken:
                taken.add(path)
                yield pattern, path, {mark: match[_NAME[mark]] for mark in marks_of(pattern)}


def found_cases(root: Path, patterns: Sequence[str], telling: Sequence[str]) -> dict[str, dict[str, str]]:
    """The cases for which there is a file of one of the telling patterns.

    The id of a case is what stands for ``{case}``. Where one repeats, as ``1.png`` does in the folders of several
    classes, the part and the class go before it in the ids of all cases, joined by ``_``.

    Args:
        root: the folder.
        patterns: all patterns.
        telling: those of which a file makes a case. Of these, the ones that lack a mark of the others do not count.

    Returns:
        By the id of the case, what stands for each mark.

    Raises:
        UserError: no telling pattern has all marks, or two cases get the same id.
    """
    marks = [mark for mark in _MARKS if any(mark in pattern for pattern in telling)]
    complete = {pattern for pattern in telling if all(mark in pattern for mark in marks)}
    if not complete:
        raise UserError(
            f"None of the patterns {', '.join(map(repr, telling))} in data::cases has {' and '.join(marks)}: write all "
            f"of them into the pattern of the image."
        )
    found = {tuple(values.values()): values for one, _, values in matching_files(root, patterns) if one in complete}
    cases = list(found.values())
    if len({values[CASE] for values in cases}) == len(cases):
        return {values[CASE]: values for values in cases}
    named: dict[str, dict[str, str]] = {}
    for values in cases:
        name = "_".join(values[mark] for mark in marks)
        if name in named:
            raise UserError(f"Two cases in '{root}' would be called '{name}' with their folders: rename a file of one.")
        named[name] = values
    return named


def _letters(pattern: str) -> tuple[int, int]:
    """How much of a pattern is fixed, and how long it is."""
    return len(filled(pattern, dict.fromkeys(_MARKS, ""))), len(pattern)


def _expression(pattern: str) -> re.Pattern:
    text, seen = "", set()
    for part in re.split("|".join(f"({re.escape(mark)})" for mark in _MARKS), pattern):
        if part in _NAME:
            # what comes first takes as little as it can, the case the rest
            text += f"(?P={_NAME[part]})" if part in seen else f"(?P<{_NAME[part]}>[^/]+{'?' * (part != CASE)})"
            seen.add(part)
        elif part:
            text += re.escape(part)
    return re.compile(text)


def _wildcards(pattern: str) -> str:
    text = glob.escape(pattern)
    for mark in _MARKS:
        text = text.replace(mark, "*")
    return text
