"""How the benchmarks measure: sides in turn in one process, medians, and memory in a fresh process per side."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import monai
import numba
import torch


def machine() -> str:
    """Return one line naming processor, load and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(
        (line.split(":")[1].strip() for line in lines if "model name" in line),
        "?",
    )
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads; Python "
        f"{platform.python_version()}, torch {torch.__version__}, MONAI {monai.__version__}, numba {numba.__version__}"
    )


def alternate(
    sides: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Run all sides in turn, and return the median seconds of each; the first round, which compiles, is left out."""
    times = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, function in sides.items():
            start = clock()
            function()
            if repeat:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, values: dict[str, float], base: str, unit: str = "ms", scale: float = 1e3) -> None:
    """Print one row a side, with its ratio to ``base``."""
    print(f"\n{title}\n| side | {unit} | to {base} |\n| --- | ---: | ---: |")
    for name, value in values.items():
        print(f"| {name} | {value * scale:.1f} | {value / values[base]:.3f} |")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def peak_memory(function: Callable[[], object]) -> int:
    """Return by how many bytes the resident memory of this process rises above where it stood before the call."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def memory_of_sides(script: str, names: list[str], *arguments: str) -> dict[str, float]:
    """Run ``script --side NAME`` in a fresh process for each side, and return the bytes that each prints last."""
    command = [sys.executable, script, *arguments, "--side"]
    return {
        name: float(subprocess.run([*command, name], check=True, capture_output=True, text=True).stdout.split()[-1])
        for name in names
    }
