"""Peak memory of ``calibrate_predictions``, in a fresh process for each side, as a multiple of one case's prediction.

python benchmarks/bench_calibrate_memory.py [--shape 192 192 96] [--sides temperature_scaling:probabilities ...]

The input is one prediction as float32, (C, X, Y, Z), the largest thing that has to be in memory. A run on tiny cases
comes first in the same process, so that imports and compiled code do not count.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from harness import machine, memory_of_sides, peak_memory
from scipy.ndimage import zoom
from scipy.special import softmax

NUM_CLASSES = 3
FIT, USE = ("a", "b"), ("c", "d")
SIDES = (
    "temperature_scaling:probabilities",
    "temperature_scaling:logits",
    "temperature_scaling:archive",
    "vector_scaling:probabilities",
    "isotonic:probabilities",
    "histogram_binning:probabilities",
)


def write_cases(root: Path, shape: tuple[int, ...]) -> None:
    """Write predictions in three forms, and labels that are drawn from them."""
    for number, case in enumerate((*FIT, *USE)):
        rng = np.random.default_rng(number)
        coarse = rng.normal(scale=4, size=(NUM_CLASSES, *(max(size // 16, 2) for size in shape)))
        logits = np.stack(
            [zoom(c, [s / n for s, n in zip(shape, c.shape, strict=True)], order=1) for c in coarse]
        ).astype(np.float32)
        probs = softmax(logits, 0)
        drawn = (rng.random(shape, np.float32) > softmax(logits / 2, 0).cumsum(0)[:-1]).sum(0)
        for name, array in (("logits", np.moveaxis(logits, 0, -1)), ("probabilities", np.moveaxis(probs, 0, -1))):
            save(root / name / f"{case}_prob.nii.gz", array)
        save(root / "labels" / f"{case}.nii.gz", drawn.astype(np.uint8))
        save(root / "archive" / f"{case}.nii.gz", probs.argmax(0).astype(np.uint8))
        np.savez(root / "archive" / f"{case}.npz", probabilities=probs.transpose(0, 3, 2, 1))


def save(path: Path, array: np.ndarray) -> None:
    """Write a NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), path)


def calibrate(root: Path, side: str) -> None:
    """Calibrate and evaluate the cases in a folder."""
    from medcalib.predictions import calibrate_predictions

    calibrator, folder = side.split(":")
    calibrate_predictions(
        root / folder,
        root / "labels",
        Path(tempfile.mkdtemp()) / "out",
        kind="logits" if folder == "logits" else "probabilities",
        calibration_cases=FIT,
        cases=USE,
        calibrator=calibrator,
    )


def main() -> None:
    """Print a row for each side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(192, 192, 96))
    parser.add_argument("--sides", nargs="+", default=SIDES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--side")
    arguments = parser.parse_args()
    if arguments.side:
        calibrate(arguments.folder / "tiny", arguments.side)
        print(peak_memory(lambda: calibrate(arguments.folder / "large", arguments.side)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_cases(Path(folder, "tiny"), (16, 16, 16))
        write_cases(Path(folder, "large"), tuple(arguments.shape))
        found = memory_of_sides(__file__, list(arguments.sides), "--folder", folder)
    size = 4 * NUM_CLASSES * math.prod(arguments.shape)
    print(machine())
    print(f"one prediction: {size / 1e6:.0f} MB\n| side | peak, MB | to one prediction |\n| --- | ---: | ---: |")
    for side, peak in found.items():
        print(f"| {side} | {peak / 1e6:.0f} | {peak / size:.1f} |")


if __name__ == "__main__":
    main()
