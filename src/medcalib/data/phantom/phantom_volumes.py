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
from medcalib.data.phantom.difficulty import ATTRIBUTE, Difficulty, case_difficulties, harder_model
from medcalib.data.phantom.drawn_cases import PARTS, SyntheticDataset
from medcalib.data.phantom.volume_model import CLASS_NAMES, PhantomModel, PhantomVolumes
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["draw_affine", "make_phantom", "phantom_cases", "write_volume"]

_FOLDERS = {CaseKeys.IMAGE: "images", CaseKeys.LABEL: "labels", CaseKeys.PROBABILITY: "probabilities"}
_ORIENTATIONS = ("RAS", "LPS", "PIR", "LAS", "SAR", "ASL", "RPI")
_OBLIQUE_EVERY = 4
_HARD_SHARE = 0.35
_DIFFICULTIES = "difficulties"
_DATASET = SyntheticDataset("phantom", "phantom", 2, CLASS_NAMES, asdict(PhantomModel()), derived=(_DIFFICULTIES,))


def phantom_cases(
    dataset_dir: str | Path,
    num_training: int = 20,
    num_validation: int = 6,
    num_test: int = 14,
    seed: int = 0,
    hard_share: float = _HARD_SHARE,
) -> Split:
    """List the cases of the phantom dataset, which is made first where it is missing.

    Args:
        dataset_dir: folder of the dataset.
        num_training: number of training cases.
        num_validation: number of validation cases, which calibrators are fitted on, too.
        num_test: number of test cases.
        seed: seed of shapes, annotators and noise, and of which cases are hard.
        hard_share: share of the cases of every part that is spoilt so that it is hard to segment; 0 gives the ordinary
            cases of the same seed.

    Returns:
        The split. Every case also has the key ``probability``: the path of the volume (X, Y, Z, class) of the
        probabilities that its label was drawn from, and the attribute ``difficulty``, a `Difficulty`.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if it holds something else: another
            dataset, a phantom made with other numbers, or a phantom with missing files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = phantom_cases(f"{folder}/phantom", num_training=1, num_validation=1, num_test=1)
        >>> split["test"][0]["case"], split["test"][0]["attributes"]
        ('phantom_003', {'difficulty': 'normal'})
    """
    make_phantom(dataset_dir, num_training, num_validation, num_test, seed, hard_share)
    root = Path(dataset_dir).expanduser()
    described = _describe(num_training, num_validation, num_test, seed, hard_share)
    return assemble_split(
        **{part.value: [_listed(root, name, described) for name in described[part]] for part in PARTS}
    )


def make_phantom(
    dataset_dir: str | Path,
    num_training: int = 20,
    num_validation: int = 6,
    num_test: int = 14,
    seed: int = 0,
    hard_share: float = _HARD_SHARE,
) -> None:
    """Write the phantom dataset.

    ``images``, ``labels`` and ``probabilities`` hold one ``phantom_<number>.nii.gz`` per case, and ``dataset.json``
    says how they were made. The same arguments give the same bytes. Orientation, origin and shape differ from case to
    case, some grids are oblique, one case in ten has no lesion, and some are hard (`Difficulty`). The files are written
    to a temporary folder that takes its final name in the end, so a run that is interrupted leaves no dataset; of two
    that run at the same time, the first to finish is kept.

    Args:
        dataset_dir: folder of the dataset; missing or empty.
        num_training: number of training cases.
        num_validation: number of validation cases.
        num_test: number of test cases.
        seed: seed of shapes, annotators and noise, and of which cases are hard.
        hard_share: share of the cases of every part that is spoilt so that it is hard to segment; 0 gives the ordinary
            cases of the same seed.

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
    description = _describe(num_training, num_validation, num_test, seed, hard_share)
    _DATASET.make(root, description, _write)
    for name in (name for part in PARTS for name in description[part]):
        _DATASET.check_files(root, (_case(root, name)[key] for key in _FOLDERS))


def _describe(num_training: int, num_validation: int, num_test: int, seed: int, hard_share: float) -> dict[str, Any]:
    described = _DATASET.describe(num_training, num_validation, num_test, seed)
    if isinstance(hard_share, bool) or not isinstance(hard_share, int | float) or not 0 <= hard_share <= 1:
        raise UserError(f"hard_share is {hard_share!r}: give a share from 0 to 1.")
    kinds = case_difficulties({part: len(described[part]) for part in PARTS}, hard_share, seed)
    named = {name: kind.value for part in PARTS for name, kind in zip(described[part], kinds[part], strict=True)}
    return {**described, "hard_share": float(hard_share), _DIFFICULTIES: named}


def _write(root: Path, description: Mapping[str, Any]) -> None:
    for folder in _FOLDERS.values():
        (root / folder).mkdir()
    for index, (name, kind) in enumerate(description[_DIFFICULTIES].items()):
        rng = np.random.default_rng([description["seed"], index])
        model = harder_model(PhantomModel(), Difficulty(kind), description["seed"], index)
        volumes = model.draw(rng, kind != Difficulty.MISSING_LESION)
        _write_case(_case(root, name), volumes, draw_affine(rng, index, model.spacing), index)


def draw_affine(
    rng: np.random.Generator, index: int, spacing: tuple[float, float, float] = PhantomModel.spacing
) -> np.ndarray:
    """Draw where the scanner put a grid whose axes point right, anterior and superior, to within a slight tilt."""
    affine = np.diag([*spacing, 1.0])
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


def _write_case(case: Case, volumes: PhantomVolumes, affine: np.ndarray, index: int) -> None:
    write_volume(case[CaseKeys.IMAGE], volumes.image, affine, index)
    write_volume(case[CaseKeys.LABEL], volumes.label, affine, index)
    write_volume(case[CaseKeys.PROBABILITY], volumes.probability, affine, index)


def _case(root: Path, name: str) -> Case:
    paths = {key.value: str(root / folder / f"{name}.nii.gz") for key, folder in _FOLDERS.items()}
    return {CaseKeys.CASE.value: name, **paths}


def _listed(root: Path, name: str, description: Mapping[str, Any]) -> Case:
    return {**_case(root, name), CaseKeys.ATTRIBUTES.value: {ATTRIBUTE: description[_DIFFICULTIES][name]}}
