"""What the kernels of CUDA are given besides their arrays: tables of the bins, and how a volume is cut up."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from medcalib.functional import _kernels_triton
from medcalib.functional._binning_torch import bin_centres
from medcalib.functional._bins import bin_boundaries

__all__ = ["Cut", "add_up", "bin_gradients", "check_installed", "cut", "kernel_table", "power_of_two", "widths"]

# Lanes of a program; there are as many threads.
LANES = 128
# A program holds at most this many bins at a time, since a lane keeps its copies in registers.
_MOST_BINS = 48
_BINS_OF_MANY = 32
# With fewer programs than this, some multiprocessors of a large card would wait for others.
_ENOUGH_PROGRAMS = 2048


class Cut(NamedTuple):
    """How the voxels of a volume are dealt out: each of ``parts`` programs takes ``steps`` tiles of ``block``."""

    parts: int
    block: int
    steps: int
    unroll: int


def check_installed() -> None:
    """Raise what importing triton raised, where it could not be imported."""
    if _kernels_triton.missing is not None:
        raise _kernels_triton.missing


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below ``number``."""
    return 1 << max(number - 1, 0).bit_length()


def widths(num_bins: int) -> tuple[int, int]:
    """Return two widths, powers of two or 0, in which the bins are held with few left over."""
    if num_bins > _MOST_BINS:
        return _BINS_OF_MANY, 0
    wide = 1 << (num_bins.bit_length() - 1)
    return wide, power_of_two(num_bins - wide) if num_bins > wide else 0


def cut(voxels: int, rows: int, most: int) -> Cut:
    """Deal out ``rows`` rows of voxels; the same shape is dealt out in the same way on every card."""
    steps = most
    while steps > 1 and rows * -(-voxels // (steps * LANES)) < _ENOUGH_PROGRAMS:
        steps = max(steps // 4, 1)
    return Cut(-(-voxels // (steps * LANES)), LANES, steps, min(steps, 4))


def _width(num_bins: int) -> float:
    """Return the width of a hard bin as float32 holds it; its multiples are the anchors."""
    return torch.tensor(1 / num_bins, dtype=torch.float32).item()


@cache
def kernel_table(num_bins: int, device: torch.device) -> Tensor:
    """Return boundaries, width, centres and inverse distances between centres, (4, num_bins + 1), float32."""
    table = torch.zeros(4, num_bins + 1, dtype=torch.float32)
    table[0] = bin_boundaries(num_bins)
    table[0, 0], table[0, -1] = -torch.inf, torch.inf
    table[1] = _width(num_bins)
    centres, steps = bin_centres(num_bins)
    table[2, :-1], table[3, :-1] = centres, steps
    return table.to(device)


@cache
def _anchors(num_bins: int, device: torch.device) -> Tensor:
    """Return the value of each hard bin, in float64, from which the distances of its probabilities are summed."""
    return (torch.arange(num_bins, dtype=torch.float64) * _width(num_bins)).to(device)


def add_up(partial: Tensor, num_bins: int, *, soft: bool) -> Tensor:
    """Sum what programs left, (B, parts, ..., bins, 3), into float64 counts, sums and true sums (B, ..., bins, 3)."""
    sums = partial.sum(1, dtype=torch.float64)
    if not soft:
        sums[..., 1].addcmul_(sums[..., 0], _anchors(num_bins, partial.device))
    return sums


def bin_gradients(grad_gaps: Tensor, grad_counts: Tensor) -> Tensor:
    """Return gradients of gaps and counts (B, C, bins) beside each other, with one bin more, (B, C, bins + 1, 2)."""
    both = torch.stack([grad_gaps, grad_counts], -1).float()
    return torch.cat([both, both[:, :, -1:]], 2).contiguous()
