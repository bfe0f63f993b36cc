"""Case lists of KiTS23, the kidney and kidney tumour segmentation challenge of 2023."""

from collections.abc import Sequence
from pathlib import Path

from medcalib.data.cases import Split, split_cases
from medcalib.data.dataset_folders import Download, make_case, visible

__all__ = ["kits_cases"]

_DOWNLOAD = Download(
    "the folder that holds case_00000, case_00001 and so on, or to its parent with dataset/",
    "the repository https://github.com/neheller/kits23 holds the labels and the command kits23_download_data, which "
    "fetches the images",
)


def kits_cases(dataset_dir: str | Path, fractions: Sequence[float] = (0.72, 0.08, 0.2), seed: int = 0) -> Split:
    """List the cases of KiTS23 and divide them.

    Every case is a folder ``case_00000`` with ``imaging.nii.gz`` and ``segmentation.nii.gz`` and is named by it. The
    public cases come in one part only, so test cases are drawn from them: 80 : 20, and 9 : 1 of the larger part for
    training and validation.

    Args:
        dataset_dir: folder that holds the case folders, or the repository with the folder ``dataset``.
        fractions: shares of training, validation and test.
        seed: seed of the division.

    Returns:
        The split. See :func:`~medcalib.data.split_cases` for how cases are divided.

    Raises:
        UserError: if the folder is missing or laid out differently, if a case lacks its image or its label, or if the
            cases cannot fill every part of the split.
    """
    root = _DOWNLOAD.root(dataset_dir)
    folders = visible(root, "case_*") or visible(root / "dataset", "case_*")
    found = [
        make_case(folder.name, folder / "imaging.nii.gz", folder / "segmentation.nii.gz")
        for folder in folders
        if folder.is_dir()
    ]
    return split_cases(_DOWNLOAD.complete(found, root, "case_*/imaging.nii.gz"), fractions, seed)
