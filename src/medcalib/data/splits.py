"""Divide cases at random so that those of one group stay together: set one part aside, make three, or k folds."""

import hashlib
from collections.abc import Callable, Sequence

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["grouped", "set_aside", "split_fold", "split_fold_of_neighbours", "split_groups"]


def grouped(cases: Sequence[Case], group: Callable[[Case], str] | None) -> list[Case]:
    """Cases that say which of them belong together, for those who divide them again.

    Args:
        cases: the cases.
        group: names the group of a case; if None, the cases are returned as they are.

    Example:
        >>> grouped([{"case": "p1_ed"}, {"case": "p1_es"}], lambda case: case["case"].split("_")[0])
        [{'case': 'p1_ed', 'group': 'p1'}, {'case': 'p1_es', 'group': 'p1'}]
    """
    if group is None:
        return list(cases)
    return [{**case, CaseKeys.GROUP.value: str(group(case))} for case in cases]


def set_aside(
    cases: Sequence[Case], fraction: float, seed: int = 0, group: Callable[[Case], str] | None = None
) -> tuple[list[Case], list[Case]]:
    """Set a share of the cases aside, whole groups at a time.

    Groups are ranked by a hash of seed and name, so neither the order of the cases nor the version of a random number
    generator matters.

    Args:
        cases: the cases to divide.
        fraction: share of the groups to set aside, above 0 and below 1, rounded to whole groups but never to none.
        seed: another seed, another division.
        group: names the group of a case, such as its patient; every case is its own by default.

    Returns:
        The cases that stay and those set aside, each in the order given.

    Raises:
        UserError: if fraction or seed is not usable, or if there are fewer than two groups.

    Example:
        >>> cases = [{"case": f"patient{i}_{frame}"} for i in range(5) for frame in ("ed", "es")]
        >>> stay, aside = set_aside(cases, 0.2, group=lambda case: case["case"].split("_")[0])
        >>> [case["case"] for case in aside]
        ['patient0_ed', 'patient0_es']
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise UserError(f"The fraction of cases to set aside is {fraction!r}: give a number above 0 and below 1.")
    ranked = _ranked_groups(cases, seed, group)
    count = max(1, round(fraction * len(ranked)))
    if count >= len(ranked):
        raise UserError(
            f"{len(ranked)} case(s) or group(s) of cases cannot be divided in two parts, one with a share of "
            f"{fraction:g}: add cases or lower the fraction."
        )
    return _divide(cases, set(ranked[:count]), group)


def split_groups(
    cases: Sequence[Case],
    validation_fraction: float,
    test_fraction: float,
    seed: int = 0,
    group: Callable[[Case], str] | None = None,
) -> Split:
    """Divide cases into training, validation and test, whole groups at a time.

    Args:
        cases: the cases to divide.
        validation_fraction: share of all groups that is for validation.
        test_fraction: share of all groups that is for testing; the rest is for training.
        seed: another seed, another division.
        group: names the group of a case, such as its patient; every case is its own by default.

    Returns:
        The split; calibration uses the validation cases.

    Raises:
        UserError: if an argument is not usable, or if there are too few groups.

    Example:
        >>> cases = [{"case": f"case_{i}"} for i in range(10)]
        >>> {part: len(members) for part, members in split_groups(cases, 0.1, 0.2).items()}
        {'training': 7, 'validation': 1, 'test': 2, 'calibration': 1}
    """
    for name, fraction in {"validation_fraction": validation_fraction, "test_fraction": test_fraction}.items():
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
            raise UserError(f"{name} is {fraction!r}: give a number above 0 and below 1.")
    if not validation_fraction + test_fraction < 1:
        raise UserError(
            f"validation_fraction and test_fraction are {validation_fraction:g} and {test_fraction:g}: let their sum "
            f"be below 1, so that something remains for training."
        )
    rest, test = set_aside(cases, test_fraction, seed, group)
    training, validation = set_aside(rest, validation_fraction / (1 - test_fraction), seed, group)
    return assemble_split(training, validation, test)


def split_fold(
    cases: Sequence[Case],
    fold: int,
    num_folds: int = 5,
    validation_fraction: float = 0.1,
    seed: int = 0,
    group: Callable[[Case], str] | None = None,
) -> Split:
    """The split of one fold of a cross-validation.

    The groups are dealt to the folds in turn, so that the sizes of folds differ by at most one group. One fold is the
    test part; of the groups in the others a share is set aside for validation, and the rest is for training.

    Args:
        cases: the cases to divide.
        fold: which fold is the test part, counted from 0.
        num_folds: number of folds.
        validation_fraction: share of the other folds' groups that is for validation.
        seed: another seed, other folds.
        group: names the group of a case; every case is its own by default.

    Returns:
        The split; calibration uses the validation cases.

    Raises:
        UserError: if an argument is not usable, or if there are too few groups.

    Example:
        >>> cases = [{"case": f"case_{i}"} for i in range(10)]
        >>> {part: len(members) for part, members in split_fold(cases, fold=0).items()}
        {'training': 7, 'validation': 1, 'test': 2, 'calibration': 1}
    """
    ranked = _ranked_groups(cases, seed, group)
    _check_fold(fold, num_folds, len(ranked))
    rest, test = _divide(cases, set(ranked[fold::num_folds]), group)
    training, validation = set_aside(rest, validation_fraction, seed, group)
    return assemble_split(training, validation, test)


def split_fold_of_neighbours(
    cases: Sequence[Case],
    fold: int,
    number: Callable[[Case], int],
    num_folds: int = 5,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Split:
    """The split of one fold where two cases of consecutive numbers may belong together, and nobody says which do.

    Cases in the order of their numbers are a ring, which is cut into folds. One fold is the test part, what follows it
    is for validation, and the rest for training. A case beside the border of two parts is left out of the part that can
    spare it, so that no two consecutive numbers are in different parts: up to three cases are in none.

    Args:
        cases: the cases to divide.
        fold: which fold is the test part, counted from 0.
        number: the number of a case.
        num_folds: number of folds.
        validation_fraction: share of the other folds' cases that is for validation.
        seed: another seed, other folds.

    Returns:
        The split; calibration uses the validation cases.

    Raises:
        UserError: if an argument is not usable, or if there are too few cases.

    Example:
        >>> cases = [{"case": f"case_{i}"} for i in range(10)]
        >>> split = split_fold_of_neighbours(cases, 0, lambda case: int(case["case"][5:]))
        >>> [[case["case"][5:] for case in split[part]] for part in ("test", "validation", "training")]
        [['9', '0'], ['2'], ['4', '5', '6', '7']]
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed is {seed!r}: give a whole number.")
    _check_fold(fold, num_folds, len(cases))
    ordered = sorted(cases, key=number)
    start = int(hashlib.sha256(f"{seed}:".encode()).hexdigest(), 16) % len(ordered)
    ring = ordered[start:] + ordered[:start]
    first, last = (len(ring) * place // num_folds for place in (fold, fold + 1))
    test = ring[first:last]
    rest = _apart([*ring[last:], *ring[:first]], test, number)
    size = max(1, round(validation_fraction * (len(ring) - len(test))))
    return assemble_split(_apart(rest[size:], rest[:size], number), rest[:size], test)


def _apart(cases: Sequence[Case], others: Sequence[Case], number: Callable[[Case], int]) -> list[Case]:
    """The cases whose number is not beside that of another one."""
    beside = {number(case) + step for case in others for step in (-1, 1)}
    return [case for case in cases if number(case) not in beside]


def _check_fold(fold: int, num_folds: int, count: int) -> None:
    if isinstance(num_folds, bool) or not isinstance(num_folds, int) or num_folds < 2:
        raise UserError(f"num_folds is {num_folds!r}: give a whole number of at least 2.")
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < num_folds:
        raise UserError(f"fold is {fold!r}: give a whole number from 0 to {num_folds - 1}.")
    if count < num_folds:
        raise UserError(
            f"{count} case(s) or group(s) of cases cannot fill {num_folds} folds: add cases or ask for fewer folds."
        )


def _ranked_groups(cases: Sequence[Case], seed: int, group: Callable[[Case], str] | None) -> list[str]:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed is {seed!r}: give a whole number.")
    names = {_group_name(case, group) for case in cases}
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).hexdigest())


def _divide(
    cases: Sequence[Case], chosen: set[str], group: Callable[[Case], str] | None
) -> tuple[list[Case], list[Case]]:
    return (
        [case for case in cases if _group_name(case, group) not in chosen],
        [case for case in cases if _group_name(case, group) in chosen],
    )


def _group_name(case: Case, group: Callable[[Case], str] | None) -> str:
    return str(case[CaseKeys.CASE] if group is None else group(case))
