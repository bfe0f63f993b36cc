"""What the losses, bins, samplers and a training step cost on a GPU: the parts that `benchmarks/gpu.sh` runs.

python benchmarks/bench_gpu.py PART [--quick] [--dry] [--output FOLDER]
python benchmarks/bench_gpu.py table --output FOLDER

Both sides of a comparison take turns in one process, times are medians of CUDA events, and the first rounds, in which
kernels are built, are left out and reported apart. ``--dry`` runs tiny sizes on the CPU, to try the script itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import monai
import torch
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss
from monai.networks.nets import SegResNetDS, UNet
from torch import nn

from medcalib.functional import bin_statistics
from medcalib.functional.backends import bin_volume, choose_backend
from medcalib.inferers import MCDropoutSampler, SamplingInferer
from medcalib.losses import HardL1ACEandDiceCELoss, HardL1ACELoss, SoftL1ACEandDiceCELoss, SoftL1ACELoss
from medcalib.networks import insert_dropout

DICE = {"softmax": True, "squared_pred": True}
COMBINED = {"to_onehot_y": True, "ace_params": {"softmax": True}, "dice_params": DICE}
MIB = 2**20


def losses() -> dict[str, nn.Module]:
    """The losses that are compared, made anew."""
    return {
        "DiceCE": DiceCELoss(to_onehot_y=True, **DICE),
        "hard mL1-ACE, Dice, CE": HardL1ACEandDiceCELoss(**COMBINED),
        "soft mL1-ACE, Dice, CE": SoftL1ACEandDiceCELoss(**COMBINED),
    }


class Bench:
    """Device, sizes and where results go."""

    def __init__(self, part: str, quick: bool, dry: bool, output: Path | None) -> None:
        self.part, self.start = part, time.perf_counter()
        self.quick, self.dry, self.output = quick, dry, output
        self.device = torch.device("cpu" if dry else "cuda")
        self.tables: list[dict] = []

    def size(self, full: int, quick: int, dry: int) -> int:
        """The size that fits the mode."""
        return dry if self.dry else quick if self.quick else full

    def wait(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object]) -> float:
        """Time one call on the device, its launches included."""
        if self.dry:
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    def alternate(self, sides: dict[str, Callable[[], object]], repeats: int, warm: int = 3) -> dict[str, float]:
        """Return the median seconds of each side; all take turns."""
        times: dict[str, list[float]] = {name: [] for name in sides}
        first = {}
        for turn in range(repeats + warm):
            for name, function in sides.items():
                start = time.perf_counter()
                value = self.seconds(function)
                if turn == 0:
                    self.wait()
                    first[name] = time.perf_counter() - start
                if turn >= warm:
                    times[name].append(value)
        print("first calls, which build kernels:", {name: round(value, 2) for name, value in first.items()}, flush=True)
        return {name: statistics.median(values) for name, values in times.items()}

    def peak(self, function: Callable[[], object]) -> float:
        """Return by how many bytes one call raises the memory in use."""
        if self.dry:
            function()
            return float("nan")
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)

    def report(self, title: str, columns: list[str], rows: dict[str, list[object]]) -> None:
        """Print a table, and keep it for the output folder."""
        self.tables.append({"title": title, "columns": columns, "rows": rows})
        print(as_markdown(self.tables[-1]), flush=True)
        self.save()

    def compare(self, title: str, sides: dict[str, Callable[[], object]], repeats: int, base: str) -> None:
        """Report time and peak memory of each side, and their ratios to one of them."""
        times = self.alternate(sides, repeats)
        memory = {name: self.peak(function) for name, function in sides.items()}
        rows = {
            name: [
                round(times[name] * 1e3, 3),
                round(times[name] / times[base], 3),
                round(memory[name] / MIB, 1),
                round(memory[name] / memory[base], 3) if memory[base] else None,
            ]
            for name in sides
        }
        self.report(title, ["ms", f"to {base}", "peak MiB above inputs", f"to {base}"], rows)

    def save(self) -> None:
        """Write what there is so far."""
        if self.output:
            self.output.mkdir(parents=True, exist_ok=True)
            took = time.perf_counter() - self.start
            content = {"part": self.part, "machine": machine(self.device), "seconds": took, "tables": self.tables}
            (self.output / f"{self.part}.json").write_text(json.dumps(content, indent=1))


def machine(device: torch.device) -> str:
    """One line naming the card and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, dry run"
    try:
        import triton

        version = triton.__version__
    except ImportError:
        version = "none"
    return (
        f"{name}, {os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, CUDA {torch.version.cuda}, triton {version}, MONAI {monai.__version__}"
    )


def as_markdown(table: dict) -> str:
    """A table of a part as Markdown."""
    lines = [f"\n{table['title']}\n", f"| | {' | '.join(table['columns'])} |"]
    lines.append(f"| --- |{' ---: |' * len(table['columns'])}")
    lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in table["rows"].items()]
    return "\n".join(lines)


