"""The phantom dataset on disk: volumes whose labels are drawn from probabilities that are stored beside them."""

import gzip
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.phantom_model import CLASS_NAMES, PhantomModel, PhantomVolumes
from medcalib.errors import UserError
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["make_phantom", "phantom_cases"]

_FORMAT_VERSION = 1
_DESCRIPTION = "dataset.json"
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
    root = Path(dataset_dir).expanduser()
    wanted = _description(num_training, num_validation, num_test, seed)
    if not _holds_something(root):
        make_phantom(root, num_training, num_validation, num_test, seed)
    _check(root, wanted)
    parts = {
        part: [_case(root, case) for case in wanted[part]]
        for part in (SplitKeys.TRAINING, SplitKeys.VALIDATION, SplitKeys.TEST)
    }
    return assemble_split(**{part.value: cases for part, cases in parts.items()})


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
    description = _description(num_training, num_validation, num_test, seed)
    if _holds_something(root):
        _check(root, description)
        return
    try:
        target = root.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
            draft = Path(temporary) / target.name
            _write(draft, description)
            try:
                draft.rename(target)
            except OSError:
                if not _holds_something(root):
                    raise
    except OSError as error:
        raise UserError(
            f"The phantom cannot be written to '{root}' ({error.strerror or error}): set data::dataset_dir to a folder "
            "you may write to, on a disk with space."
        ) from error
    _check(root, description)


def _description(num_training: int, num_validation: int, num_test: int, seed: int) -> dict[str, Any]:
    """Say what a phantom made with these numbers is, in JSON's own types."""
    numbers = {"num_training": num_training, "num_validation": num_validation, "num_test": num_test, "seed": seed}
    for name, number in numbers.items():
        least = 0 if name == "seed" else 1
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise UserError(f"{name} is {number!r}: give a whole number of at least {least}.")
    names = [f"phantom_{number:03d}" for number in range(1, num_training + num_validation + num_test + 1)]
    description = {
        "name": "phantom",
        "format_version": _FORMAT_VERSION,
        "class_names": CLASS_NAMES,
        "seed": seed,
        "model": asdict(PhantomModel()),
        SplitKeys.TRAINING: names[:num_training],
        SplitKeys.VALIDATION: names[num_training : num_training + num_validation],
        SplitKeys.TEST: names[num_training + num_validation :],
    }
    return json.loads(json.dumps(description))


def _write(root: Path, description: dict[str, Any]) -> None:
    for folder in _FOLDERS.values():
        (root / folder).mkdir(parents=True)
    index = 0
    for part in (SplitKeys.TRAINING, SplitKeys.VALIDATION, SplitKeys.TEST):
        for position, name in enumerate(description[part]):
            rng = np.random.default_rng([description["seed"], index])
            with_lesion = position % _LESION_FREE_EVERY != _FIRST_LESION_FREE
            _write_case(_case(root, name), PhantomModel().draw(rng, with_lesion), _affine(rng, index), index)
            index += 1
    (root / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def _affine(rng: np.random.Generator, index: int) -> np.ndarray:
    """Draw where the scanner put a grid whose axes point right, anterior and superior, to within a slight tilt."""
    affine = np.diag([*PhantomModel().spacing, 1.0])
    if index % _OBLIQUE_EVERY == _OBLIQUE_EVERY - 1:
        affine[:3, :3] = Rotation.from_rotvec(rng.uniform(-10, 10, 3), degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-120, 60, 3)
    return affine


def _write_case(case: Case, volumes: PhantomVolumes, affine: np.ndarray, index: int) -> None:
    orientation = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"),
        nib.orientations.axcodes2ornt(_ORIENTATIONS[index % len(_ORIENTATIONS)]),
    )
    for key, array in (
        (CaseKeys.IMAGE, volumes.image),
        (CaseKeys.LABEL, volumes.label),
        (CaseKeys.PROBABILITY, volumes.probability),
    ):
        volume = nib.Nifti1Image(array, affine).as_reoriented(orientation)
        volume.header.set_xyzt_units("mm")
        volume.set_qform(volume.affine, code="scanner")
        volume.set_sform(volume.affine, code="scanner")
        # nibabel's own writer stamps the time into the file
        Path(case[key]).write_bytes(gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0))


def _case(root: Path, name: str) -> Case:
    paths = {key.value: str(root / folder / f"{name}.nii.gz") for key, folder in _FOLDERS.items()}
    return {CaseKeys.CASE.value: name, **paths}


def _holds_something(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _check(root: Path, wanted: dict[str, Any]) -> None:
    """Make sure that a folder holds the wanted phantom, all of it."""
    try:
        found = json.loads((root / _DESCRIPTION).read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("name") != wanted["name"]:
        raise UserError(
            f"'{root}' is not a phantom dataset (no readable {_DESCRIPTION} of one in it): "
            "delete it, or set data::dataset_dir to a new folder."
        )
    if different := sorted(key for key in wanted if found.get(key) != wanted[key]):
        raise UserError(
            f"The phantom in '{root}' was made with another {' and '.join(different)}: "
            "delete the folder to have it made anew, or set data::dataset_dir to a new one."
        )
    for part in (SplitKeys.TRAINING, SplitKeys.VALIDATION, SplitKeys.TEST):
        for name in wanted[part]:
            for key in _FOLDERS:
                path = Path(_case(root, name)[key])
                if not path.is_file():
                    raise UserError(
                        f"The phantom in '{root}' lacks '{path.relative_to(root)}': "
                        "delete the folder to have it made anew."
                    )
