"""How fast schedules of the training learn: Dice of validation cases after some epochs, and seconds.

    python benchmarks/bench_schedules.py --data_dir=/data [--epochs="[12, 20]"] [--seeds="[1, 2]"] [--debug]

Each schedule trains `baseline_dice_ce` on 160 cases of the hippocampus set and is judged by the Dice of 38 validation
cases at its last epoch. No test case is looked at. Seconds and ratios are to the first schedule of the list.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import machine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medcalib.bundle.compose import generate
from medcalib.bundle.templates import find_templates
from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options

COSINE = {
    "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR",
    "optimizer": "@train::optimizer",
    "T_max": "@max_epochs",
    "eta_min": 1e-6,
}
WEAKER = {"data::augmentation::2::prob": 0.2}
STRONGER = {
    "data::augmentation::2::prob": 0.8,
    "data::augmentation::2::rotate_range": [0.35, 0.35, 0.35],
    "data::augmentation::2::scale_range": [0.2, 0.2, 0.2],
    "data::augmentation::4::factors": 0.25,
    "data::augmentation::5::offsets": 0.25,
    "data::augmentation::6::prob": 0.3,
}


def warm(rate: float, batch_size: int) -> dict[str, object]:
    """Warm-up over the first epoch and half a cosine, as every bundle has it."""
    return {"train::optimizer::lr": rate, "data::batch_size": batch_size}


def cosine(rate: float, batch_size: int) -> dict[str, object]:
    """Half a cosine from the first step on."""
    return {"train::lr_scheduler": COSINE, **warm(rate, batch_size)}


SCHEDULES = {
    "batches of 4, 0.002, cosine (the former default)": cosine(0.002, 4),
    "batches of 4, 0.004, cosine": cosine(0.004, 4),
    "batches of 4, 0.004, warm-up": warm(0.004, 4),
    "batches of 4, 0.008, warm-up": warm(0.008, 4),
    "batches of 4, 0.004, warm-up, weight decay 0.02": warm(0.004, 4) | {"train::optimizer::weight_decay": 0.02},
    "batches of 4, 0.002, cosine, weaker augmentation": cosine(0.002, 4) | WEAKER,
    "batches of 4, 0.002, cosine, stronger augmentation": cosine(0.002, 4) | STRONGER,
    "batches of 2, 0.002, cosine": cosine(0.002, 2),
    "batches of 2, 0.004, cosine": cosine(0.004, 2),
    "batches of 2, 0.004, warm-up (the default)": warm(0.004, 2),
    "batches of 2, 0.008, warm-up": warm(0.008, 2),
    "batches of 2, 0.004, warm-up, weaker augmentation": warm(0.004, 2) | WEAKER,
    "batches of 2, 0.004, warm-up, stronger augmentation": warm(0.004, 2) | STRONGER,
}


def main(data_dir: str, epochs: Sequence[int] = (12, 20), seeds: Sequence[int] = (1, 2), debug: bool = False) -> None:
    """Train with every schedule in turn, and print the table.

    Args:
        data_dir: folder that holds Task04_Hippocampus.
        epochs: numbers of epochs, each a training of its own.
        seeds: seeds of the trainings.
        debug: runs of seconds on three cases, to try the script.
    """
    print(machine())
    print("| schedule | epochs | Dice of validation cases, by seed | seconds | ratio |")
    print("| --- | ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        bundle, _ = generate(find_templates(), Path(folder), "hippocampus", "baseline_dice_ce", "deterministic")
        for number in epochs:
            first = None
            for place, (name, overrides) in enumerate(SCHEDULES.items()):
                outputs = [Path(folder, f"{place}_{number}_{seed}") for seed in seeds]
                for seed, output in zip(seeds, outputs, strict=True):
                    train(bundle, seed, output, data_dir, overrides | {"data::max_epochs": number}, debug)
                took = sum(json.loads((output / "cost/train.json").read_text())["seconds"] for output in outputs)
                first = first or took
                found = ", ".join(f"{last_dice(output):.4f}" for output in outputs)
                print(f"| {name} | {number} | {found} | {took / len(seeds):.0f} | {took / first:.2f} |", flush=True)


def train(bundle: Path, seed: int, output: Path, data_dir: str, overrides: dict[str, object], debug: bool) -> None:
    """Train as a user does."""
    words = ["run", "--bundle", str(bundle), "--mode", "train", f"--seed={seed}", f"--output_dir={output}"]
    words += [f"--data_dir={data_dir}", "--data::cases::fractions=[0.8, 0.19, 0.01]", *["--debug"] * debug]
    words += [f"--{id_}={value if isinstance(value, str) else json.dumps(value)}" for id_, value in overrides.items()]
    subprocess.run([sys.executable, "-m", "medcalib.cli", *words], check=True, stdout=subprocess.DEVNULL)


def last_dice(output: Path) -> float:
    """Dice of validation cases after the last epoch."""
    events = EventAccumulator(str(output / "tensorboard")).Reload()
    return events.Scalars("mean_dice")[-1].value


if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "bench_schedules.py")
