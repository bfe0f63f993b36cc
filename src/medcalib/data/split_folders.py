"""Divisions by the folders in which cases lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress

from medcalib.data.file_patterns import PART
from medcalib.data.given_splits import named_part
from medcalib.errors import UserError, listed
from medcalib.keys import SplitKeys

__all__ = ["folder_parts", "named_folders", "validation_is_tested"]


def folder_parts(cases: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The part of every case by the folder that stands for ``{split}``, in any of its usual spellings.

    Without a folder of test cases, those of the validation folder are the test part, since results must be reported on
    some.

    Args:
        cases: by case id what stands for each mark of the pattern.

    Returns:
        Part by case id, without the cases of folders that stand for no part.

    Warns:
        UserWarning: a folder stands for no part.

    Example:
        >>> folder_parts({"a": {"{split}": "Train"}, "b": {"{split}": "valid"}, "c": {"{split}": "test"}})
        {'a': 'training', 'b': 'validation', 'c': 'test'}
        >>> folder_parts({"a": {"{split}": "train"}, "b": {"{split}": "val"}})
        {'a': 'training', 'b': 'test'}
    """
    known = named_folders(cases)
    if unknown := sorted({values[PART] for values in cases.values()} - set(known)):
        number = sum(values[PART] in unknown for values in cases.values())
        warnings.warn(
            f"{listed(unknown)} in the place of {PART} stand{'s' * (len(unknown) == 1)} for no part of a split, so "
            f"{number} case{'s are' if number > 1 else ' is'} left out; parts are train, val, test and calibration.",
            stacklevel=2,
        )
    if validation_is_tested(known.values()):
        known = {
            folder: SplitKeys.TEST.value if part == SplitKeys.VALIDATION else part for folder, part in known.items()
        }
    return {case: known[values[PART]] for case, values in cases.items() if values[PART] in known}


def named_folders(cases: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The part that each folder stands for, in the order of the parts; those that stand for none are left out.

    Args:
        cases: as of `folder_parts`.

    Example:
        >>> named_folders({"a": {"{split}": "Train"}, "b": {"{split}": "backup"}})
        {'Train': 'training'}
    """
    known: dict[str, str] = {}
    for folder in sorted({values[PART] for values in cases.values()}):
        with suppress(UserError):
            known[folder] = named_part(folder, "A folder")
    order = [part.value for part in SplitKeys]
    return dict(sorted(known.items(), key=lambda one: order.index(one[1])))


def validation_is_tested(parts: Iterable[str]) -> bool:
    """Whether there are validation cases, but no test cases.

    Example:
        >>> validation_is_tested(["training", "validation"]), validation_is_tested(["training", "test"])
        (True, False)
    """
    found = set(parts)
    return SplitKeys.VALIDATION in found and SplitKeys.TEST not in found
