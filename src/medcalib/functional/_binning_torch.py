"""Bin statistics in plain torch: slow, on any device, and what the fast paths are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional._bins import bin_indices
from medcalib.functional.inputs import select

__all__ = ["backward", "bin_centres", "forward", "soft_bins"]


def bin_centres(num_bins: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the bin centres, rounded to float32 as published, and the inverse distance from each to the next one."""
    first = 0.5 / num_bins
    last = 1.0 + torch.finfo(torch.float32).eps - first
    centres = torch.linspace(first, last, num_bins, dtype=torch.float32, device=device).double()
    return centres, torch.cat([centres.diff().reciprocal(), centres.new_zeros(1)])


def soft_bins(probs: Tensor, num_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the lower of the two nearest bins, the weight of the one above it, and that weight's derivative."""
    centres, steps = bin_centres(num_bins, probs.device)
    values = probs.double()
    lower = (values * num_bins - 0.5).clamp_(0, max(num_bins - 2, 0)).long()
    above = ((values - centres[lower]) * steps[lower]).clamp_(0, 1)
    between = (values > centres[0]) & (values < centres[-1])
    return lower, above, steps[lower].where(between, 0.0)


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
    """Bin probabilities (B, C, voxels) with labels (B, voxels) or a target (B, C, voxels).

    Returns:
        Counts, sums of predictions and of targets stacked last, (B, C, bins, 3), float64.
    """
    batch, classes = probs.shape[:2]
    sums = torch.zeros(batch, classes, num_bins, 3, dtype=torch.float64, device=probs.device)
    for b in range(batch):
        case, truth = select(probs, mask, b), select(y, mask, b)
        for c in range(classes):
            true = (truth == c + first_class if use_labels else truth[c]).double()
            columns = torch.stack([torch.ones_like(true), case[c].double(), true], -1)
            if soft:
                lower, above, _ = soft_bins(case[c], num_bins)
                sums[b, c].index_add_(0, lower, columns * (1 - above)[:, None])
                sums[b, c].index_add_(0, (lower + 1).clamp_(max=num_bins - 1), columns * above[:, None])
            else:
                sums[b, c].index_add_(0, bin_indices(case[c], num_bins, right), columns)
    return sums


def backward(
    probs: Tensor,
    y: Tensor,
    grad_counts: Tensor,
    grad_gaps: Tensor,
    *,
    use_labels: bool,
    soft: bool,
    right: bool = False,
    first_class: int = 0,
) -> Tensor:
    """Return the gradient with respect to ``probs``.

    Args:
        probs: probabilities (B, C, voxels).
        y: labels (B, voxels) or target (B, C, voxels).
        grad_counts: gradient of the counts (B, C, bins); only soft counts move.
        grad_gaps: gradient of the sums of prediction minus target (B, C, bins).
        use_labels: whether ``y`` holds labels.
        soft: soft or hard bins.
        right: side of the boundaries.
        first_class: the class of the first channel.
    """
    grad = torch.empty_like(probs)
    num_bins = grad_gaps.shape[-1]
    for b in range(probs.shape[0]):
        for c in range(probs.shape[1]):
            p, gaps, counts = probs[b, c], grad_gaps[b, c], grad_counts[b, c]
            if not soft:
                grad[b, c] = gaps[bin_indices(p, num_bins, right)]
                continue
            true = (y[b] == c + first_class if use_labels else y[b, c]).double()
            lower, above, speed = soft_bins(p, num_bins)
            upper = (lower + 1).clamp_(max=num_bins - 1)
            slope = gaps[upper] - gaps[lower]
            moved = slope * (p.double() - true) + counts[upper] - counts[lower]
            grad[b, c] = gaps[lower] + above * slope + speed * moved
    return grad
