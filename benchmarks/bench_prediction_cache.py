"""What a cache of predictions saves: a method with every calibrator, and an evaluation after a prediction.

    python benchmarks/bench_prediction_cache.py --data=hippocampus --dataset_dir=/data/Task04_Hippocampus
    python benchmarks/bench_prediction_cache.py --data=phantom --calibrators=isotonic --limit_cases=4 --max_epochs=2

What is no option of its own replaces a value of the configuration.

Every run is a process of ``medcalib run``, as a user starts it. Seconds are those of the processor, of all threads, and
in brackets those that went by. "start" is what goes by before a run begins its work: imports and the configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from harness import machine

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.templates import find_templates

MODES = ("train", "inference_pred", "inference_eval")


class Cost(NamedTuple):
    """Seconds of the processor, seconds that went by, and those of them before the run began its work."""

    cpu: float = 0.0
    wall: float = 0.0
    start: float = 0.0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        """Both together."""
        return Cost(*(one + another for one, another in zip(self, other, strict=True)))

    def __str__(self) -> str:
        """For tables."""
        return f"{self.cpu:.1f} ({self.wall:.1f}, start {self.start:.1f})"


def timed(bundle: Path, mode: str, cache: str, overrides: list[str]) -> Cost:
    """Run one mode of a bundle."""
    command = [sys.executable, "-m", "medcalib.cli", "run", f"--bundle={bundle}", f"--mode={mode}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*command, f"--prediction_cache={cache}", *overrides], capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    path = bundle / "seed_12345" / "cost" / f"{mode}.json"
    own = json.loads(path.read_text())["seconds"]
    cost = Cost(cpu, wall, max(0.0, wall - own))
    told = " ".join(line for line in done.stdout.splitlines() if line.startswith("Predictions of the network"))
    print(f"{bundle.name} {mode} --prediction_cache={cache}: {cost}; {told}", file=sys.stderr, flush=True)
    return cost


def main() -> None:
    """Measure both bars on one data, and print tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--dataset_dir")
    parser.add_argument("--methods", default="deterministic", help="of which evaluation after prediction is measured")
    parser.add_argument("--calibrators", help="comma-separated; all when left out, none when empty")
    parser.add_argument("--without", action="store_true", help="run the calibrators without a cache, too")
    arguments, overrides = parser.parse_known_args()
    templates = find_templates()
    calibrators = (
        fragment_names(templates / "configs", FragmentKind.CALIBRATOR)
        if arguments.calibrators is None
        else [name for name in arguments.calibrators.split(",") if name]
    )
    overrides += [f"--data::dataset_dir={Path(arguments.dataset_dir).absolute()}"] if arguments.dataset_dir else []
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEDCALIB_CACHE_DIR"] = f"{folder}/cache"
        os.environ.setdefault("MEDCALIB_DATA_DIR", f"{folder}/data")
        bundles = Path(folder, "bundles")

        def bundle(method: str) -> Path:
            return generate(templates, bundles, arguments.data, "baseline_dice_ce", method, None)[0]

        rows, alone, after = [], {}, {}
        for method in arguments.methods.split(","):
            path = bundle(method)
            costs = {"train": timed(path, "train", "off", overrides)}
            costs |= {mode: timed(path, mode, "off", overrides) for mode in MODES[1:]}
            alone[method] = costs
            filled = timed(path, "inference_pred", "auto", overrides)
            after[method] = timed(path, "inference_eval", "auto", overrides)
            rows.append((method, costs["inference_eval"], after[method], filled, costs["inference_pred"]))
        print("\n| method | evaluation alone, s | after prediction, s | ratio of processor time | without start |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for method, one, other, *_ in rows:
            inside = (other.wall - other.start) / (one.wall - one.start)
            print(f"| {method} | {one} | {other} | {other.cpu / one.cpu:.2f} | {inside:.2f} |")
        print("\n| method | prediction without cache, s | that fills it, s | ratio of processor time |")
        print("| --- | ---: | ---: | ---: |")
        for method, *_, filled, plain in rows:
            print(f"| {method} | {plain} | {filled} | {filled.cpu / plain.cpu:.2f} |")
        if calibrators:
            base = sum(alone["deterministic"].values(), Cost())
            print("\n| bundle | train or fit, s | predict, s | evaluate, s | all to deterministic alone |")
            print("| --- | ---: | ---: | ---: | ---: |")
            total = {"auto": base, "off": base} if arguments.without else {"auto": base}
            print(f"| deterministic | {' | '.join(map(str, alone['deterministic'].values()))} | 1.00 |", flush=True)
            for name in calibrators:
                for cache in total:
                    costs = [timed(bundle(name), mode, cache, overrides) for mode in MODES]
                    own = sum(costs, Cost())
                    total[cache] += own
                    label = f"{name}, {'cache' if cache == 'auto' else 'no cache'}"
                    print(f"| {label} | {' | '.join(map(str, costs))} | {own.cpu / base.cpu:.3f} |", flush=True)
            for cache, costs in total.items():
                label = "cache" if cache == "auto" else "no cache"
                ratio = f"{costs.cpu / base.cpu:.2f}, of wall time {costs.wall / base.wall:.2f}"
                print(f"| all together, {label} | | | {costs} | {ratio} |")


if __name__ == "__main__":
    main()
