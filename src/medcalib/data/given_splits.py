"""Divisions that others have made: a column of a table, lists of ids in text files, the folds of nnU-Net."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.splits import set_aside
from medcalib.errors import UserError, listed, plain_reason, suggestion
from medcalib.files.tables import read_text_file
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["column_parts", "fold_parts", "listed_parts", "named_part", "split_by_parts"]

_OTHER_NAMES = {
    "train": SplitKeys.TRAINING,
    "tr": SplitKeys.TRAINING,
    "val": SplitKeys.VALIDATION,
    "valid": SplitKeys.VALIDATION,
    "dev": SplitKeys.VALIDATION,
    "testing": SplitKeys.TEST,
    "ts": SplitKeys.TEST,
    "calib": SplitKeys.CALIBRATION,
}


def named_part(name: str, where: str) -> str:
    """The part of a split that a name stands for, in any case of letters.

    Args:
        name: such as ``training``, ``train`` or ``val``.
        where: where it stands, for the message.

    Raises:
        UserError: it stands for none.

    Example:
        >>> named_part("Train", "cases.csv"), named_part("calibration", "cases.csv")
        ('training', 'calibration')
    """
    word = name.strip().casefold()
    known = {part.value: part for part in SplitKeys} | _OTHER_NAMES
    if word not in known:
        raise UserError(
            f"{where} has the part {name!r}, but a split has the parts training, validation, test and calibration"
            f"{suggestion(word, known)}"
        )
    return known[word].value


def listed_parts(root: Path, lists: Mapping[str, str]) -> dict[str, str]:
    r"""The part of every case by lists of ids in text files, one id a line.

    Args:
        root: folder below which the files lie.
        lists: path of the file by part.

    Returns:
        Part by case id. Empty lines and those that begin with ``#`` are passed over.

    Raises:
        UserError: a file is missing, a part is unknown, or a case is in two lists.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("case_1\ncase_2\n")
        ...     listed_parts(Path(folder), {"train": "a.txt"})
        {'case_1': 'training', 'case_2': 'training'}
    """
    parts: dict[str, str] = {}
    for name, file in lists.items():
        part = named_part(str(name), "data::cases::lists")
        path = root / Path(file).expanduser()
        if not path.is_file():
            raise UserError(f"The list '{path}' does not exist: correct it in data::cases::lists.")
        for line in read_text_file(path).splitlines():
            case = line.strip()
            if not case or case.startswith("#"):
                continue
            if parts.get(case, part) != part:
                raise UserError(f"Case '{case}' is in the lists of {parts[case]} and of {part}: remove it from one.")
            parts[case] = part
    return parts


def fold_parts(path: Path, fold: int, held_out: str = SplitKeys.TEST.value) -> dict[str, str]:
    """The part of every case in a fold of nnU-Net's ``splits_final.json``.

    Args:
        path: the file: a list with ``train`` and ``val``, lists of ids, for each fold.
        fold: which fold, from 0.
        held_out: what the cases of ``val`` are. Since nnU-Net reports its results on them, they are the test part,
            unless there are other test cases.

    Returns:
        Part by case id.

    Raises:
        UserError: the file cannot be read or is something else, or there is no such fold.
    """
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({plain_reason(error)}): give the splits_final.json.") from None
    if not isinstance(folds, list) or not all(
        isinstance(one, dict) and all(isinstance(one.get(key), list) for key in ("train", "val")) for one in folds
    ):
        raise UserError(
            f"'{path}' is no splits_final.json, which is a list with 'train' and 'val', lists of case ids, for each "
            f"fold: give another file."
        )
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < len(folds):
        raise UserError(f"fold is {fold!r}, but '{path}' has the folds 0 to {len(folds) - 1}: choose one of them.")
    parts = dict.fromkeys(map(str, folds[fold]["train"]), SplitKeys.TRAINING.value)
    for case in map(str, folds[fold]["val"]):
        if case in parts:
            raise UserError(f"Case '{case}' is in both train and val of fold {fold} of '{path}': keep it in one.")
        parts[case] = held_out
    return parts


def column_parts(
    cases: Sequence[str],
    folds: Mapping[str, str],
    fold: int,
    where: str,
    parts: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The part of every case in a fold of a column of a table.

    The rule is that of `fold_parts`: the fold is the test part, unless there are other test cases, with which it is the
    validation part. The cases of all other folds are for training.

    Args:
        cases: ids of all cases.
        folds: fold by case id, whole numbers from 0 as texts.
        fold: which fold is held out.
        where: what says so, for messages.
        parts: part by case id of cases that are in no fold, ``test`` or ``calibration``; those of ``training`` are.
        groups: by case id what must lie in one fold, such as the patient.

    Returns:
        Part by case id.

    Raises:
        UserError: a case has no fold or is in none and yet has one, the folds are not numbered from 0 without a gap,
            there is a single one or not the one asked for, or a group is in two of them.

    Example:
        >>> folds = {"a": "0", "b": "0", "c": "1"}
        >>> column_parts("abc", folds, 1, "fold")
        {'a': 'training', 'b': 'training', 'c': 'test'}
        >>> column_parts("abcd", folds, 1, "fold", {"d": "test"})
        {'a': 'training', 'b': 'training', 'c': 'validation', 'd': 'test'}
    """
    parts = parts or {}
    training, test = SplitKeys.TRAINING.value, SplitKeys.TEST.value
    apart = {case: part for case, part in parts.items() if part != training}
    if chosen := [case for case, part in apart.items() if part == SplitKeys.VALIDATION]:
        raise UserError(
            f"Case '{chosen[0]}' is for validation, but {_lower(where)} divides the cases in folds, which decides "
            f"that: say test, calibration or nothing of it."
        )
    if both := [case for case in apart if folds.get(case)]:
        raise UserError(
            f"{where} puts case '{both[0]}' in fold {folds[both[0]]}, but it is for {apart[both[0]]}, whose cases are "
            f"in no fold: remove one of the two."
        )
    if without := [case for case in cases if case not in apart and not folds.get(case)]:
        raise UserError(
            f"{where} has no fold for case '{without[0]}' ({len(without)} such case{'s' * (len(without) > 1)}): add "
            f"it, or make it a test case with the column that split_column names."
        )
    numbers = _fold_numbers(folds, where)
    if isinstance(fold, bool) or not isinstance(fold, int) or fold not in numbers.values():
        raise UserError(
            f"fold is {fold!r}, but {_lower(where)} has the folds 0 to {max(numbers.values())}: choose one."
        )
    places: dict[str, tuple[str, str]] = {}
    for case in cases:
        place = f"part {apart[case]}" if case in apart else f"fold {numbers[case]}"
        first = places.setdefault((groups or {}).get(case, case), (case, place))
        if first[1] != place:
            raise UserError(
                f"{where} puts case '{first[0]}' in {first[1]} and case '{case}' in {place}, but both are of "
                f"'{(groups or {})[case]}', which would be tested by a network trained on it: put them together."
            )
    held_out = SplitKeys.VALIDATION.value if test in apart.values() else test
    return {**{case: held_out if number == fold else training for case, number in numbers.items()}, **apart}


