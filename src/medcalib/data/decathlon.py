"""Case lists of the Medical Segmentation Decathlon."""

from collections.abc import Sequence
from pathlib import Path

from medcalib.data.cases import Split, split_cases
from medcalib.data.folders import Download, make_case, visible

__all__ = ["decathlon_cases"]

_DOWNLOAD = Download(
    "the folder of one Decathlon task, which holds imagesTr and labelsTr",
    "the tasks can be downloaded from http://medicaldecathlon.com",
)
_SUFFIX = ".nii.gz"


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
    root = _DOWNLOAD.root(dataset_dir)
    images, labels = root / "imagesTr", root / "labelsTr"
    names = {path.name for folder in (images, labels) for path in visible(folder, f"*{_SUFFIX}")}
    cases = [make_case(name.removesuffix(_SUFFIX), images / name, labels / name) for name in names]
    return split_cases(
        _DOWNLOAD.complete(cases, root, f"imagesTr/*{_SUFFIX} with labelsTr/*{_SUFFIX}"), fractions, seed
    )
