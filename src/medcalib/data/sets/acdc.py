"""Case lists of ACDC, the automated cardiac diagnosis challenge of 2017."""

import re
from pathlib import Path

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.dataset_folders import Download, make_case, nifti_names, visible
from medcalib.data.splits import grouped, set_aside
from medcalib.keys import CaseKeys

__all__ = ["acdc_cases"]

_DOWNLOAD = Download(
    "the folder that holds training and testing",
    "the data can be had from https://humanheart-project.creatis.insa-lyon.fr/database",
)
_FRAME = re.compile(r"(patient\d+_frame\d+)(?:_gt)?")


def acdc_cases(dataset_dir: str | Path, validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """List the frames of ACDC that have a reference segmentation.

    Every patient folder holds two of them, end-diastole and end-systole, as ``patient001_frame01.nii.gz`` with
    ``patient001_frame01_gt.nii.gz``; each is a case, named ``patient001_frame01``. The 4D recordings are passed over.
    The folder ``testing`` is the test part; patients of ``training`` are set aside for validation, both frames of one
    together.

    Args:
        dataset_dir: folder that holds ``training`` and ``testing``.
        validation_fraction: share of the patients in ``training`` that is for validation.
        seed: seed of that division.

    Returns:
        The split.

    Raises:
        UserError: if the folder is missing or laid out differently, if a file of a case is missing, or if there are too
            few patients.
    """
    root = _DOWNLOAD.root(dataset_dir)
    parts = {}
    for name in ("training", "testing"):
        found = [
            case for folder in visible(root / name, "patient*") if folder.is_dir() for case in _cases_of_patient(folder)
        ]
        complete = _DOWNLOAD.complete(found, root, f"{name}/patient*/patient*_frame*.nii.gz")
        parts[name] = grouped(complete, _patient)
    training, validation = set_aside(parts["training"], validation_fraction, seed, group=_patient)
    return assemble_split(training, validation, parts["testing"])


def _cases_of_patient(folder: Path) -> list[Case]:
    frames = {match[1] for name in nifti_names(folder) if (match := _FRAME.fullmatch(name))}
    # a folder without frames is half an extraction: a case that is made of a pattern is reported as incomplete
    return [
        make_case(frame, folder / f"{frame}.nii.gz", folder / f"{frame}_gt.nii.gz")
        for frame in sorted(frames) or [f"{folder.name}_frame*"]
    ]


def _patient(case: Case) -> str:
    return case[CaseKeys.CASE].partition("_")[0]
