"""The files of the cases in a folder that nnU-Net predicted, checked before any is read and written back."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
from numpy.lib import format as npy
from torch import Tensor

from medcalib.errors import UserError, plain_reason
from medcalib.image_files.grids import image_like
from medcalib.predictions.nnunet import Plans, write_probabilities
from medcalib.predictions.nnunet_dataset import DATASET, DatasetDescription
from medcalib.predictions.volumes import Geometry

__all__ = ["archived_cases", "check_archives", "copy_descriptions", "write_case", "write_segmentation"]

PLANS = "plans.json"


def archived_cases(folder: Path) -> list[str]:
    """Ids of the cases of which a folder holds probabilities.

    Raises:
        UserError: there are none, or there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} of --predictions is not a folder; give one that nnUNetv2_predict wrote.")
    cases = sorted(path.stem for path in folder.glob("*.npz"))
    if not cases:
        raise UserError(
            f"{folder} holds no probabilities (.npz); run nnUNetv2_predict with --save_probabilities into it."
        )
    return cases


def check_archives(folder: Path, cases: Sequence[str], dataset: DatasetDescription) -> None:
    """Check that every case has its properties and as many classes as the dataset, without reading its voxels.

    Raises:
        UserError: naming the case and the file.
    """
    for case in cases:
        path = folder / f"{case}.npz"
        properties = path.with_suffix(".pkl")
        if not properties.is_file():
            raise UserError(
                f"Case {case}: {properties} is missing, which nnU-Net writes beside the probabilities and needs to use "
                f"them again; copy it there, or predict the case again."
            )
        shape = _shape(path, case)
        expected = len(dataset.class_names)
        if len(shape) == 4 and shape[0] != expected:
            raise UserError(
                f"Case {case}: {path} has {shape[0]} classes, but {dataset.path} names {expected} "
                f"({', '.join(dataset.class_names)}); give predictions of this dataset."
            )


def write_case(
    folder: Path,
    case: str,
    probabilities: Tensor,
    geometry: Geometry,
    source: Path,
    dataset: DatasetDescription,
    plans: Plans,
) -> None:
    """Write what nnU-Net writes of a case: probabilities, properties and the segmentation.

    Args:
        folder: where to; it is made if it is missing.
        case: its id.
        probabilities: (C, X, Y, Z).
        geometry: the grid on which they lie.
        source: the folder in which the properties of the case lie.
        dataset: says how a segmentation is made.
        plans: say how the axes lie in an archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_probabilities(folder / f"{case}.npz", probabilities.cpu().numpy(), geometry, plans)
    shutil.copyfile(source / f"{case}.pkl", folder / f"{case}.pkl")
    write_segmentation(folder / f"{case}{dataset.ending}", probabilities, geometry, dataset)


def write_segmentation(path: Path, probabilities: Tensor, geometry: Geometry, dataset: DatasetDescription) -> None:
    """Write the segmentation of probabilities (C, X, Y, Z), with the values of the dataset's labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image_like(geometry, dataset.segmentation(probabilities)), path)


def copy_descriptions(source: DatasetDescription, plans: Plans, folder: Path) -> None:
    """Copy the ``dataset.json`` and the ``plans.json`` that nnU-Net looks for beside predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.path, folder / DATASET)
    shutil.copyfile(plans.path, folder / PLANS)


def _shape(path: Path, case: str) -> tuple[int, ...]:
    """Shape of the probabilities in an archive; empty where there are none, which is told when they are read."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            return tuple(read(file)[0])
    except KeyError:
        return ()
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"Case {case}: {path} cannot be read ({plain_reason(error)}); it may be damaged, write it again."
        ) from None
