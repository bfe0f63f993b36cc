"""Case lists of ISLES 2018, the ischaemic stroke lesion segmentation challenge."""

import re
import warnings
from pathlib import Path

from medcalib.data.cases import Case, Split
from medcalib.data.dataset_folders import Download, make_case, nifti_names, visible
from medcalib.data.splits import split_fold, split_fold_of_neighbours
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["isles_cases"]

_DOWNLOAD = Download(
    "the folder that holds TRAINING, or to that of the preprocessed cases case_1, case_2 and so on",
    "the data can be had from http://www.isles-challenge.org",
)
_CHANNELS = ("CT", "CT_Tmax", "CT_MTT", "CT_CBF", "CT_CBV")
_LABEL = "OT"
_COLUMNS = ("case", "patient")


def isles_cases(
    dataset_dir: str | Path,
    fold: int = 0,
    validation_fraction: float = 0.1,
    seed: int = 0,
    patients: str | Path | None = None,
) -> Split:
    """List the labelled cases of ISLES 2018, divided for a cross-validation with five folds.

    Two layouts are known: the download with ``TRAINING/case_1/SMIR.Brain.XX.O.CT_Tmax.<id>/<same name>.nii``, and the
    flat one that is resampled to 2 mm, ``case_1/CT_Tmax_2mm.nii.gz``. Cases are named by their folders.

    The 94 cases are of 63 patients, many of whom have two slabs, and two slabs of one patient must not be on two sides
    of the split. Names, numbers and sizes of the files do not say which cases belong together; the challenge has a list
    that does (``Train_40_A`` is case 64 and ``Train_40_B`` case 65). With such a list as ``patients`` no patient is
    divided. Without it, a warning is given, and use is made of what is known: slabs of a patient have consecutive
    numbers. Folds are runs of numbers, and cases beside a border are left out (`split_fold_of_neighbours`).

    Args:
        dataset_dir: folder that holds ``TRAINING``, or the folders ``case_*``.
        fold: which of the five folds is the test part, 0 to 4.
        validation_fraction: share of the other cases that is for validation.
        seed: seed of the folds and of that division.
        patients: csv with the columns ``case``, such as ``case_64``, and ``patient``, such as ``Train_40`` or, as in
            the list of the challenge, ``Train_40_A``; a path in ``dataset_dir`` or an absolute one.

    Returns:
        The split. Channels are CT, Tmax, MTT, CBF, CBV.

    Raises:
        UserError: if the folder is missing or laid out differently, if a file of a case is missing or there twice, if
            there is no such fold, if there are too few cases, or if the list of patients lacks a column or a case.
    """
    root = _DOWNLOAD.root(dataset_dir)
    folders = visible(root / "TRAINING", "case_*") or visible(root, "case_*")
    cases = _DOWNLOAD.complete(
        [_case(folder) for folder in folders if folder.is_dir()],
        root,
        "TRAINING/case_*/SMIR.Brain.*.{CT,CT_Tmax,CT_MTT,CT_CBF,CT_CBV,OT}.*/*.nii or case_*/CT_2mm.nii.gz",
    )
    if patients is not None:
        patient = _patients(root / Path(patients).expanduser(), cases)
        return split_fold(cases, fold, 5, validation_fraction, seed, lambda case: patient[case[CaseKeys.CASE]])
    split = split_fold_of_neighbours(cases, fold, _number, 5, validation_fraction, seed)
    left_out = len(cases) - sum(len(split[part]) for part in ("training", "validation", "test"))
    warnings.warn(
        f"Nothing in '{root}' says which of the {len(cases)} cases are slabs of one patient, so that consecutive "
        f"numbers are kept together and {left_out} case(s) beside the borders of the parts left out; give a csv with "
        f"the columns case and patient as data::cases::patients to divide patients.",
        stacklevel=2,
    )
    return split


def _number(case: Case) -> int:
    """The number of ``case_64``."""
    name = case[CaseKeys.CASE]
    if not (digits := re.search(r"[0-9]+$", name)):
        raise UserError(f"Case '{name}' has no number at the end of its name, as in the download: rename its folder.")
    return int(digits[0])


def _patients(path: Path, cases: list[Case]) -> dict[str, str]:
    """The patient of each case, from a csv."""
    if not path.is_file():
        raise UserError(f"The list '{path}' does not exist: correct data::cases::patients.")
    found: dict[str, str] = {}
    columns, rows = read_table(path)
    if lacking := [column for column in _COLUMNS if column not in columns]:
        raise UserError(
            f"'{path}' lacks the column '{lacking[0]}', it has {', '.join(columns) or 'none'}: give "
            f"data::cases::patients a csv with the columns {' and '.join(_COLUMNS)}."
        )
    for row in rows:
        case, patient = (row.get(column, "") for column in _COLUMNS)
        if case in found:
            raise UserError(f"'{path}' has two rows for '{case}': remove one.")
        if patient:
            # the challenge tells the slabs of a patient apart by letters
            found[case] = re.sub(r"_[A-Z]$", "", patient)
    for case in cases:
        if (name := case[CaseKeys.CASE]) not in found:
            raise UserError(f"'{path}' has no patient for case '{name}': add it.")
    return found


def _case(folder: Path) -> Case:
    return make_case(folder.name, [_volume(folder, channel) for channel in _CHANNELS], _volume(folder, _LABEL))


def _volume(folder: Path, name: str) -> Path:
    """The file of one channel; where there is none, the path or pattern that was looked for."""
    if nifti_names(folder, "*_2mm"):
        return folder / f"{name}_2mm.nii.gz"
    pattern = f"SMIR.Brain.*.{name}.*/SMIR.Brain.*.{name}.*.nii"
    found = visible(folder, pattern) or visible(folder, f"{pattern}.gz")
    if len(found) > 1:
        raise UserError(
            f"Case '{folder.name}' has {len(found)} files for {name}, '{found[0]}' and '{found[1]}': keep one of them."
        )
    return found[0] if found else folder / pattern