def _fold_numbers(folds: Mapping[str, str], where: str) -> dict[str, int]:
    """The fold of every case, checked to be numbered from 0 without a gap."""
    for case, name in folds.items():
        if not (name.isascii() and name.isdecimal()):
            raise UserError(f"{where} has the fold '{name}' of case '{case}': number folds 0, 1, 2 and so on.")
    numbers = {case: int(name) for case, name in folds.items()}
    known = sorted(set(numbers.values()))
    if known != list(range(len(known))):
        empty = next(number for number, found in enumerate(known) if number != found)
        raise UserError(
            f"{where} has the folds {listed([*map(str, known)])}, so that fold {empty} is empty: number them "
            f"from 0 without a gap."
        )
    if len(known) < 2:
        raise UserError(
            f"{where} has {f'the single fold {known[0]}' if known else 'no folds'}, but two are needed at least."
        )
    return numbers


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def split_by_parts(
    cases: Sequence[Case],
    parts: Mapping[str, str],
    where: str,
    validation_fraction: float = 0.1,
    seed: int = 0,
    group: Callable[[Case], str] | None = None,
) -> Split:
    """Divide cases as somebody else has divided them.

    Without validation cases, a share of the training cases is set aside for validation.

    Args:
        cases: the cases to divide. Those without a part are left out, and a warning says so.
        parts: the part by case id.
        where: what says so, for messages.
        validation_fraction: the share that is set aside, where it has to be.
        seed: of that division.
        group: names the group of a case that stays together in that division.

    Returns:
        The split.

    Raises:
        UserError: a case does not exist, or the test part or the training part is empty.

    Warns:
        UserWarning: cases have no part.

    Example:
        >>> cases = [{"case": name} for name in "abcd"]
        >>> split = split_by_parts(cases, {"a": "training", "b": "training", "c": "test", "d": "validation"}, "a.csv")
        >>> {part: [case["case"] for case in found] for part, found in split.items()}
        {'training': ['a', 'b'], 'validation': ['d'], 'test': ['c'], 'calibration': ['d']}
    """
    names = [str(case[CaseKeys.CASE]) for case in cases]
    if unknown := sorted(set(parts) - set(names)):
        raise UserError(
            f"{where} names case '{unknown[0]}', of which there are no files{suggestion(unknown[0], names)}"
        )
    if without := [name for name in names if name not in parts]:
        warnings.warn(f"{where} says nothing of {listed(without)}, which are left out.", stacklevel=2)
    found = {part: [case for case in cases if parts.get(str(case[CaseKeys.CASE])) == part] for part in SplitKeys}
    if not found[SplitKeys.TEST]:
        raise UserError(f"{where} names no test cases, on which results are reported: name some, or let them be drawn.")
    training, validation = found[SplitKeys.TRAINING], found[SplitKeys.VALIDATION]
    if not validation:
        training, validation = set_aside(training, validation_fraction, seed, group)
    return assemble_split(training, validation, found[SplitKeys.TEST], found[SplitKeys.CALIBRATION] or None)