def labels_of(bench: Bench, batch: int, classes: int, edge: int) -> torch.Tensor:
    """Blobs, as regions are, with every class in them; float32, as transforms leave label maps."""
    coarse = torch.randint(0, classes, (batch, 1, *[max(edge // 16, 1)] * 3), device=bench.device).float()
    return nn.functional.interpolate(coarse, size=(edge,) * 3, mode="nearest")


def bench_losses(bench: Bench) -> None:
    """Forward and backward of the losses alone, on logits of bfloat16 and float32."""
    edge = bench.size(128, 128, 16)
    settings = [(2, 4, torch.bfloat16), (2, 16, torch.bfloat16)]
    if not bench.quick:
        settings += [(2, 4, torch.float32), (1, 105, torch.bfloat16)]
    for batch, classes, dtype in settings:
        torch.manual_seed(0)
        logits = (3 * torch.randn(batch, classes, *[edge] * 3, device=bench.device)).to(dtype).requires_grad_()
        labels = labels_of(bench, batch, classes, edge)

        def step(loss: nn.Module, logits: torch.Tensor = logits, labels: torch.Tensor = labels) -> None:
            logits.grad = None
            loss(logits, labels).backward()

        title = f"loss alone, forward and backward, {batch} x {classes} x {edge}^3, {str(dtype)[6:]}"
        sides = {name: partial(step, loss) for name, loss in losses().items()}
        if not bench.quick:
            sides["hard mL1-ACE alone"] = partial(step, HardL1ACELoss(softmax=True, to_onehot_y=True))
            sides["soft mL1-ACE alone"] = partial(step, SoftL1ACELoss(softmax=True, to_onehot_y=True))
        bench.compare(title, sides, bench.size(20, 10, 1), "DiceCE")
        del logits, labels, step, sides


def network_of(bench: Bench, classes: int) -> nn.Module:
    """A residual U-Net for patches of 128^3."""
    torch.manual_seed(0)
    channels = (32, 64, 128, 256, 320) if not bench.dry else (4, 8)
    return UNet(3, 1, classes, channels, (2,) * (len(channels) - 1), num_res_units=2).to(bench.device)


def training_step(bench: Bench, network: nn.Module, loss: nn.Module, classes: int, batch: int, edge: int) -> Callable:
    """A whole step with automatic mixed precision in bfloat16."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.rand(batch, 1, *[edge] * 3, device=bench.device)
    labels = labels_of(bench, batch, classes, edge)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            value = loss(network(images), labels)
        value.backward()
        optimizer.step()
        return value

    return step


def bench_step(bench: Bench) -> None:
    """Whole training steps of a 3D U-Net."""
    batch, edge = bench.size(2, 2, 1), bench.size(128, 128, 16)
    for classes in (4, 16):
        network = network_of(bench, classes)
        sides = {n: training_step(bench, network, loss, classes, batch, edge) for n, loss in losses().items()}
        title = f"training step, 3D U-Net, bfloat16 autocast, {batch} x {classes} x {edge}^3"
        bench.compare(title, sides, bench.size(15, 6, 1), "DiceCE")
        del network, sides


def bench_bins(bench: Bench) -> None:
    """Bin statistics of a large volume against what copying memory reaches in the same run."""
    shape = (4, 16, 16, 16) if bench.dry else (4, 512, 512, bench.size(384, 256, 0))
    torch.manual_seed(0)
    probs = torch.empty(1, *shape, device=bench.device).normal_(std=3).softmax(1)
    labels = torch.randint(0, 4, (1, 1, *shape[1:]), device=bench.device, dtype=torch.uint8)
    flat, truth = probs.flatten(2), labels.flatten(1)
    target = torch.empty_like(probs)
    backend = choose_backend(bench.device.type)
    options = {"use_labels": True, "check": False, "backend": backend}
    sides: dict[str, Callable[[], object]] = {
        "copy of the probabilities": lambda: target.copy_(probs),
        "bins, hard": partial(bin_volume, flat, truth, 20, soft=False, **options),
        "bins, hard, 10": partial(bin_volume, flat, truth, 10, soft=False, **options),
        "bins, soft": partial(bin_volume, flat, truth, 20, soft=True, **options),
        "bin_statistics, hard": lambda: bin_statistics(probs, labels),
        "bin_statistics, soft": lambda: bin_statistics(probs, labels, soft=True),
    }
    times = bench.alternate(sides, bench.size(12, 6, 1))
    if not bench.quick:
        plain = {
            "bins, hard, plain torch": partial(
                bin_volume, flat, truth, 20, soft=False, **options | {"backend": "torch"}
            )
        }
        times |= bench.alternate(plain, 1, warm=1)
    read = probs.numel() * probs.element_size()
    moved = dict.fromkeys(times, read + labels.numel()) | {"copy of the probabilities": 2 * read}
    bandwidth = {name: moved[name] / times[name] for name in times}
    best = bandwidth["copy of the probabilities"]
    rows = {n: [round(times[n] * 1e3, 3), round(bandwidth[n] / 1e9, 1), round(bandwidth[n] / best, 3)] for n in times}
    title = (
        f"bins of {' x '.join(map(str, shape))} float32 and labels of uint8, 20 bins; bytes read, or read and written"
    )
    bench.report(title, ["ms", "GB/s", "of the copy's bandwidth"], rows)


@torch.no_grad()
def bench_sampling(bench: Bench) -> None:
    """Monte Carlo dropout in the decoder, with the encoder's outputs used again."""
    edge, members = bench.size(128, 96, 16), bench.size(20, 10, 2)
    torch.manual_seed(0)
    filters = 32 if not bench.dry else 8
    network = SegResNetDS(in_channels=1, out_channels=3, init_filters=filters, blocks_down=(1, 2, 2, 4), dsdepth=1)
    network = insert_dropout(network, ["up_layers.*.blocks.*"], p=0.5).to(bench.device).eval()
    image = torch.rand(1, 1, *[edge] * 3, device=bench.device)

    def predict(sampler: MCDropoutSampler) -> torch.Tensor:
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            return SamplingInferer(SimpleInferer(), sampler).predict(image, network)["pred"]

    fast, plain = MCDropoutSampler(members), MCDropoutSampler(members, reuse=False)
    differs = (predict(fast) - predict(plain)).abs().max().item()
    print(f"largest difference between reuse and plain passes: {differs:g}", flush=True)
    sides = {"plain passes": partial(predict, plain), "reuse": partial(predict, fast)}
    title = f"decoder dropout, {members} members, {edge}^3 bfloat16, largest difference {differs:g}"
    bench.compare(title, sides, bench.size(5, 3, 1), "plain passes")


def bench_ddp(bench: Bench) -> None:
    """The same training step in DistributedDataParallel with one process."""
    from torch import distributed

    batch, edge = bench.size(2, 2, 1), bench.size(128, 128, 16)
    with tempfile.TemporaryDirectory() as folder:
        backend = "gloo" if bench.dry else "nccl"
        distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            device_ids = None if bench.dry else [0]
            loss = losses()["soft mL1-ACE, Dice, CE"]
            plain = network_of(bench, 4)
            wrapped = nn.parallel.DistributedDataParallel(network_of(bench, 4), device_ids=device_ids)
            sides = {
                "plain": training_step(bench, plain, loss, 4, batch, edge),
                "DistributedDataParallel": training_step(bench, wrapped, loss, 4, batch, edge),
            }
            title = f"training step with one process, {backend}, {batch} x 4 x {edge}^3, bfloat16"
            bench.compare(title, sides, bench.size(15, 6, 1), "plain")
        finally:
            distributed.destroy_process_group()


def bench_amp(bench: Bench) -> None:
    """Losses of one network's outputs with and without automatic mixed precision, as training goes on."""
    edge, steps = bench.size(96, 64, 16), bench.size(40, 20, 2)
    rows = {}
    for name in list(losses())[1:]:
        curves = []
        for enabled in (False, True):
            network = network_of(bench, 4)
            torch.manual_seed(1)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
            images, labels = torch.rand(1, 1, *[edge] * 3, device=bench.device), labels_of(bench, 1, 4, edge)
            loss, values = losses()[name], []
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                cast = torch.autocast(bench.device.type, dtype=torch.bfloat16) if enabled else nullcontext()
                with cast:
                    value = loss(network(images + labels), labels)
                value.backward()
                optimizer.step()
                values.append(value.detach())
            curves.append(torch.stack(values).cpu())
            del network, optimizer
        rows[name] = [round(curve[at].item(), 5) for at in (0, -1) for curve in curves]
    columns = ["first, float32", "first, bfloat16", f"step {steps}, float32", f"step {steps}, bfloat16"]
    bench.report(f"loss in training with and without autocast, 3D U-Net, 4 x {edge}^3", columns, rows)


PARTS = {
    "losses": bench_losses,
    "step": bench_step,
    "bins": bench_bins,
    "sampling": bench_sampling,
    "ddp": bench_ddp,
    "amp": bench_amp,
}


def write_table(output: Path) -> None:
    """Join what the parts left into table.md and table.json."""
    found = [output / f"{part}.json" for part in PARTS]
    parts = [json.loads(path.read_text()) for path in found if path.exists()]
    missing = [path.stem for path in found if not path.exists()]
    text = [f"{part['machine']}" for part in parts[:1]]
    text += [as_markdown(table) for part in parts for table in part["tables"]]
    text += [f"\nNot finished: {', '.join(missing)}."] if missing else []
    summary = output / "summary.txt"
    text += ["", summary.read_text()] if summary.exists() else []
    (output / "table.md").write_text("\n".join(text) + "\n")
    (output / "table.json").write_text(json.dumps(parts, indent=1))
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "table"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.part == "table":
        write_table(args.output)
        return
    bench = Bench(args.part, args.quick, args.dry, args.output)
    print(machine(bench.device), flush=True)
    PARTS[args.part](bench)


if __name__ == "__main__":
    main()
