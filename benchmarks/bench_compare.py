"""How long a comparison of many methods takes, and how much memory.

    python benchmarks/bench_compare.py [--num_cases 200] [--num_methods 20] [--num_seeds 1] [--num_classes 3] [--page]

Evaluations are made up in a folder that is removed again; they are read, compared with 9999 draws, and written as
``medcalib compare`` does, with --page also the report page.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import machine

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.compare import compare, find_evaluations, read_evaluation, write_tables
from medcalib.files.result_tables import case_table, joined_table, write_table
from medcalib.files.writing import write_json

METRICS = ("mean_dice", "macro_ece", "macro_ace", "macro_mce", "nll", "brier", "mhd")
VOXELS = 100_000


def main(
    num_cases: int = 200,
    num_methods: int = 20,
    num_seeds: int = 1,
    num_classes: int = 3,
    num_bins: int = 20,
    num_samples: int = 9999,
    page: bool = False,
) -> None:
    """Make evaluations, compare them, and print seconds and peak memory.

    Args:
        num_cases: number of cases.
        num_methods: number of methods.
        num_seeds: number of seeds of each.
        num_classes: number of classes.
        num_bins: number of bins.
        num_samples: how often cases are drawn.
        page: write the report page, too.
    """
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for method in range(num_methods):
            for seed in range(num_seeds):
                place = root / f"method_{method:02}" / f"seed_{seed}" / "evaluation"
                make(place, method, seed, num_cases, num_classes, num_bins)
        start = now()
        read = {
            path.name: [read_evaluation(found) for found in find_evaluations(path)] for path in sorted(root.iterdir())
        }
        told("read", start)
        start = now()
        comparison = compare(read, next(iter(read)), num_samples=num_samples)
        told(f"compared, {len(comparison.table)} rows", start)
        start = now()
        write_tables(comparison, root / "out")
        told("tables written", start)
        if page:
            from medcalib.comparison_page import write_page

            start = now()
            write_page(comparison, root / "out")
            told("page written", start)


def make(folder: Path, method: int, seed: int, num_cases: int, num_classes: int, num_bins: int) -> None:
    """Write an evaluation, as a bundle does, of noise around what all share of a case; some cases lack a class."""
    folder.mkdir(parents=True)
    shared, own = np.random.default_rng(0), np.random.default_rng([method, seed])
    cases, classes = [f"case_{n:04}" for n in range(num_cases)], [f"class_{n}" for n in range(num_classes)]
    absent = shared.random((num_cases, num_classes)) < 0.05
    tables = {}
    for metric in METRICS:
        errors = shared.gamma(4, 0.02, absent.shape) * (1 - method / 100) + own.gamma(4, 0.01, absent.shape)
        values = np.where(absent, np.nan, 1 - errors if metric == "mean_dice" else errors)
        tables[metric] = case_table(cases, classes, values)
    write_table(joined_table(tables), folder / "cases.csv")
    counts = own.multinomial(VOXELS, shared.dirichlet(np.ones(num_bins)), absent.shape)
    confidence = (np.arange(num_bins) + 0.5) / num_bins
    # the labels, of which each bin has as many, are the same for all
    sum_true = np.broadcast_to(VOXELS * confidence**1.2 / num_bins, counts.shape)
    pooled = np.abs((counts * confidence - sum_true).sum(0)) / counts.sum(0)
    for name, reduced in (("ece", pooled.mean(-1)), ("ace", pooled.mean(-1)), ("mce", pooled.max(-1))):
        tables[f"micro_{name}"] = case_table(["dataset"], classes, reduced[None])
    for metric, table in tables.items():
        write_table(table, folder / f"{metric}_raw.csv")
    np.savez_compressed(
        folder / "bin_statistics.npz",
        counts=counts,
        sum_pred=counts * confidence,
        sum_true=sum_true,
        cases=np.array(cases),
        classes=np.array(classes),
    )
    provenance = {"seed": seed, "num_bins": num_bins, "include_background": False, "split_digest": "0" * 64}
    means = {name: float(table["mean"].mean()) for name, table in tables.items()}
    write_json(folder / "summary.json", means | {"num_cases": num_cases, "provenance": provenance})


def now() -> tuple[float, float]:
    """Time on the clock, and time that this process has had a processor."""
    return time.perf_counter(), time.process_time()


def told(what: str, start: tuple[float, float]) -> None:
    """Print how long something took, and the most memory that this process has taken until now."""
    seconds, busy = (later - earlier for later, earlier in zip(now(), start, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {seconds:.1f} s, {busy:.1f} s of a processor, peak {peak:.2f} GiB")


if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "bench_compare.py")
