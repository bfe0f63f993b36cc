"""Patch size, batch size and depth of the network that fit a budget of memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medcalib.errors import UserError
from medcalib.planning.step_memory import Budget, StepMemory, step_memory

__all__ = ["PatchPlan", "axis_halvings", "plan_patch"]

NETWORK = "segresnet_ds"

# from which patches are made smaller, in voxels: those of nnU-Net on a GPU, what a CPU trains in seconds a step
_LARGEST = {(3, True): 256**3, (2, True): 2048**2, (3, False): 64**3, (2, False): 192**2}
_SHORTEST_EDGE = 4
_SIMILAR = 2.0
_MOST_HALVINGS = {True: 4, False: 3}
_FILTERS = {True: (32, 16, 8), False: (8,)}
_BLOCKS = (1, 2, 2, 4, 4)
_BATCH = 2
_LARGEST_BATCH = {(3, True): 16, (2, True): 64, (3, False): 4, (2, False): 16}
_SHARE_OF_DATA = 0.05
# smaller patches show too little around a voxel; a network of fewer features is the lesser evil
_SMALLEST = {3: 32**3, 2: 64**2}


class PatchPlan(NamedTuple):
    """What fits.

    Attributes:
        patch_size: voxels per axis.
        batch_size: patches per step.
        settings: of the network fragment `NETWORK`.
        memory: of a step with one patch.
        is_clipped: whether patches were made smaller for the memory.
        batch_limit: what limits the batch size, in words.
    """

    patch_size: list[int]
    batch_size: int
    settings: dict[str, Any]
    memory: StepMemory
    is_clipped: bool
    batch_limit: str


# patches of a batch whose mean and deviation are those of a network on a CPU
_BATCH_NORMALISED = 4


def plan_patch(
    sizes: ArrayLike, spacing: Sequence[float], num_channels: int, num_classes: int, num_training: int, budget: Budget
) -> PatchPlan:
    """Choose patches as large as they can be, then batches, then fewer features before nothing fits.

    Patches have at first the same extent in mm along each axis, at most that of the median case; the axis that is
    largest compared with the median case is shortened until two patches fit. The batch then grows as memory allows, to
    at most 5 % of the voxels of the dataset. So does nnU-Net; memory is counted, see
    `medcalib.planning.step_memory.step_memory`.

    Reference: Isensee et al., nnU-Net, doi:10.1038/s41592-020-01008-z.

    Args:
        sizes: voxels of every case along each axis after resampling, (case, axis).
        spacing: voxel size after resampling.
        num_channels: of the image.
        num_classes: output channels.
        num_training: number of training cases.
        budget: the memory.

    Raises:
        UserError: the budget is too small for any patch.
    """
    sizes = np.asarray(sizes, dtype=float)
    dims = sizes.shape[1]
    median = np.median(sizes, axis=0)
    batch = min(_BATCH, num_training)
    start = _isotropic(spacing, _LARGEST[dims, budget.on_gpu], median)
    smallest = math.inf
    for filters in _FILTERS[budget.on_gpu]:
        limits = list(start)
        patch, settings = _fitting(limits, median, spacing, filters, budget.on_gpu)
        while True:
            memory = step_memory(NETWORK, settings, patch, num_channels, num_classes, budget.on_gpu)
            if memory.of_batch(batch) <= budget.usable:
                size, limit = _batch_size(memory, patch, sizes, num_training, budget)
                is_clipped = limits != list(start) or filters != _FILTERS[budget.on_gpu][0]
                if not budget.on_gpu and size >= _BATCH_NORMALISED:
                    settings["norm"] = "batch"
                return PatchPlan(patch, size, settings, memory, is_clipped, limit)
            smallest = min(smallest, memory.of_batch(batch))
            allowed = (budget.usable - memory.weights) / (batch * memory.case) * math.prod(patch)
            shorter = patch
            # what autograd keeps grows as the voxels do, so it need not be counted at every step down
            while math.prod(shorter) > allowed and math.prod(shorter) > _SMALLEST[dims]:
                limits = _shortened(limits, shorter, median, spacing, filters, budget.on_gpu)
                shorter, settings = _fitting(limits, median, spacing, filters, budget.on_gpu)
            if shorter == patch or math.prod(shorter) < _SMALLEST[dims]:
                break
            patch = shorter
    needed = smallest + budget.memory - budget.usable
    raise UserError(
        f"{budget.option} is too small for any patch: {batch} of {' x '.join(map(str, patch))} voxels with "
        f"{num_classes} classes take about {math.ceil(needed / 1e8) / 10:g} GB; give more, or plan with --cpu."
    )


def axis_halvings(patch_size: Sequence[int], spacing: Sequence[float], most: int) -> list[int]:
    """How often a network halves each axis.

    From level to level those axes are halved that stay at least 4 long and whose voxels are not twice as large as the
    smallest ones, as in nnU-Net.

    Args:
        patch_size: voxels per axis.
        spacing: voxel size.
        most: halvings of one axis at the most.

    Example:
        >>> axis_halvings([128, 128, 128], [1, 1, 1], most=4), axis_halvings([192, 192, 16], [1, 1, 5], most=4)
        ([4, 4, 4], [4, 4, 2])
        >>> axis_halvings([40, 56, 1], [1, 1, 1], most=4)
        [3, 3, 0]
    """
    sizes, current = list(map(float, patch_size)), list(map(float, spacing))
    halvings = [0] * len(sizes)
    for _ in range(most):
        able = [axis for axis, size in enumerate(sizes) if size >= 2 * _SHORTEST_EDGE]
        if not able:
            break
        finest = min(current[axis] for axis in able)
        for axis in able:
            if current[axis] < _SIMILAR * finest:
                sizes[axis] /= 2
                current[axis] *= 2
                halvings[axis] += 1
    return halvings


def _isotropic(spacing: Sequence[float], voxels: float, median: np.ndarray) -> list[float]:
    """Voxels per axis of a box with edges of one length in mm; what the median case cuts off makes others longer."""
    extent = np.array([1 / size for size in spacing])
    limits = np.array(median, dtype=float)
    free = np.ones(len(limits), dtype=bool)
    for _ in range(len(limits)):
        left = voxels / np.prod(limits[~free])
        scaled = extent * (left / np.prod(extent[free])) ** (1 / free.sum())
        over = free & (scaled >= median)
        if not over.any():
            limits[free] = scaled[free]
            break
        free &= ~over
        if not free.any():
            break
    return limits.tolist()


def _fitting(
    limits: Sequence[float], median: np.ndarray, spacing: Sequence[float], filters: int, on_gpu: bool
) -> tuple[list[int], dict[str, Any]]:
    """The patch of that size, rounded to what the network can halve, and the settings of the network."""
    whole = [max(1, round(limit)) for limit in limits]
    halvings = axis_halvings(whole, spacing, _MOST_HALVINGS[on_gpu])
    if not any(halvings):
        halvings = [1 if size > 1 else 0 for size in whole]
    if not any(halvings):
        halvings = [1] * len(whole)
    # an axis that takes the whole median case is rounded up, so that it still holds it
    patch = [
        (math.ceil if limit >= size else math.floor)(extent / 2**times) * 2**times or 2**times
        for extent, limit, size, times in zip(whole, limits, median, halvings, strict=True)
    ]
    if all(size == 2**times for size, times in zip(patch, halvings, strict=True)):
        # a single voxel on the deepest level has no mean and deviation of its own
        patch = [2 * size for size in patch]
    levels = max(halvings) + 1
    settings: dict[str, Any] = {
        "init_filters": filters,
        "blocks_down": list(_BLOCKS[:levels]),
        "dsdepth": max(1, levels - 1),
        "norm": "instance",
    }
    if len(set(halvings)) > 1:
        settings["resolution"] = [float(2 ** (max(halvings) - times)) for times in halvings]
    return patch, settings


def _shortened(
    limits: Sequence[float],
    patch: Sequence[int],
    median: np.ndarray,
    spacing: Sequence[float],
    filters: int,
    on_gpu: bool,
) -> list[float]:
    """Limits by which the axis that is largest compared with the median case becomes shorter by one step."""
    shorter = [float(size) for size in patch]
    order = sorted(range(len(patch)), key=lambda axis: -patch[axis] / median[axis])
    axis = next(axis for axis in order if patch[axis] > _SHORTEST_EDGE)
    while shorter[axis] > 1:
        shorter[axis] = max(1.0, shorter[axis] - _SHORTEST_EDGE)
        found, _ = _fitting(shorter, median, spacing, filters, on_gpu)
        if math.prod(found) < math.prod(patch):
            break
    return shorter


def _batch_size(
    memory: StepMemory, patch: Sequence[int], sizes: np.ndarray, num_training: int, budget: Budget
) -> tuple[int, str]:
    limits = {
        "what the memory allows": int((budget.usable - memory.weights) // memory.case),
        "5 % of the voxels of the dataset": int(_SHARE_OF_DATA * sizes.prod(1).sum() // math.prod(patch)),
        "the number of training cases": num_training,
        f"the most that is planned for a {'GPU' if budget.on_gpu else 'CPU'}": _LARGEST_BATCH[
            len(patch), budget.on_gpu
        ],
    }
    limit = min(limits, key=lambda name: limits[name])
    least = min(_BATCH, num_training)
    if limits[limit] <= least:
        return least, "the least that is planned" if least == _BATCH else "the number of training cases"
    return limits[limit], limit
