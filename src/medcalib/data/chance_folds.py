"""Divide the cases of any split anew, in folds by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medcalib.data.cases import Case, Split, checked_split
from medcalib.data.splits import split_fold
from medcalib.errors import UserError
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["split_in_folds"]


def split_in_folds(
    split: Mapping[str, Sequence[Case]],
    fold: int,
    num_folds: int = 5,
    seed: int = 0,
    calibration_cases: Sequence[str | Mapping[str, Any]] | None = None,
) -> Split:
    """The split of one fold of a cross-validation over all labelled cases of a split, whatever part they were in.

    Cases of one ``group``, such as a patient, stay together. The fold is the test part; of the others as large a share
    is for validation as the split has beside its training part. Every case is a test case of one of the folds.

    Args:
        split: as the function that ``data::cases`` names returns it.
        fold: which fold is the test part, counted from 0.
        num_folds: number of folds.
        seed: another seed, other folds.
        calibration_cases: as of `medcalib.data.checked_split`.

    Returns:
        The split; calibration uses the validation cases.

    Raises:
        UserError: as of `medcalib.data.checked_split` and `medcalib.data.split_fold`; or a case is in two parts with
            different files.

    Example:
        >>> names = [f"case_{number}" for number in range(10)]
        >>> cases = [{"case": name, "image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"} for name in names]
        >>> split = {"training": cases[:7], "validation": cases[7:8], "test": cases[8:]}
        >>> [len(split_in_folds(split, fold, num_folds=5)["test"]) for fold in range(5)]
        [2, 2, 2, 2, 2]
    """
    parts = checked_split(split)
    known: dict[str, Case] = {}
    for case in (case for cases in parts.values() for case in cases):
        name = str(case[CaseKeys.CASE])
        if case.get(CaseKeys.LABEL) is None:
            raise UserError(
                f"Case '{name}' has no label, so it cannot take its turn in a cross-validation: leave it out, or "
                f"generate the bundle without --folds."
            )
        known.setdefault(name, case)
    # with the id in front of what is a group, no case is taken for a member of one
    groups = {name: f"group {case[CaseKeys.GROUP]}" if CaseKeys.GROUP in case else name for name, case in known.items()}

    def group(case: Case) -> str:
        return groups[str(case[CaseKeys.CASE])]

    of_training, of_validation = (
        len({group(case) for case in parts[part.value]}) for part in (SplitKeys.TRAINING, SplitKeys.VALIDATION)
    )
    share = of_validation / (of_training + of_validation)
    folded = split_fold(list(known.values()), fold, num_folds, share, seed, group)
    return checked_split(folded, calibration_cases)
