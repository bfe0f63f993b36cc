"""Case lists of AMOS 2022, the abdominal multi-organ segmentation challenge."""

import re
from pathlib import Path

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.dataset_folders import Download, make_case, nifti_names
from medcalib.data.splits import set_aside

__all__ = ["amos_cases"]

_DOWNLOAD = Download(
    "the folder that holds imagesTr, labelsTr, imagesVa and labelsVa",
    "the data can be had from https://amos22.grand-challenge.org",
)
_SCAN = re.compile(r"(amos_(\d+))")
_FIRST_MRI = 500


def amos_cases(dataset_dir: str | Path, validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """List the labelled CT scans of AMOS 2022.

    Scans with a number of 500 or above are MRI and passed over. Those in ``imagesVa`` are the test part, since the
    labels of ``imagesTs`` are not public; scans of ``imagesTr`` are set aside for validation. A case is named by its
    file without ``.nii.gz``, as ``amos_0001``.

    Args:
        dataset_dir: folder that holds ``imagesTr``, ``labelsTr``, ``imagesVa`` and ``labelsVa``.
        validation_fraction: share of the scans in ``imagesTr`` that is for validation.
        seed: seed of that division.

    Returns:
        The split.

    Raises:
        UserError: if the folder is missing or laid out differently, if an image has no label or a label no image, or if
            there are too few scans.
    """
    root = _DOWNLOAD.root(dataset_dir)
    parts = {
        part: _DOWNLOAD.complete(
            _ct_scans(root, part), root, f"images{part}/amos_*.nii.gz of CT (numbers below {_FIRST_MRI})"
        )
        for part in ("Tr", "Va")
    }
    training, validation = set_aside(parts["Tr"], validation_fraction, seed)
    return assemble_split(training, validation, parts["Va"])


def _ct_scans(root: Path, part: str) -> list[Case]:
    images, labels = root / f"images{part}", root / f"labels{part}"
    scans = {
        match[1]
        for folder in (images, labels)
        for name in nifti_names(folder)
        if (match := _SCAN.fullmatch(name)) and int(match[2]) < _FIRST_MRI
    }
    return [make_case(scan, images / f"{scan}.nii.gz", labels / f"{scan}.nii.gz") for scan in scans]
