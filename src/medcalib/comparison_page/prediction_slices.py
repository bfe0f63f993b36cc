"""Read one slice of the predictions of a case."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medcalib.image_files.nifti import NiftiFile
from medcalib.visualize.slices import case_slice

__all__ = ["PredictionSlice", "foreground_of", "has_prediction", "prediction_bytes", "read_slice"]

OUTPUTS = ("prob", "seg", "entropy")
ENDINGS = (".nii.gz", ".npy", ".png")


class PredictionSlice(NamedTuple):
    """What a method says in one slice, all (row, column), the first row at the top.

    Attributes:
        probability: of any foreground, in [0, 1].
        segmentation: class indices.
        entropy: in nats.
        spacing: height and width of a pixel, in mm.
        name: of the slice, empty for a picture.
    """

    probability: NDArray[np.float32]
    segmentation: NDArray[np.int64]
    entropy: NDArray[np.float32]
    spacing: tuple[float, float]
    name: str


def has_prediction(folder: Path, case: str) -> bool:
    """Whether a folder of predictions has all that a slice is made of."""
    return all(_find(folder, case, output) is not None for output in OUTPUTS)


def prediction_bytes(folder: Path, case: str) -> int:
    """Size of the files that are read for a slice."""
    return sum(path.stat().st_size for output in OUTPUTS if (path := _find(folder, case, output)) is not None)


def foreground_of(folder: Path, case: str) -> NDArray[np.bool_]:
    """Where a prediction has foreground, in the axes of its file.

    Raises:
        OSError: a file cannot be read.
        UnreadableFileError: a volume is damaged.
        ValueError: a file holds something else.
    """
    return _read(folder, case, "seg").max(0) > 0


def read_slice(folder: Path, case: str, foreground: NDArray[np.bool_]) -> PredictionSlice:
    """The slice of a case with most of a foreground.

    Args:
        folder: of the predictions.
        case: the case id.
        foreground: by which the slice is chosen, such as that of several methods together, in the axes of the files.

    Raises:
        OSError: a file cannot be read.
        UnreadableFileError: a volume is damaged.
        ValueError: a file holds something else, or the files do not fit each other.
    """
    seg, entropy = _read(folder, case, "seg"), _read(folder, case, "entropy")[0]
    probability = _foreground_probability(folder, case, len(seg) == 1)
    # labels that overlap are drawn one over the other, the last on top
    labels = seg[0] if len(seg) == 1 else (seg * np.arange(1, len(seg) + 1).reshape(-1, *[1] * (seg.ndim - 1))).max(0)
    if probability.ndim == 2:
        return PredictionSlice(probability, labels.astype(np.int64), entropy, (1.0, 1.0), "")
    path = _find(folder, case, "seg")
    assert path is not None
    affine = NiftiFile(path).grid.affine
    cut = case_slice(probability[None], labels, entropy, foreground, affine=affine)
    image, prediction, uncertainty = (
        np.ascontiguousarray(part.T[::-1]) for part in (cut.image, cut.prediction, cut.uncertainty)
    )
    across, up = cut.spacing
    return PredictionSlice(image, prediction.astype(np.int64), uncertainty, (up, across), cut.name)


def _foreground_probability(folder: Path, case: str, exclusive: bool) -> NDArray[np.float32]:
    """Probability of any foreground; the first of several channels of classes that exclude each other is background."""
    path = _find(folder, case, "prob")
    if path is None or not path.name.endswith(".nii.gz"):
        prob = _read(folder, case, "prob")
    elif exclusive and NiftiFile(path).num_channels > 1:
        # one channel only, as all of them may not fit into the memory
        return 1 - NiftiFile(path).read(channel=0)[0]
    else:
        prob = _read(folder, case, "prob")
    return 1 - prob[0] if exclusive and len(prob) > 1 else prob.max(0)


def _find(folder: Path, case: str, output: str) -> Path | None:
    found = (folder / case / f"{case}_{output}{ending}" for ending in ENDINGS)
    return next((path for path in found if path.is_file()), None)


def _read(folder: Path, case: str, output: str) -> NDArray:
    """Values (C, X, Y, Z) of a volume or (C, row, column) of a picture."""
    path = _find(folder, case, output)
    if path is None:
        raise FileNotFoundError(str(folder / case))
    if path.name.endswith(".nii.gz"):
        return NiftiFile(path).read()
    if path.suffix == ".npy":
        return np.moveaxis(np.load(path, allow_pickle=False), -1, 0)
    with Image.open(path) as picture:
        unit = float(picture.text.get("unit_per_level", 1.0)) if hasattr(picture, "text") else 1.0
        return np.asarray(picture)[None] * np.float32(unit)
