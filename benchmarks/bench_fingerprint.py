"""Time to measure the cases of a dataset for its plan, by case, with this process alone and with 1 and 2 others.

Without --decathlon, made CT of 16 classes is measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from harness import machine

from medcalib.planning.dataset_measures import measure_dataset
from medcalib.planning.dataset_source import DatasetSource
from medcalib.planning.described_datasets import decathlon_source

CLASSES = 16


def made_cases(folder: Path, number: int, shape: tuple[int, ...]) -> list[dict]:
    rng = np.random.default_rng(0)
    cases = []
    for index in range(number):
        label = np.zeros(shape, np.uint8)
        for value in range(1, CLASSES):
            corner = [int(rng.integers(0, 3 * size // 4)) for size in shape]
            label[tuple(slice(start, start + size // 4) for start, size in zip(corner, shape, strict=True))] = value
        image = (rng.normal(0, 30, shape) + 20 * label).astype(np.int16)
        case = {"case": f"case_{index}"}
        for key, volume in (("image", image), ("label", label)):
            case[key] = str(folder / f"{key}_{index}.nii.gz")
            nib.save(nib.Nifti1Image(volume, np.diag([0.8, 0.8, 3.0, 1.0])), case[key])
        cases.append(case)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decathlon", help="folder of a task of the Decathlon")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 100))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.decathlon:
            source: DatasetSource = decathlon_source(options.decathlon)
            cases, what = list(source.cases), Path(options.decathlon).name
        else:
            cases = made_cases(Path(folder), options.cases, tuple(options.shape))
            what = f"CT of {' x '.join(map(str, options.shape))} voxels, {CLASSES} classes"
        times: dict[int, list[float]] = {0: [], 1: [], 2: []}
        measure_dataset(cases[:1], False, progress=False)
        for _ in range(options.repeats):
            for workers, found in times.items():
                start = time.perf_counter()
                measure_dataset(cases, False, num_workers=workers, progress=False)
                found.append(time.perf_counter() - start)
        cache = Path(folder) / "measures.json"
        measure_dataset(cases, False, cache, progress=False)
        start = time.perf_counter()
        measure_dataset(cases, False, cache, progress=False)
        known = time.perf_counter() - start
    print(machine())
    print(f"\n{len(cases)} cases, {what}\n\n| measured by | ms a case | to one process |\n| --- | ---: | ---: |")
    alone = statistics.median(times[0])
    names = {0: "this process", 1: "1 worker process", 2: "2 worker processes"}
    for workers, found in times.items():
        value = statistics.median(found)
        print(f"| {names[workers]} | {1000 * value / len(cases):.1f} | {value / alone:.3f} |")
    print(f"| known from before | {1000 * known / len(cases):.2f} | {known / alone:.4f} |")


if __name__ == "__main__":
    main()
