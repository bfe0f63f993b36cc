"""Time and peak memory of the L1-ACE losses beside MONAI's DiceCELoss: `python benchmarks/bench_losses.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from harness import alternate, machine, memory_of_sides, peak_memory, report
from monai.losses import DiceCELoss

from medcalib.losses import HardL1ACEandDiceCELoss, SoftL1ACEandDiceCELoss

SHAPES = {"2x4x96^3": (2, 4, 96, 96, 96), "2x16x176x176x64": (2, 16, 176, 176, 64)}
ACTIVATION = {"softmax": True}
DICE = {"softmax": True, "squared_pred": True}
COMBINED = {"to_onehot_y": True, "ace_params": ACTIVATION, "dice_params": DICE}
LOSSES = {
    "DiceCE": DiceCELoss(to_onehot_y=True, **DICE),
    "HardL1ACEandDiceCE": HardL1ACEandDiceCELoss(**COMBINED),
    "SoftL1ACEandDiceCE": SoftL1ACEandDiceCELoss(**COMBINED),
}


def sides(shape: tuple[int, ...]) -> dict[str, Callable]:
    torch.manual_seed(0)
    logits = (3 * torch.randn(shape)).requires_grad_()
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:])).float()

    def step(loss: torch.nn.Module) -> None:
        logits.grad = None
        loss(logits, labels).backward()

    return {name: lambda loss=loss: step(loss) for name, loss in LOSSES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--side", choices=LOSSES, help="measure the peak memory of one side only")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.side:
        peak_memory(sides((1, SHAPES[args.shape][1], 16, 16, 16))[args.side])
        print(peak_memory(sides(SHAPES[args.shape])[args.side]))
        return
    print(machine())
    for name in [args.shape] if args.shape else SHAPES:
        title = f"forward and backward, {name}"
        report(title, alternate(sides(SHAPES[name]), args.repeats), "DiceCE")
        memory = memory_of_sides(__file__, list(LOSSES), "--shape", name)
        report(f"peak memory above the inputs, {title}", memory, "DiceCE", "MiB", 2**-20)


if __name__ == "__main__":
    main()
