"""The phantom dataset on disk: volumes whose labels are drawn from probabilities that are stored beside them."""

import gzip
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.phantom.drawn_cases import PARTS, SyntheticDataset
from medcalib.data.phantom.volume_model import CLASS_NAMES, PhantomModel, PhantomVolumes
from medcalib.keys import CaseKeys

__all__ = ["draw_affine", "has_lesion", "make_phantom", "phantom_cases", "write_volume"]

_DATASET = SyntheticDataset("phantom", "phantom", 1, CLASS_NAMES, asdict(PhantomModel()))
_FOLDERS = {CaseKeys.IMAGE: "images", CaseKeys.LABEL: "labels", CaseKeys.PROBABILITY: "probabilities"}
_ORIENTATIONS = ("RAS", "LPS", "PIR", "LAS", "SAR", "ASL", "RPI")
_OBLIQUE_EVERY = 4
_LESION_FREE_EVERY, _FIRST_LESION_FREE = 10, 7


def phantom_cases(
    dataset_dir: str | Path, num_training: int = 20, num_validation: int = 6, num_test: int = 14, seed: int = 0
) -> Split:
    """List the cases of the phantom dataset, which is made first where it is missing.

    Args:
        dataset_dir: folder of the dataset.
        num_training: number of training cases.
        num_validation: number of validation cases, which calibrators are fitted on, too.
        num_test: number of test cases.
        seed: seed of shapes, annotators and noise.

    Returns:
        The split. Every case also has the key ``probability``: the path of the volume (X, Y, Z, class) of the
        probabilities that its label was drawn from.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if it holds something else: another
            dataset, a phantom made with other numbers, or a phantom with missing files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = phantom_cases(f"{folder}/phantom", num_training=1, num_validation=1, num_test=1)
        >>> split["test"][0]["case"]
        'phantom_003'
    """
    make_phantom(dataset_dir, num_training, num_validation, num_test, seed)
    root = Path(dataset_dir).expanduser()
    names = _DATASET.describe(num_training, num_validation, num_test, seed)
    return assemble_split(**{part.value: [_case(root, name) for name in names[part]] for part in PARTS})


def make_phantom(
    dataset_dir: str | Path, num_training: int = 20, num_validation: int = 6, num_test: int = 14, seed: int = 0
) -> None:
    """Write the phantom dataset.

    ``images``, ``labels`` and ``probabilities`` hold one ``phantom_<number>.nii.gz`` per case, and ``dataset.json``
    says how they were made. The same arguments give the same bytes. Orientation, origin and shape differ from case to
    case, some grids are oblique, and one case in ten has no lesion. The files are written to a temporary folder that
    takes its final name in the end, so a run that is interrupted leaves no dataset; of two that run at the same time,
    the first to finish is kept.

    Args:
        dataset_dir: folder of the dataset; missing or empty.
        num_training: number of training cases.
        num_validation: number of validation cases.
        num_test: number of test cases.
        seed: seed of shapes, annotators and noise.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if something else is in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_phantom(f"{folder}/phantom", num_training=1, num_validation=1, num_test=1)
        ...     sorted(path.name for path in Path(folder, "phantom").iterdir())
        ['dataset.json', 'images', 'labels', 'probabilities']
    """
    root = Path(dataset_dir).expanduser()
    description = _DATASET.describe(num_training, num_validation, num_test, seed)
    _DATASET.make(root, description, _write)
    for name in (name for part in PARTS for name in description[part]):
        for path in (Path(_case(root, name)[key]) for key in _FOLDERS):
            if not path.is_file():
                raise _DATASET.lacks(root, f"'{path.relative_to(root)}'")


def _write(root: Path, description: Mapping[str, Any]) -> None:
    for folder in _FOLDERS.values():
        (root / folder).mkdir()
    index = 0
    for part in PARTS:
        for position, name in enumerate(description[part]):
            rng = np.random.default_rng([description["seed"], index])
            volumes = PhantomModel().draw(rng, has_lesion(position))
            _write_case(_case(root, name), volumes, draw_affine(rng, index), index)
            index += 1


def draw_affine(rng: np.random.Generator, index: int) -> np.ndarray:
    """Draw where the scanner put a grid whose axes point right, anterior and superior, to within a slight tilt."""
    affine = np.diag([*PhantomModel().spacing, 1.0])
    if index % _OBLIQUE_EVERY == _OBLIQUE_EVERY - 1:
        affine[:3, :3] = Rotation.from_rotvec(rng.uniform(-10, 10, 3), degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-120, 60, 3)
    return affine


def write_volume(path: str | Path, array: np.ndarray, affine: np.ndarray, index: int) -> None:
    """Write a volume of a case, in the orientation that cases of this number have; the same array, the same bytes."""
    orientation = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"),
        nib.orientations.axcodes2ornt(_ORIENTATIONS[index % len(_ORIENTATIONS)]),
    )
    volume = nib.Nifti1Image(array, affine).as_reoriented(orientation)
    volume.header.set_xyzt_units("mm")
    volume.set_qform(volume.affine, code="scanner")
    volume.set_sform(volume.affine, code="scanner")
    # nibabel's own writer stamps the time into the file
    Path(path).write_bytes(gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0))


def has_lesion(position: int) -> bool:
    """Whether the case at this position in its part has a lesion."""
    return position % _LESION_FREE_EVERY != _FIRST_LESION_FREE


def _write_case(case: Case, volumes: PhantomVolumes, affine: np.ndarray, index: int) -> None:
    write_volume(case[CaseKeys.IMAGE], volumes.image, affine, index)
    write_volume(case[CaseKeys.LABEL], volumes.label, affine, index)
    write_volume(case[CaseKeys.PROBABILITY], volumes.probability, affine, index)


def _case(root: Path, name: str) -> Case:
    paths = {key.value: str(root / folder / f"{name}.nii.gz") for key, folder in _FOLDERS.items()}
    return {CaseKeys.CASE.value: name, **paths}
