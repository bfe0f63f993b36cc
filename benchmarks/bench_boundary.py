"""What distances between surfaces and bands at boundaries cost, per case and class.

    python benchmarks/bench_boundary.py [--repeats 3] [--small]

Masks are balls with a wavy surface, a prediction and a truth that differ by about a voxel, in a volume of the size of a
hippocampus crop and in one of the size of an abdominal CT with anisotropic voxels. Shared: as an evaluation calls the
three metrics, which find the distances of a case once. The other sides are MONAI's functions on the same masks, and
those of this package without what they share. Times are those of the processor, so that other programs matter less.
"""

from __future__ import annotations

import argparse
import functools
import time

import numpy as np
import torch
from harness import alternate, machine, peak_memory, report
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medcalib.metrics import (
    BinStatisticsMetric,
    BoundaryStatisticsMetric,
    HausdorffDistanceMetric,
    ModifiedHausdorffDistanceMetric,
    SurfaceDiceMetric,
    surface_distances,
)

SIZES = {"35^3, 1 mm": ((35, 35, 35), (1.0, 1.0, 1.0), 10), "256x256x128": ((256, 256, 128), (0.8, 0.8, 2.5), 60)}
TOLERANCE, BAND = 2.0, 3.0


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float, phase: float) -> torch.Tensor:
    """A label map (1, 1, ...) of a ball whose radius in mm varies with the direction."""
    axes = [(np.arange(n) - n / 2) * size for n, size in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    angle = np.arctan2(y, x) + 0 * z
    wavy = radius * (1 + 0.08 * np.sin(5 * angle + phase) * np.cos(z / radius * 3))
    return torch.from_numpy((x**2 + y**2 + z**2 < wavy**2).astype(np.int64))[None, None]


def apart(metric: object, y_pred: torch.Tensor, y: torch.Tensor, spacing: tuple[float, ...]) -> None:
    """Call a metric that finds no distances of the one before."""
    surface_distances._LAST.clear()
    metric(y_pred, y, spacing=spacing)


def compare(name: str, repeats: int) -> None:
    """Print the cost of all sides on masks of one size."""
    shape, spacing, radius = SIZES[name]
    y_pred, y = (ball(shape, spacing, radius, phase) for phase in (0.0, 0.7))
    metrics = {
        "mhd": ModifiedHausdorffDistanceMetric(num_classes=2),
        "hd95": HausdorffDistanceMetric(num_classes=2),
        "surface_dice": SurfaceDiceMetric(TOLERANCE, num_classes=2),
    }
    channels = [torch.cat([labels == 0, labels == 1], 1).float() for labels in (y_pred, y)]

    def together(*names: str) -> None:
        surface_distances._LAST.clear()
        for one in names:
            metrics[one](y_pred, y, spacing=spacing)

    elements = SurfaceDiceMetric(TOLERANCE, num_classes=2, use_subvoxels=True)
    sides = {
        "mhd": functools.partial(apart, metrics["mhd"], y_pred, y, spacing),
        "hd95": functools.partial(apart, metrics["hd95"], y_pred, y, spacing),
        "surface_dice": functools.partial(apart, metrics["surface_dice"], y_pred, y, spacing),
        "mhd and hd95, shared": functools.partial(together, "mhd", "hd95"),
        "all three, shared": functools.partial(together, *metrics),
        "surface_dice of elements": functools.partial(apart, elements, y_pred, y, spacing),
        "MONAI's HD95": functools.partial(compute_hausdorff_distance, *channels, percentile=95, spacing=spacing),
        "MONAI's surface Dice": functools.partial(compute_surface_dice, *channels, [TOLERANCE], spacing=spacing),
    }
    report(f"{name}, {int(y.sum())} voxels in the class", alternate(sides, repeats, time.process_time), "mhd")

    probs = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    probs = torch.cat([1 - probs, probs], 1)
    plain = BinStatisticsMetric(include_background=False)
    band = BoundaryStatisticsMetric(BAND, include_background=False)
    united = BinStatisticsMetric(include_background=False, boundary_width=BAND)
    sides = {
        "bins of all voxels": lambda: plain(probs, y),
        f"bins within {BAND:g} mm": lambda: band(probs, y, spacing=spacing),
        "the same by boundary_width": lambda: united(probs, y, spacing=spacing),
    }
    report(f"{name}, calibration", alternate(sides, repeats, time.process_time), "bins of all voxels")
    print(f"peak memory of the band: {peak_memory(sides[f'bins within {BAND:g} mm']) / y.numel():.1f} bytes per voxel")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="the small masks alone")
    arguments = parser.parse_args()
    print(machine())
    for size in [*SIZES][: 1 if arguments.small else None]:
        compare(size, arguments.repeats)
