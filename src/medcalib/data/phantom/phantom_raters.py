"""The phantom with several raters on disk: volumes with one label of each rater, and the expected response beside."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.phantom.difficulty import has_lesion
from medcalib.data.phantom.drawn_cases import PARTS, SyntheticDataset
from medcalib.data.phantom.phantom_volumes import draw_affine, write_volume
from medcalib.data.phantom.rater_model import RaterModel
from medcalib.data.phantom.volume_model import CLASS_NAMES
from medcalib.keys import CaseKeys

__all__ = ["make_phantom_raters", "phantom_raters_cases"]

_DATASET = SyntheticDataset("phantom_raters", "phantom", 1, CLASS_NAMES, asdict(RaterModel()))
_FOLDERS = {CaseKeys.IMAGE: "images", CaseKeys.LABEL: "labels", CaseKeys.PROBABILITY: "probabilities"}
# in one case of so many the last raters were not asked
_FEW_EVERY, _FEW = 5, 3


def phantom_raters_cases(
    dataset_dir: str | Path, num_training: int = 20, num_validation: int = 6, num_test: int = 14, seed: int = 0
) -> Split:
    """List the cases of the phantom with several raters, which is made first where it is missing.

    Args:
        dataset_dir: folder of the dataset.
        num_training: number of training cases.
        num_validation: number of validation cases, which calibrators are fitted on, too.
        num_test: number of test cases.
        seed: seed of shapes, raters and noise.

    Returns:
        The split. The ``label`` of a case is a list of paths, one for each of its ``raters``, who are three in every
        fifth case and five in the others. Every case also has the key ``probability``: the path of the volume (X, Y, Z,
        class) of the mean over these raters of the probabilities that their labels were drawn from.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if it holds something else: another
            dataset, a phantom made with other numbers, or a phantom with missing files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = phantom_raters_cases(f"{folder}/raters", num_training=1, num_validation=1, num_test=1)
        >>> split["test"][0]["raters"]
        ['rater_1', 'rater_2', 'rater_3', 'rater_4', 'rater_5']
    """
    make_phantom_raters(dataset_dir, num_training, num_validation, num_test, seed)
    root = Path(dataset_dir).expanduser()
    names = _DATASET.describe(num_training, num_validation, num_test, seed)
    return assemble_split(**{part.value: [_case(root, name) for name in names[part]] for part in PARTS})


def make_phantom_raters(
    dataset_dir: str | Path, num_training: int = 20, num_validation: int = 6, num_test: int = 14, seed: int = 0
) -> None:
    """Write the phantom with several raters, as `medcalib.data.make_phantom` writes the phantom.

    ``labels`` holds one ``phantom_<number>_<rater>.nii.gz`` for each rater of a case.

    Args:
        dataset_dir: folder of the dataset; missing or empty.
        num_training: number of training cases.
        num_validation: number of validation cases.
        num_test: number of test cases.
        seed: seed of shapes, raters and noise.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if something else is in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_phantom_raters(f"{folder}/raters", num_training=1, num_validation=1, num_test=1)
        ...     sorted(path.name for path in Path(folder, "raters").iterdir())
        ['dataset.json', 'images', 'labels', 'probabilities']
    """
    root = Path(dataset_dir).expanduser()
    description = _DATASET.describe(num_training, num_validation, num_test, seed)
    _DATASET.make(root, description, _write)
    for case in (_case(root, name) for part in PARTS for name in description[part]):
        _DATASET.check_files(root, [case[CaseKeys.IMAGE], *case[CaseKeys.LABEL], case[CaseKeys.PROBABILITY]])


def _write(root: Path, description: Mapping[str, Any]) -> None:
    for folder in _FOLDERS.values():
        (root / folder).mkdir()
    index = 0
    for part in PARTS:
        for position, name in enumerate(description[part]):
            rng = np.random.default_rng([description["seed"], index])
            case = _case(root, name)
            volumes = RaterModel().draw(rng, has_lesion(position), case[CaseKeys.RATERS])
            affine = draw_affine(rng, index)
            write_volume(case[CaseKeys.IMAGE], volumes.image, affine, index)
            for rater, path in zip(case[CaseKeys.RATERS], case[CaseKeys.LABEL], strict=True):
                write_volume(path, volumes.labels[rater], affine, index)
            write_volume(case[CaseKeys.PROBABILITY], volumes.probability, affine, index)
            index += 1


def _case(root: Path, name: str) -> Case:
    raters = [rater.name for rater in RaterModel().raters]
    if int(name.rpartition("_")[2]) % _FEW_EVERY == 0:
        raters = raters[:_FEW]
    paths = {key.value: str(root / folder / f"{name}.nii.gz") for key, folder in _FOLDERS.items()}
    labels = [str(root / _FOLDERS[CaseKeys.LABEL] / f"{name}_{rater}.nii.gz") for rater in raters]
    return {
        CaseKeys.CASE.value: name,
        **paths,
        CaseKeys.LABEL.value: labels,
        CaseKeys.RATERS.value: raters,
    }
