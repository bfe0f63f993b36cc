"""Share of an evaluation that is not the network's forward passes.

    python benchmarks/bench_evaluation.py --bundle bundles/<name> [--data::dataset_dir=...]

The bundle must be trained. Figures are those that an evaluation draws by default.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from harness import machine
from monai.bundle import ConfigWorkflow

from medcalib.bundle.layout import CONFIGS, METADATA, Mode, config_files


def evaluate(
    bundle: Path,
    overrides: dict,
    output_dir: str,
    profile: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the seconds of one evaluation and those of its forward passes."""
    workflow = ConfigWorkflow(
        config_file=[str(path) for path in config_files(bundle / CONFIGS, Mode.INFERENCE_EVAL)],
        meta_file=str(bundle / CONFIGS / METADATA),
        logging_file=str(bundle / CONFIGS / "logging.conf"),
        workflow_type="infer",
        bundle_root=str(bundle),
        checkpoint=str(bundle / "seed_12345" / "models" / "model.pt"),
        output_dir=output_dir,
        **overrides,
    )
    workflow.initialize()
    network = workflow.network_def
    forward, start = [], []
    network.register_forward_pre_hook(lambda *_: start.append(clock()))
    network.register_forward_hook(lambda *_: forward.append(clock() - start[-1]))
    profiler = cProfile.Profile()
    begin = clock()
    if profile:
        profiler.enable()
    workflow.run()
    profiler.disable()
    total = clock() - begin
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)
    return total, sum(forward)


def main() -> None:
    torch.set_num_threads(2)
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    bundle = Path(arguments.pop("bundle"))
    profile = bool(arguments.pop("profile", ""))
    print(machine())
    results = []
    for _ in range(1 if profile else 3):
        with tempfile.TemporaryDirectory() as folder:
            results.append(evaluate(bundle, arguments, folder, profile))
    results = results if profile else results[1:]  # the first one compiles kernels
    total, forward = sorted(results, key=lambda result: 1 - result[1] / result[0])[len(results) // 2]
    print(f"evaluation {total:.1f} s, forward passes {forward:.1f} s, the rest {1 - forward / total:.1%}")


if __name__ == "__main__":
    main()
