"""Cross entropy, Dice sums and bin statistics of a softmax in one pass on CUDA, their derivative in another."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.functional import _kernels_triton
from medcalib.functional._triton_runtime import (
    LANES,
    add_up,
    bin_gradients,
    check_installed,
    cut,
    kernel_table,
    power_of_two,
    widths,
)

__all__ = ["backward", "forward"]

# Tiles that a program of a large volume takes.
_STEPS = 32
# Classes that a program holds at a time.
_MOST_CLASSES = 16


def forward(
    logits: Tensor, labels: Tensor, num_bins: int, *, soft: bool, right: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over logits (B, C, N) of float32 or half precision and labels (B, N) of any dtype, without waiting.

    Returns:
        Per bin the count and the sum of softmax minus one-hot target, (B, C, bins, 2), and per class the sums of
        target, softmax, squared softmax, softmax where the target is 1 and log-softmax where it is, (B, C, 5), both
        float64 and NaN where a logit is NaN or infinite or a label is no class; and what the derivative needs of each
        voxel, its highest logit and the denominator of its softmax, (B, 2, N), float32.
    """
    check_installed()
    batch, classes, voxels = logits.shape
    norms = torch.empty(batch, 2, voxels, dtype=torch.float32, device=logits.device)
    if not logits.numel():
        zeros = torch.zeros(batch, classes, num_bins * 2 + 5, dtype=torch.float64, device=logits.device)
        return zeros[..., 5:].reshape(batch, classes, num_bins, 2), zeros[..., :5], norms
    parts, block, steps, unroll = cut(voxels, batch, _STEPS)
    wide, narrow = widths(num_bins)
    partial = torch.empty(batch, parts, classes, num_bins, 3, dtype=torch.float32, device=logits.device)
    partial_sums = torch.empty(batch, parts, classes, 5, dtype=torch.float32, device=logits.device)
    _kernels_triton.softmax_forward[(batch * parts,)](
        logits,
        labels,
        kernel_table(num_bins, logits.device),
        norms,
        partial,
        partial_sums,
        voxels,
        parts,
        classes,
        num_bins=num_bins,
        case_stride=logits.stride(0),
        class_stride=logits.stride(1),
        voxel_stride=logits.stride(2),
        soft=soft,
        right=right,
        rows=power_of_two(min(classes, _MOST_CLASSES)),
        wide=wide,
        narrow=narrow,
        spare=max(narrow, 1),
        block=block,
        steps=steps,
        unroll=unroll,
        num_warps=LANES // 32,
    )
    sums = add_up(partial, num_bins, soft=soft)
    # Of hard bins the kernel keeps probabilities and true voxels apart, of soft ones their gap.
    bins = sums[..., :2] if soft else torch.stack([sums[..., 0], sums[..., 1] - sums[..., 2]], -1)
    return bins, partial_sums.sum(1, dtype=torch.float64), norms


def backward(
    logits: Tensor,
    labels: Tensor,
    norms: Tensor,
    grad_bins: Tensor,
    grad_sums: Tensor,
    *,
    soft: bool,
    right: bool = False,
) -> Tensor:
    """Return the gradient with respect to the logits, given those with respect to ``bins`` and ``sums`` of forward."""
    check_installed()
    batch, classes, voxels = logits.shape
    grad = torch.empty_like(logits)
    if grad.numel():
        num_bins = grad_bins.shape[2]
        rows = power_of_two(min(classes, _MOST_CLASSES))
        parts = -(-voxels // LANES)
        _kernels_triton.softmax_backward[(batch * parts,)](
            logits,
            labels,
            kernel_table(num_bins, logits.device),
            norms,
            bin_gradients(grad_bins[..., 1], grad_bins[..., 0]),
            grad_sums.float().contiguous(),
            grad,
            voxels,
            parts,
            classes,
            num_bins=num_bins,
            case_stride=logits.stride(0),
            class_stride=logits.stride(1),
            voxel_stride=logits.stride(2),
            grad_case_stride=grad.stride(0),
            grad_class_stride=grad.stride(1),
            grad_voxel_stride=grad.stride(2),
            soft=soft,
            right=right,
            rows=rows,
            at_once=classes <= rows,
            block=LANES,
            num_warps=LANES // 32,
        )
    return grad
