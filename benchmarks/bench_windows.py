"""What a single window costs on a CPU with torch's own choice of convolution, padded to two windows, and with oneDNN.

    python benchmarks/bench_windows.py
    python benchmarks/bench_windows.py --bundle=bundles/<name> [--rounds=2] [--data::dataset_dir=...]

The second command evaluates a trained bundle with both kinds of convolution. All times are processor time of one
thread, as other work on the machine changes it least.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from bench_evaluation import evaluate
from harness import alternate, machine, report
from monai.networks.nets import BasicUNet, DynUNet, SegResNetDS, SwinUNETR
from torch import Tensor, nn

from medcalib.networks import fast_convolutions
from medcalib.networks.memory_layout import fast_layout

SEGRESNET = partial(SegResNetDS, in_channels=1, out_channels=3, norm="batch")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "segresnet_ds of hippocampus": (
        partial(SEGRESNET, init_filters=8, blocks_down=(1, 2, 2), dsdepth=2),
        (40, 56, 40),
    ),
    "segresnet_ds of phantom": (partial(SEGRESNET, init_filters=8, blocks_down=(1, 1, 2), dsdepth=2), (32, 32, 32)),
    "segresnet_ds, default": (
        partial(SEGRESNET, init_filters=32, blocks_down=(1, 2, 2, 4, 4), dsdepth=4),
        (64, 64, 64),
    ),
    "unet": (partial(BasicUNet, 3, 1, 3, [32, 64, 128, 256, 512, 32], norm="instance"), (40, 56, 40)),
    "dynunet": (
        partial(DynUNet, 3, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[32, 64, 128, 256], norm_name="instance"),
        (40, 56, 40),
    ),
    "swin_unetr": (
        partial(SwinUNETR, in_channels=1, out_channels=3, feature_size=24, depths=[2] * 4, norm_name="instance"),
        (64, 64, 64),
    ),
}
PLAIN = "torch's choice"
PLACED = {PLAIN: "$@method_network.to(device=@device, memory_format=@memory_format)", "oneDNN": None}


def logits(network: nn.Module, windows: Tensor) -> Tensor:
    """The finest logits of a network."""
    outputs = network(windows)
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


@torch.no_grad()
def windows(repeats: int = 3) -> None:
    """Print a table for each network."""
    for name, (make, size) in NETWORKS.items():
        torch.manual_seed(0)
        plain = make().eval()
        plain.to(memory_format=fast_layout(plain))
        fast = fast_convolutions(copy.deepcopy(plain))
        window = torch.rand(1, 1, *size)
        sides = {
            PLAIN: partial(logits, plain, window),
            "padded to two windows": lambda plain=plain, window=window: logits(plain, window.repeat(2, 1, 1, 1, 1))[:1],
            "oneDNN": partial(logits, fast, window),
        }
        expected = sides[PLAIN]()
        error = ((sides["oneDNN"]() - expected).abs().max() / expected.abs().max()).item()
        times = alternate(sides, repeats, time.process_time)
        report(f"{name}, one window of {size}, relative difference {error:.0e}", times, PLAIN)


def evaluations(bundle: Path, overrides: dict[str, str], rounds: int) -> None:
    """Print the time of an evaluation with each kind of convolution; the first round, which compiles, is left out."""
    results: dict[str, list[tuple[float, float]]] = {side: [] for side in PLACED}
    for number in range(rounds + 1):
        for side, placed in PLACED.items():
            own = overrides if placed is None else {**overrides, "placed_network": placed}
            with tempfile.TemporaryDirectory() as folder:
                result = evaluate(bundle, own, folder, clock=time.process_time)
            if number:
                results[side].append(result)
    totals = {side: statistics.median(total for total, _ in values) for side, values in results.items()}
    report("evaluation", totals, PLAIN, "s", 1)
    forward = {side: statistics.median(passes for _, passes in values) for side, values in results.items()}
    report("its forward passes", forward, PLAIN, "s", 1)
    for side, total in totals.items():
        print(f"{side}: {1 - forward[side] / total:.1%} of the evaluation is not the network")


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    if "bundle" in arguments:
        bundle, rounds = Path(arguments.pop("bundle")), int(arguments.pop("rounds", 2))
        evaluations(bundle, arguments, rounds)
    else:
        windows()


if __name__ == "__main__":
    main()
