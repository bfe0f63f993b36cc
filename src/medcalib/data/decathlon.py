"""Case lists of the Medical Segmentation Decathlon."""

from collections.abc import Sequence
from pathlib import Path

from medcalib.data.cases import Split, split_cases
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["decathlon_cases"]

_SUFFIX = ".nii.gz"
_SOURCE = "the tasks can be downloaded from http://medicaldecathlon.com"


def decathlon_cases(dataset_dir: str | Path, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Split:
    """List the labelled cases of a Decathlon task and divide them.

    The images lie in ``imagesTr``, their labels under the same names in ``labelsTr``. A case is named by its file
    without ``.nii.gz``; a task with several modalities keeps them in one 4D file. Hidden files are passed over: the
    official archives carry a ``._`` twin of every file.

    Args:
        dataset_dir: folder of the task, such as ``Task04_Hippocampus``.
        fractions: shares of training, validation and test.
        seed: seed of the division.

    Returns:
        The split. See :func:`~medcalib.data.split_cases` for how cases are divided.

    Raises:
        UserError: if the folder is missing or laid out differently, if an image has no label or a label no image, or if
            the cases cannot fill every part of the split.
    """
    root = Path(dataset_dir).expanduser()
    if not root.is_dir():
        raise UserError(
            f"The dataset folder '{root}' does not exist: set data::dataset_dir to the folder that holds imagesTr and "
            f"labelsTr ({_SOURCE})."
        )
    images, labels = (_volumes_by_case(root / folder) for folder in ("imagesTr", "labelsTr"))
    matched = sorted(images.keys() & labels.keys())
    if not matched and not (images and labels):
        raise UserError(
            f"0 cases matched imagesTr/*{_SUFFIX} with labelsTr/*{_SUFFIX} in '{root}', which holds {_contents(root)}: "
            f"set data::dataset_dir to the folder of one Decathlon task ({_SOURCE})."
        )
    for have, lack, where in ((images, labels, "labelsTr"), (labels, images, "imagesTr")):
        if lonely := sorted(have.keys() - lack.keys()):
            raise UserError(
                f"Case '{lonely[0]}' has '{have[lonely[0]]}' but no '{root / where / (lonely[0] + _SUFFIX)}' "
                f"({len(matched)} cases matched, {len(lonely)} did not): add the missing file or remove the other."
            )
    cases = [
        {CaseKeys.CASE.value: case, CaseKeys.IMAGE.value: images[case], CaseKeys.LABEL.value: labels[case]}
        for case in matched
    ]
    return split_cases(cases, fractions, seed)


def _volumes_by_case(folder: Path) -> dict[str, str]:
    return {
        path.name.removesuffix(_SUFFIX): str(path)
        for path in folder.glob(f"*{_SUFFIX}")
        if not path.name.startswith(".")
    }


def _contents(folder: Path) -> str:
    """Describe what a folder holds, for a message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    if not names:
        return "nothing"
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
