"""Cases and splits: what a dataset is to the rest of the package.

A *case* is a dict with the keys of :class:`~medcalib.keys.CaseKeys`; a *split* is a dict from every member of
:class:`~medcalib.keys.SplitKeys` to a list of cases. Both hold nothing but strings and lists, so that they can be
written into a configuration as they are.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medcalib.errors import UserError, listed
from medcalib.keys import CaseKeys, SplitKeys

__all__ = [
    "Case",
    "Split",
    "assemble_split",
    "check_case_name",
    "checked_split",
    "split_cases",
    "split_digest",
]

Case = dict[str, Any]
Split = dict[str, list[Case]]

# a file name may have 255 bytes, and those of results add "_mutual_information.nii.gz" and that they are unfinished
LONGEST_NAME = 160

_DISJOINT_PARTS = (SplitKeys.TRAINING, SplitKeys.VALIDATION, SplitKeys.TEST)


def assemble_split(
    training: Sequence[Case],
    validation: Sequence[Case],
    test: Sequence[Case],
    calibration: Sequence[Case] | None = None,
) -> Split:
    """Put the parts of a split together and check that they do not leak into each other.

    Args:
        training: cases the network learns from.
        validation: cases that choose the checkpoint.
        test: cases the results are reported on.
        calibration: cases the calibrators are fitted on; the validation cases by default.

    Returns:
        The split, with plain strings as keys.

    Raises:
        UserError: if a part is empty, holds a case twice or one whose name cannot be that of a folder, or shares one
            with a part it must be kept apart from.

    Example:
        >>> split = assemble_split([{"case": "a"}], [{"case": "b"}], [{"case": "c"}])
        >>> split["calibration"]
        [{'case': 'b'}]
    """
    parts = {
        SplitKeys.TRAINING: training,
        SplitKeys.VALIDATION: validation,
        SplitKeys.TEST: test,
        SplitKeys.CALIBRATION: validation if calibration is None else calibration,
    }
    ids = {part: [case[CaseKeys.CASE] for case in cases] for part, cases in parts.items()}
    for part, names in ids.items():
        if not names:
            raise UserError(f"The {part} part of the split is empty: give it at least one case.")
        for name in names:
            check_case_name(str(name), f"A case in the {part} part of the split")
        if repeated := sorted(name for name, number in Counter(names).items() if number > 1):
            raise UserError(
                f"Case '{repeated[0]}' appears twice in the {part} part of the split: give each case its own name."
            )
    apart = [(one, other) for one in _DISJOINT_PARTS for other in _DISJOINT_PARTS if one < other]
    apart += [(SplitKeys.CALIBRATION, part) for part in (SplitKeys.TRAINING, SplitKeys.TEST)]
    for one, other in apart:
        if shared := sorted(set(ids[one]) & set(ids[other])):
            raise UserError(
                f"Case '{shared[0]}' is in both the {one} and the {other} part of the split: keep it in one of them."
            )
    return {part.value: list(cases) for part, cases in parts.items()}


def check_case_name(name: str, what: str = "A case") -> None:
    """Check that predictions of a case can be written to a folder and files of its name.

    Args:
        name: the case id.
        what: whose name it is, for the message.

    Raises:
        UserError: the name is empty, of dots alone, too long or not UTF-8, or holds a slash or a line break.

    Example:
        >>> check_case_name("patient_007")
    """
    called = f"{what} is called {name!r}"
    if not name.strip(". ") or "/" in name:
        raise UserError(
            f"{called}: its predictions are written to a folder of that name, so give it a name without / and not of "
            f"dots alone."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UserError(
            f"{called}, which is no UTF-8, as happens to names in archives of Windows: rename the file, or unpack the "
            f"archive with the encoding of its names, such as unzip -O cp437."
        )
    if not name.isprintable():
        raise UserError(f"{called}, which holds a line break or another sign that cannot be printed: rename it.")
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(
            f"{called}, which takes {len(name.encode())} bytes: names of the result files begin with it, so give it a "
            f"name of at most {LONGEST_NAME}."
        )


def checked_split(
    split: Mapping[str, Sequence[Case]], calibration_cases: Sequence[str | Mapping[str, Any]] | None = None
) -> Split:
    """Check a split that any function returned, and choose the cases on which calibrators are fitted.

    Args:
        split: the lists ``training``, ``validation`` and ``test``, and maybe ``calibration``.
        calibration_cases: ids of cases of the split, or further cases as dictionaries; if None, those of
            ``calibration``, by default the validation cases.

    Returns:
        The split.

    Raises:
        UserError: if it is no split, if a case has no image or, except for testing, no label, if an id of
            ``calibration_cases`` is in none of its parts, or as of :func:`assemble_split`.

    Example:
        >>> a, b, c, d = ({"case": name, "image": f"{name}.png", "label": f"{name}_mask.png"} for name in "abcd")
        >>> split = {"training": [a], "validation": [b, c], "test": [d]}
        >>> [case["case"] for case in checked_split(split, calibration_cases=["c"])["calibration"]]
        ['c']
    """
    parts = {str(part): cases for part, cases in split.items()} if isinstance(split, Mapping) else {}
    known = {part.value for part in SplitKeys}
    if not known - {SplitKeys.CALIBRATION.value} <= parts.keys() <= known:
        told = f"the keys {', '.join(parts)}" if isinstance(split, Mapping) else f"a {type(split).__name__}"
        raise UserError(
            f"The function that data::cases names returned {told}: it must return a dictionary with the lists "
            f"training, validation, test and, if they are others than the validation cases, calibration."
        )
    for part, cases in parts.items():
        for number, case in enumerate(cases):
            if not isinstance(case, Mapping) or CaseKeys.CASE not in case:
                raise UserError(
                    f"Entry {number} of the {part} part that data::cases returned is {case!r}: it must be a dictionary "
                    f"with the keys case, image and label."
                )
            needed = [CaseKeys.IMAGE] if part == SplitKeys.TEST else [CaseKeys.IMAGE, CaseKeys.LABEL]
            if lacking := [key for key in needed if key not in case]:
                raise UserError(
                    f"Case '{case[CaseKeys.CASE]}' of the {part} part that data::cases returned has no {lacking[0]}: "
                    f"add it, or leave out the case."
                )
    if calibration_cases is not None:
        parts[SplitKeys.CALIBRATION.value] = _chosen_cases(parts, calibration_cases)
    return assemble_split(**parts)


def split_cases(cases: Sequence[Case], fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Split:
    """Divide cases at random into training, validation and test.

    The cases are ranked by a hash of seed and case name. The result therefore depends on neither the order in which the
    cases are given nor the version of a random number generator.

    Args:
        cases: the cases to divide.
        fractions: shares of training, validation and test, each above 0, with sum 1. The last two are rounded to whole
            cases but never to none; training takes the rest.
        seed: another seed, another division.

    Returns:
        The split; calibration uses the validation cases.

    Raises:
        UserError: if the fractions are not three positive shares of 1, if the seed is not a whole number, or if there
            are too few cases for one in every part.

    Example:
        >>> cases = [{"case": f"case_{i}"} for i in range(10)]
        >>> {part: len(members) for part, members in split_cases(cases).items()}
        {'training': 7, 'validation': 1, 'test': 2, 'calibration': 1}
    """
    shares = list(fractions) if isinstance(fractions, Sequence) else [fractions]
    if not all(isinstance(share, (int, float)) for share in shares) or (
        len(shares) != 3 or not min(shares) > 0 or not abs(sum(shares) - 1) < 1e-6
    ):
        raise UserError(
            f"fractions is {shares}: give three numbers above 0 whose sum is 1 (training, validation, test)."
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed is {seed!r}: give a whole number.")
    num_validation, num_test = (max(1, round(share * len(cases))) for share in shares[1:])
    num_training = len(cases) - num_validation - num_test
    if num_training < 1:
        raise UserError(
            f"{len(cases)} case(s) cannot fill a split of {shares[0]:g} : {shares[1]:g} : {shares[2]:g}: add cases or "
            "change the fractions so that training, validation and test get at least one each."
        )
    ranked = sorted(
        cases,
        key=lambda case: hashlib.sha256(f"{seed}:{case[CaseKeys.CASE]}".encode(errors="surrogateescape")).hexdigest(),
    )
    return assemble_split(
        training=ranked[:num_training],
        validation=ranked[num_training : num_training + num_validation],
        test=ranked[num_training + num_validation :],
    )


def split_digest(split: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Fingerprint of who is in which part of a split.

    Only case names enter, so the same split has the same digest on every machine; neither the order of the parts nor
    that of the cases within one matters.

    Args:
        split: the split.

    Returns:
        SHA-256 as 64 hexadecimal digits.

    Example:
        >>> split = assemble_split([{"case": "a"}], [{"case": "b"}], [{"case": "c"}])
        >>> split_digest(split)[:8]
        '1c7b9687'
    """
    names = {str(part): sorted(str(case[CaseKeys.CASE]) for case in cases) for part, cases in split.items()}
    canonical = json.dumps(names, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _chosen_cases(parts: Mapping[str, Sequence[Case]], chosen: Sequence[str | Mapping[str, Any]]) -> list[Case]:
    if isinstance(chosen, str) or not isinstance(chosen, Sequence):
        raise UserError(f"calibration_cases is {chosen!r}: give a list of case ids.")
    known = {str(case[CaseKeys.CASE]): case for cases in parts.values() for case in cases}
    found = []
    for case in chosen:
        if isinstance(case, Mapping) and CaseKeys.CASE in case:
            found.append(dict(case))
        elif str(case) in known:
            found.append(known[str(case)])
        else:
            raise UserError(
                f"calibration_cases lists {case!r}, which is no case of the dataset: its validation cases are "
                f"{listed([case[CaseKeys.CASE] for case in parts[SplitKeys.VALIDATION]])}."
            )
    return found
