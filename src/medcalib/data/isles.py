"""Case lists of ISLES 2018, the ischaemic stroke lesion segmentation challenge."""

from pathlib import Path

from medcalib.data.cases import Case, Split
from medcalib.data.folders import Download, make_case, visible
from medcalib.data.folds import split_fold
from medcalib.errors import UserError

__all__ = ["isles_cases"]

_DOWNLOAD = Download(
    "the folder that holds TRAINING, or to that of the preprocessed cases case_1, case_2 and so on",
    "the data can be had from http://www.isles-challenge.org",
)
_CHANNELS = ("CT", "CT_Tmax", "CT_MTT", "CT_CBF", "CT_CBV")
_LABEL = "OT"


def isles_cases(dataset_dir: str | Path, fold: int = 0, validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """List the labelled cases of ISLES 2018, divided for a cross-validation with five folds.

    Two layouts are known: the download with ``TRAINING/case_1/SMIR.Brain.XX.O.CT_Tmax.<id>/<same name>.nii``, and the
    flat one that is resampled to 2 mm, ``case_1/CT_Tmax_2mm.nii.gz``. Cases are named by their folders. The download
    does not say which cases are slabs of one patient, so cases are divided one by one, as in published work.

    Args:
        dataset_dir: folder that holds ``TRAINING``, or the folders ``case_*``.
        fold: which of the five folds is the test part, 0 to 4.
        validation_fraction: share of the other cases that is for validation.
        seed: seed of the folds and of that division.

    Returns:
        The split. Channels are CT, Tmax, MTT, CBF, CBV.

    Raises:
        UserError: if the folder is missing or laid out differently, if a file of a case is missing or there twice, if
            there is no such fold, or if there are too few cases.
    """
    root = _DOWNLOAD.root(dataset_dir)
    folders = visible(root / "TRAINING", "case_*") or visible(root, "case_*")
    cases = _DOWNLOAD.complete(
        [_case(folder) for folder in folders if folder.is_dir()],
        root,
        "TRAINING/case_*/SMIR.Brain.*.{CT,CT_Tmax,CT_MTT,CT_CBF,CT_CBV,OT}.*/*.nii or case_*/CT_2mm.nii.gz",
    )
    return split_fold(cases, fold, num_folds=5, validation_fraction=validation_fraction, seed=seed)


def _case(folder: Path) -> Case:
    return make_case(folder.name, [_volume(folder, channel) for channel in _CHANNELS], _volume(folder, _LABEL))


def _volume(folder: Path, name: str) -> Path:
    """The file of one channel; where there is none, the path or pattern that was looked for."""
    if visible(folder, "*_2mm.nii.gz"):
        return folder / f"{name}_2mm.nii.gz"
    pattern = f"SMIR.Brain.*.{name}.*/SMIR.Brain.*.{name}.*.nii"
    found = visible(folder, pattern)
    if len(found) > 1:
        raise UserError(
            f"Case '{folder.name}' has {len(found)} files for {name}, '{found[0]}' and '{found[1]}': keep one of them."
        )
    return found[0] if found else folder / pattern
