"""Case lists of M&Ms, the multi-centre, multi-vendor and multi-disease cardiac segmentation challenge of 2020."""

from collections.abc import Mapping
from pathlib import Path

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.dataset_folders import Download, make_case, nifti_names, visible
from medcalib.data.splits import grouped
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["mnms_cases"]

_DOWNLOAD = Download(
    "the folder that holds Training, Validation and Testing",
    "the data can be had from https://www.ub.edu/mnms",
)
_TABLE = "*M&Ms*.csv"
_CODE, _VENDOR_NAME, _CENTRE = "External code", "VendorName", "Centre"
_PHASES = ("ED", "ES")
_COLUMNS = (_CODE, _VENDOR_NAME, "Vendor", _CENTRE, *_PHASES)
_NOT_CODES = {"Labeled", "Unlabeled"}


def mnms_cases(dataset_dir: str | Path) -> Split:
    """List the labelled frames of M&Ms, in the parts that the challenge made.

    Every subject has two cases, end-diastole and end-systole, named by the subject's code, as ``A0S9V9_ed`` and
    ``A0S9V9_es``. They lie in 4D files ``A0S9V9_sa.nii.gz`` and ``A0S9V9_sa_gt.nii.gz``, of which the key ``frame`` of
    the case names the volume, or in files of their own, ``A0S9V9_ed.nii.gz`` and ``A0S9V9_ed_gt.nii.gz``. Frames,
    vendor and centre stand in the csv whose name holds ``M&Ms``; vendor and centre become ``attributes`` of the case.

    Args:
        dataset_dir: folder that holds ``Training`` (with ``Labeled`` or the subjects themselves), ``Validation``,
            ``Testing``, and the csv, which may lie in its parent, too.

    Returns:
        The split.

    Raises:
        UserError: if the folder is missing or laid out differently, if a file of a case is missing, if there is no csv,
            if it lacks a column or the row of a subject, or if a frame is not a whole number.
    """
    root = _DOWNLOAD.root(dataset_dir)
    labelled = root / "Training" / "Labeled"
    folders = {
        "training": labelled if labelled.is_dir() else root / "Training",
        "validation": root / "Validation",
        "test": root / "Testing",
    }
    subjects = {}
    for part, folder in folders.items():
        subjects[part] = [path for path in visible(folder, "*") if path.is_dir() and path.name not in _NOT_CODES]
        if not subjects[part]:
            raise _DOWNLOAD.nothing_matched(root, _pattern(folder.relative_to(root)))
    table, rows = _read_table(root)
    parts = {}
    for part, paths in subjects.items():
        found = [case for path in paths for case in _cases_of_subject(path, table, rows)]
        complete = _DOWNLOAD.complete(found, root, _pattern(folders[part].relative_to(root)))
        parts[part] = grouped(complete, _subject)
    return assemble_split(**parts)


def _subject(case: Case) -> str:
    return case[CaseKeys.CASE].rpartition("_")[0]


def _pattern(folder: Path) -> str:
    return f"{folder}/<code>/<code>_{{sa,ed,es}}.nii.gz"


def _read_table(root: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    tables = visible(root, _TABLE) or visible(root.parent, _TABLE)
    if not tables:
        raise UserError(
            f"No file matched {_TABLE} in '{root}' or its parent: put the table of the download there, which says what "
            f"the frames, vendor and centre of a subject are ({_DOWNLOAD.source})."
        )
    path = tables[-1]  # the names begin with a date
    columns, rows = read_table(path)
    if lacking := [column for column in _COLUMNS if column not in columns]:
        raise UserError(
            f"'{path}' lacks the column '{lacking[0]}', it has {', '.join(filter(None, columns)) or 'none'}: "
            f"take the table as it was downloaded ({_DOWNLOAD.source})."
        )
    return path, {row[_CODE]: row for row in rows}


def _cases_of_subject(folder: Path, table: Path, rows: Mapping[str, Mapping[str, str]]) -> list[Case]:
    code = folder.name
    if code not in rows:
        raise UserError(
            f"'{table}' has no row for '{code}', a folder in '{folder.parent}': add it or remove the folder."
        )
    row = rows[code]
    if lacking := [column for column in (_VENDOR_NAME, _CENTRE) if not row.get(column)]:
        raise UserError(f"'{table}' has no value in the column '{lacking[0]}' of '{code}': add it.")
    in_own_files = bool(nifti_names(folder, f"{code}_e[ds]*"))
    cases = []
    for phase in _PHASES:
        stem = phase.lower() if in_own_files else "sa"
        case = make_case(
            f"{code}_{phase.lower()}", folder / f"{code}_{stem}.nii.gz", folder / f"{code}_{stem}_gt.nii.gz"
        )
        if not in_own_files:
            case[CaseKeys.FRAME.value] = _frame(row, phase, table)
        case[CaseKeys.ATTRIBUTES.value] = {"vendor": row[_VENDOR_NAME], "centre": row[_CENTRE]}
        cases.append(case)
    return cases


def _frame(row: Mapping[str, str], phase: str, table: Path) -> int:
    try:
        frame = float(row[phase])
        if frame.is_integer() and frame >= 0:
            return int(frame)
    except (KeyError, ValueError):
        pass
    raise UserError(
        f"'{table}' says {row.get(phase, '')!r} in the column '{phase}' of '{row[_CODE]}': give a frame, 0 or above."
    )
