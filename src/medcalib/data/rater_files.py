"""Which files hold the labels of which rater of a case."""

import glob
import re
from collections.abc import Collection
from pathlib import Path

from medcalib.data.dataset_folders import packed_otherwise, visible
from medcalib.data.file_patterns import CASE

__all__ = ["RATER_MARK", "is_rater_file", "rater_files"]

RATER_MARK = "{rater}"
"""Stands in a pattern for the name of a rater."""


def rater_files(
    root: Path, pattern: str, names: Collection[str], images: Collection[str] = ()
) -> dict[str, dict[str, Path]]:
    """Find the label files of several raters.

    Args:
        root: folder of the dataset.
        pattern: path below it with ``{case}`` and ``{rater}``, each once or several times.
        names: ids of the cases; a file that fits several of them belongs to the longest.
        images: patterns of images, whose files are no labels.

    Returns:
        By case the files by rater, raters in the order of their names; a case without any is left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a_1_ann.png", "a_1_bob.png", "a_10_ann.png"):
        ...         Path(folder, name).touch()
        ...     found = rater_files(Path(folder), "{case}_{rater}.png", ["a_1", "a_10"])
        >>> {case: list(files) for case, files in found.items()}
        {'a_1': ['ann', 'bob'], 'a_10': ['ann']}
    """
    known = set(names)
    found: dict[str, dict[str, Path]] = {}
    forms = [pattern, other] if (other := packed_otherwise(pattern)) else [pattern]
    for form in forms:
        wild = glob.escape(form).replace(glob.escape(CASE), "*").replace(glob.escape(RATER_MARK), "*")
        for path in visible(root, wild):
            if (match := _match(path.relative_to(root).as_posix(), form, known)) is not None:
                case, rater = match
                own = [image.replace(CASE, case) for image in images]
                if path.relative_to(root).as_posix() in {*own, *map(packed_otherwise, own)}:
                    continue
                found.setdefault(case, {}).setdefault(rater, path)
    return {case: dict(sorted(found[case].items())) for case in sorted(found)}


def is_rater_file(file: str, pattern: str, names: Collection[str]) -> bool:
    """Whether a path below the folder of the dataset is a label of one of the cases.

    Example:
        >>> is_rater_file("a_ann.png", "{case}_{rater}.png", {"a"}), is_rater_file("a.png", "{case}_{rater}.png", {"a"})
        (True, False)
    """
    return _match(file, pattern, names) is not None


def _match(name: str, pattern: str, known: Collection[str]) -> tuple[str, str] | None:
    """Case and rater of a file; None if it belongs to no known case."""
    begin = pattern.partition(CASE)[0]
    if RATER_MARK not in begin:
        candidates = [name[len(begin) : end] for end in range(len(name), len(begin), -1)]
    elif (match := _expression(pattern).fullmatch(name)) is not None and match["case"] in known:
        return match["case"], match["rater"]
    else:
        candidates = sorted(known, key=len, reverse=True)
    for case in candidates:
        if case in known and (match := _expression(pattern, case).fullmatch(name)) is not None:
            return case, match["rater"]
    return None


def _expression(pattern: str, case: str | None = None) -> re.Pattern[str]:
    text = re.escape(pattern)
    for mark, group, value in ((CASE, "case", case), (RATER_MARK, "rater", None)):
        first, *others = text.split(re.escape(mark))
        one = f"(?P<{group}>[^/]+)" if value is None else f"(?P<{group}>{re.escape(value)})"
        text = first + (one + f"(?P={group})".join(others) if others else "")
    return re.compile(text)
