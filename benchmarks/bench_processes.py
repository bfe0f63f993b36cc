"""How long a training takes with one process, and with several that share it, of one thread each.

    python benchmarks/bench_processes.py --processes 2 --epochs 3

The seconds are those that the run itself records, from the first reading of a case to the last checkpoint; starting
Python is not in them. On a machine with other load the ratio says little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import machine, report

from medcalib.bundle.compose import generate
from medcalib.bundle.templates import find_templates
from medcalib.data import make_phantom

SIZE = {"num_training": 16, "num_validation": 4, "num_test": 1}


def seconds(folder: Path, bundle: Path, processes: int, epochs: int, repeat: int) -> float:
    """Seconds of a training with so many processes."""
    command = [sys.executable, "-m", "medcalib.cli", "run", f"--bundle={bundle}", "--mode=train", "--device=cpu"]
    command += [f"--seed={1000 * processes + repeat}", f"--num_gpus={processes}", f"--data::max_epochs={epochs}"]
    command += [f"--data::dataset_dir={folder / 'phantom'}"]
    command += [f"--data::cases::{name}={number}" for name, number in SIZE.items()]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    cost = json.loads((bundle / f"seed_{1000 * processes + repeat}" / "cost" / "train.json").read_text())
    return float(cost["seconds"])


def main(processes: int, epochs: int, repeats: int) -> None:
    """Measure both sides in turn, and print the shorter time of each."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_phantom(folder / "phantom", **SIZE)
        bundle = generate(find_templates(), folder / "bundles", "phantom", "softl1ace_dice_ce", "deterministic")[0]
        found: dict[str, list[float]] = {}
        for repeat in range(repeats):
            for number in (1, processes):
                name = f"{number} process{'es' if number > 1 else ''}"
                found.setdefault(name, []).append(seconds(folder, bundle, number, epochs, repeat))
        best = {name: min(times) for name, times in found.items()}
        report(f"training, {epochs} epochs of {SIZE['num_training']} cases", best, "1 process", "s", 1.0)
        print(f"\n{machine()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.processes, arguments.epochs, arguments.repeats)
