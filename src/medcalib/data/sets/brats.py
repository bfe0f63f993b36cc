"""Case lists of the brain tumour segmentation challenges of 2018 and 2021."""

import re
import warnings
from importlib.resources import files
from pathlib import Path

from medcalib.data.cases import Split, assemble_split
from medcalib.data.dataset_folders import Download, make_case, visible
from medcalib.data.splits import set_aside, split_fold
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["brats18_cases", "brats21_cases"]

_BRATS21 = Download(
    "the folder that holds BraTS2021_00000 and the other cases",
    "the data can be had from https://www.med.upenn.edu/cbica/brats2021",
)
_BRATS21_CASE = re.compile(r"BraTS2021_\d+")
_BRATS21_CHANNELS = ("t1", "t1ce", "t2", "flair")

_BRATS18 = Download(
    "the folder that holds HGG and LGG, or to that of the preprocessed cases case_0, case_1 and so on",
    "the data can be had from https://www.med.upenn.edu/sbia/brats2018/data.html",
)
_BRATS18_CHANNELS = ("flair", "t1", "t1ce", "t2")
_BRATS18_FLAT_CHANNELS = ("FLAIR", "T1", "T1_CE", "T2")


def brats21_cases(dataset_dir: str | Path, validation_fraction: float = 0.05, seed: int = 0) -> Split:
    """List the labelled cases of BraTS 2021, divided as in the published work on average calibration losses.

    Every case is a folder ``BraTS2021_00000`` with one file per channel and ``BraTS2021_00000_seg.nii.gz``. Which of
    the 1251 cases are for testing is fixed by the case lists that come with this package; cases that are not on disk
    are passed over with a warning.

    Args:
        dataset_dir: folder that holds the case folders.
        validation_fraction: share of the cases not for testing that is for validation, 19 : 1 as published.
        seed: seed of that division.

    Returns:
        The split. Channels are T1, T1 with contrast agent, T2, FLAIR.

    Raises:
        UserError: if the folder is missing or laid out differently, if a file of a case is missing, if a case is in
            neither list, or if a part of the split stays empty.
    """
    root = _BRATS21.root(dataset_dir)
    found = [
        make_case(
            folder.name,
            [folder / f"{folder.name}_{channel}.nii.gz" for channel in _BRATS21_CHANNELS],
            folder / f"{folder.name}_seg.nii.gz",
        )
        for folder in visible(root, "BraTS2021_*")
        if _BRATS21_CASE.fullmatch(folder.name) and folder.is_dir()
    ]
    cases = _BRATS21.complete(found, root, "BraTS2021_*/BraTS2021_*_{t1,t1ce,t2,flair,seg}.nii.gz")
    train_val, test = (_published(name) for name in ("brats21_train_val.txt", "brats21_test.txt"))
    if len(cases) < len(train_val | test):
        warnings.warn(
            f"'{root}' holds {len(cases)} of the {len(train_val | test)} published cases of BraTS 2021, so results "
            f"cannot be compared with published ones; extract or download the rest ({_BRATS21.source}).",
            stacklevel=2,
        )
    for case in cases:
        if (name := case[CaseKeys.CASE]) not in train_val | test:
            raise UserError(
                f"Case '{name}' in '{root}' is in neither of the published case lists of BraTS 2021: remove its folder "
                f"({_BRATS21.source})."
            )
    training, validation = set_aside([c for c in cases if c[CaseKeys.CASE] in train_val], validation_fraction, seed)
    return assemble_split(training, validation, [c for c in cases if c[CaseKeys.CASE] in test])


def brats18_cases(dataset_dir: str | Path, fold: int = 0, validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """List the labelled cases of BraTS 2018, divided for a cross-validation with five folds.

    Two layouts are known: the download with ``HGG/Brats18_<id>/Brats18_<id>_flair.nii.gz`` and so on, and the flat one
    that is resampled to 2 mm, ``case_<number>/FLAIR_2mm.nii.gz`` with the binary label ``GT_W_2mm.nii.gz``. Cases are
    named by their folders.

    Args:
        dataset_dir: folder that holds ``HGG`` and ``LGG``, or the folders ``case_*``.
        fold: which of the five folds is the test part, 0 to 4.
        validation_fraction: share of the other cases that is for validation.
        seed: seed of the folds and of that division.

    Returns:
        The split. Channels are FLAIR, T1, T1 with contrast agent, T2.

    Raises:
        UserError: if the folder is missing or laid out differently, if a file of a case is missing, if there is no such
            fold, or if there are too few cases.
    """
    root = _BRATS18.root(dataset_dir)
    grades = {
        grade: [folder for folder in visible(root / grade, "Brats18_*") if folder.is_dir()] for grade in ("HGG", "LGG")
    }
    if graded := [folder for folders in grades.values() for folder in folders]:
        for grade, folders in grades.items():
            if not folders:
                raise _BRATS18.nothing_matched(root, f"{grade}/Brats18_*/Brats18_*_flair.nii.gz")
        found = [
            make_case(
                folder.name,
                [folder / f"{folder.name}_{channel}.nii.gz" for channel in _BRATS18_CHANNELS],
                folder / f"{folder.name}_seg.nii.gz",
            )
            for folder in graded
        ]
        looked_for = "{HGG,LGG}/Brats18_*/Brats18_*_{flair,t1,t1ce,t2,seg}.nii.gz"
    else:
        found = [
            make_case(
                folder.name,
                [folder / f"{channel}_2mm.nii.gz" for channel in _BRATS18_FLAT_CHANNELS],
                folder / "GT_W_2mm.nii.gz",
            )
            for folder in visible(root, "case_*")
            if folder.is_dir()
        ]
        looked_for = "{HGG,LGG}/Brats18_*/Brats18_*_flair.nii.gz or case_*/FLAIR_2mm.nii.gz"
    cases = _BRATS18.complete(found, root, looked_for)
    return split_fold(cases, fold, num_folds=5, validation_fraction=validation_fraction, seed=seed)


def _published(name: str) -> set[str]:
    return set(files("medcalib.data").joinpath("published_splits", name).read_text(encoding="utf-8").split())
