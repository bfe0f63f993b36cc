"""Time bin statistics of one 4-class volume beside MONAI's: `python benchmarks/bench_binning.py`."""

from __future__ import annotations

import argparse

import torch
from harness import alternate, machine, report
from monai.metrics import calibration_binning
from torch.nn.functional import one_hot

from medcalib.functional import bin_statistics


def sides(size: int) -> dict:
    torch.manual_seed(0)
    probs = (3 * torch.randn(1, 4, size, size, size)).softmax(1)
    labels = torch.randint(0, 4, (1, 1, size, size, size), dtype=torch.uint8)
    target = one_hot(labels[:, 0].long(), 4).movedim(-1, 1).float()
    out = torch.empty_like(probs)
    return {
        "monai": lambda: calibration_binning(probs, target, 20),
        "copy": lambda: out.copy_(probs),
        "hard": lambda: bin_statistics(probs, labels),
        "soft": lambda: bin_statistics(probs, labels, soft=True),
        "hard, one-hot target": lambda: bin_statistics(probs, target),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(2)
    print(machine())
    report(f"bin statistics, 1x4x{args.size}^3", alternate(sides(args.size), args.repeats), "monai")


if __name__ == "__main__":
    main()
