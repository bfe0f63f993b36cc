"""Case lists of the Medical Segmentation Decathlon."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from medcalib.data.case_tables import case_rows, table_parts
from medcalib.data.cases import Case, Split, split_cases
from medcalib.data.dataset_folders import Download, make_case, nifti_names
from medcalib.data.given_splits import split_by_parts
from medcalib.data.splits import grouped, split_groups
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["decathlon_cases", "patient_of"]

_DOWNLOAD = Download(
    "the folder of one Decathlon task, which holds imagesTr and labelsTr",
    "the tasks can be downloaded from http://medicaldecathlon.com",
)
_SUFFIX = ".nii.gz"
# over the labelled voxels, mean intensities of 1 and 2, 3 and 4, ... go together (rank correlation 0.9 to 1), those of
# 2 and 3, 4 and 5, ... do not
_BOTH_SIDES = re.compile(r"hippocampus_[0-9]+")


def decathlon_cases(
    dataset_dir: str | Path,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    cases_per_patient: int | None = None,
    table: str | None = None,
    split_column: str | None = None,
    fold_column: str | None = None,
    fold: int = 0,
) -> Split:
    """List the labelled cases of a Decathlon task and divide them.

    The images lie in ``imagesTr``, their labels under the same names in ``labelsTr``. A case is named by its file
    without ``.nii.gz``; a task with several modalities keeps them in one 4D file. Hidden files are passed over: the
    official archives carry a ``._`` twin of every file.

    Args:
        dataset_dir: folder of the task, such as ``Task04_Hippocampus``.
        fractions: shares of training, validation and test.
        seed: seed of the division.
        cases_per_patient: how many consecutive numbers, counted from 1, are of one patient and stay together. If None,
            2 where every case is called ``hippocampus_<number>`` as in Task04, of which 1 and 2, 3 and 4 and so on are
            the two sides of a person, else 1.
        table: path of a csv, below the folder or anywhere, with the column ``case``, a row for every case, and how the
            cases are divided in one of the next two, or both.
        split_column: its column with the part of each case, as of `medcalib.data.pattern_cases`.
        fold_column: its column with the fold of each case, as of `medcalib.data.pattern_cases`.
        fold: which fold is held out, from 0.

    Returns:
        The split. See :func:`~medcalib.data.split_cases` for how cases are divided, and
        :func:`~medcalib.data.split_groups` for how patients are.

    Raises:
        UserError: if the folder is missing or laid out differently, if an image has no label or a label no image, if
            the cases cannot fill every part of the split, or if ``cases_per_patient`` is no whole number of at least 1.
    """
    root = _DOWNLOAD.root(dataset_dir)
    images, labels = root / "imagesTr", root / "labelsTr"
    names = {name for folder in (images, labels) for name in nifti_names(folder)}
    cases = [make_case(name, images / f"{name}{_SUFFIX}", labels / f"{name}{_SUFFIX}") for name in names]
    complete = _DOWNLOAD.complete(cases, root, f"imagesTr/*{_SUFFIX} with labelsTr/*{_SUFFIX}")
    patient = patient_of(complete, cases_per_patient)
    complete = grouped(complete, patient)
    if columns := [column for column in (split_column, fold_column) if column]:
        may_be_empty = columns if fold_column else ()
        rows = case_rows(root, table, columns, [case[CaseKeys.CASE] for case in complete], may_be_empty)
        where, parts = table_parts(rows, complete, split_column, fold_column, fold, patient)
        return split_by_parts(complete, parts, where, fractions[1] / (fractions[0] + fractions[1]), seed, patient)
    by_case = split_cases(complete, fractions, seed)
    return by_case if patient is None else split_groups(complete, fractions[1], fractions[2], seed, patient)


def patient_of(cases: Sequence[Case], cases_per_patient: int | None = None) -> Callable[[Case], str] | None:
    """The patient of a case where patients have cases of consecutive numbers; None where every case is a patient.

    Args:
        cases: all cases of a dataset.
        cases_per_patient: as of `decathlon_cases`.

    Raises:
        UserError: ``cases_per_patient`` is no whole number of at least 1; on call, that a name has no number.

    Example:
        >>> patient = patient_of([{"case": "hippocampus_003"}, {"case": "hippocampus_004"}])
        >>> patient({"case": "hippocampus_003"}) == patient({"case": "hippocampus_004"})
        True
    """
    if cases_per_patient is not None and (
        isinstance(cases_per_patient, bool) or not isinstance(cases_per_patient, int) or cases_per_patient < 1
    ):
        raise UserError(f"cases_per_patient is {cases_per_patient!r}: give a whole number of at least 1.")
    number = cases_per_patient
    if number is None:
        number = 2 if all(_BOTH_SIDES.fullmatch(case[CaseKeys.CASE]) for case in cases) else 1
    return None if number == 1 else lambda case: str((_number(case) - 1) // number)


def _number(case: Case) -> int:
    """The number of ``hippocampus_001``."""
    name = case[CaseKeys.CASE]
    if not (digits := re.search(r"[0-9]+$", name)):
        raise UserError(
            f"Case '{name}' has no number at the end of its name, from which its patient follows: rename its files, or "
            f"set data::cases::cases_per_patient to 1."
        )
    return int(digits[0])
