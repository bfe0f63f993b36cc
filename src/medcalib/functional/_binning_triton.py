"""Bin statistics on CUDA in one pass: each program compares a block of voxels with all bins of one class at once."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional._binning_torch import bin_centres
from medcalib.functional._bins import bin_boundaries

try:
    import triton
    import triton.language as tl

    _compiled, _missing = triton.jit, None
except ImportError as error:  # whoever reads all modules, such as a test collector, reads this one without triton too
    _missing = error

    def _compiled(kernel):  # noqa: ANN001, ANN202
        return kernel


__all__ = ["forward"]

# Voxels times bins that a program holds at a time, and blocks of voxels that it takes before it adds to memory.
_TABLE = 8192
_BLOCKS = 64


@_compiled
def _bin_kernel(  # noqa: ANN202
    probs,  # noqa: ANN001
    truth,  # noqa: ANN001
    mask,  # noqa: ANN001
    edges,  # noqa: ANN001
    sums,  # noqa: ANN001
    voxels,  # noqa: ANN001
    parts,  # noqa: ANN001
    classes,  # noqa: ANN001
    first_class,  # noqa: ANN001
    num_bins,  # noqa: ANN001
    soft: tl.constexpr,
    right: tl.constexpr,
    use_labels: tl.constexpr,
    use_mask: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
    blocks: tl.constexpr,
):
    # Rows and parts of a row share the one axis of the grid that takes more than 65,535 programs.
    row, part = tl.program_id(0).to(tl.int64) // parts, tl.program_id(0).to(tl.int64) % parts
    case, class_ = row // classes, row % classes
    k = tl.arange(0, padded)
    below, at = tl.load(edges + k), tl.load(edges + padded + k)
    above = tl.load(edges + 2 * padded + k)
    counts = tl.zeros([padded], tl.float64)
    sum_pred = tl.zeros([padded], tl.float64)
    sum_true = tl.zeros([padded], tl.float64)
    for step in range(blocks):
        voxel = (part * blocks + step) * block + tl.arange(0, block)
        keep = voxel < voxels
        p = tl.load(probs + row * voxels + voxel, mask=keep, other=0.0)
        if use_labels:
            label = tl.load(truth + case * voxels + voxel, mask=keep, other=0)
            t = (label == class_ + first_class).to(tl.float64)
        else:
            t = tl.load(truth + row * voxels + voxel, mask=keep, other=0).to(tl.float64)
        if use_mask:
            keep = keep & (tl.load(mask + case * voxels + voxel, mask=keep, other=0) != 0)
            # What does not count may be NaN, which no share of zero undoes.
            p, t = tl.where(keep, p, 0.0), tl.where(keep, t, 0.0)
        if soft:
            value = p.to(tl.float64)[:, None]
            # At the outer centres the distance to a neighbour at infinity counts as a whole bin.
            rise = tl.where(k[None, :] == 0, 1.0, (value - below[None, :]) / (at - below)[None, :])
            fall = tl.where(k[None, :] == num_bins - 1, 1.0, (above[None, :] - value) / (above - at)[None, :])
            share = tl.minimum(tl.maximum(tl.minimum(rise, fall), 0.0), 1.0)
        else:
            value = p.to(tl.float32).to(tl.float64)[:, None]
            if right:
                share = ((value >= below[None, :]) & (value < at[None, :])).to(tl.float64)
            else:
                share = ((value > below[None, :]) & (value <= at[None, :])).to(tl.float64)
        share = tl.where(keep[:, None] & (k[None, :] < num_bins), share, 0.0)
        counts += tl.sum(share, 0)
        sum_pred += tl.sum(share * p.to(tl.float64)[:, None], 0)
        sum_true += tl.sum(share * t[:, None], 0)
    out = sums + (row * num_bins + k) * 3
    tl.atomic_add(out, counts, mask=k < num_bins)
    tl.atomic_add(out + 1, sum_pred, mask=k < num_bins)
    tl.atomic_add(out + 2, sum_true, mask=k < num_bins)


def _edges(num_bins: int, padded: int, soft: bool, device: torch.device) -> Tensor:
    """Return what each bin is compared with, (3, padded): its neighbours' centres and its own, or its boundaries."""
    edges = torch.ones(3, padded, dtype=torch.float64, device=device).cumsum(0)
    if soft:
        centres, _ = bin_centres(num_bins, device)
        edges[1, :num_bins] = centres
        edges[0, :num_bins] = centres - 1
        edges[2, :num_bins] = centres + 1
        edges[0, 1:num_bins], edges[2, : num_bins - 1] = centres[:-1], centres[1:]
        return edges
    boundaries = bin_boundaries(num_bins, device).double()
    edges[0, :num_bins], edges[1, :num_bins] = boundaries[:-1], boundaries[1:]
    edges[0, 0], edges[1, num_bins - 1] = -torch.inf, torch.inf
    return edges


def forward(
    probs: Tensor,
    y: Tensor,
    num_bins: int,
    mask: Tensor | None = None,
    *,
    use_labels: bool,
    soft: bool,
    right: bool = False,
    first_class: int = 0,
) -> Tensor:
    """Bin probabilities, arguments and result as in the plain torch version; never waits for the device."""
    if _missing is not None:
        raise _missing
    batch, classes, voxels = probs.shape
    padded = max(triton.next_power_of_2(num_bins), 2)
    block = max(_TABLE // padded, 16)
    sums = torch.zeros(batch, classes, num_bins, 3, dtype=torch.float64, device=probs.device)
    probs, y = probs.contiguous(), y.contiguous()
    use_mask = mask is not None
    truth = y.view(torch.uint8) if y.dtype == torch.bool else y
    kept = truth if mask is None else mask.contiguous().view(torch.uint8)
    parts = triton.cdiv(voxels, block * _BLOCKS)
    if sums.numel() and voxels:
        _bin_kernel[(batch * classes * parts,)](
            probs,
            truth,
            kept,
            _edges(num_bins, padded, soft, probs.device),
            sums,
            voxels,
            parts,
            classes,
            first_class,
            num_bins,
            soft,
            right,
            use_labels,
            use_mask,
            padded,
            block,
            _BLOCKS,
        )
    return sums
