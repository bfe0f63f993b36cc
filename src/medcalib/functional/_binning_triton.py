"""Bin statistics on CUDA in one pass, and their derivative in another."""

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
    widths,
)

__all__ = ["backward", "forward"]

# Tiles that a program of a large volume takes.
_STEPS = 64


def _as_numbers(y: Tensor) -> Tensor:
    y = y.contiguous()
    return y.view(torch.uint8) if y.dtype == torch.bool else y


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
    """Bin probabilities, arguments and result as in the plain torch version; never waits for the device.

    Sums are of float32 probabilities and precise to about 1e-7 of them, counts of hard bins are exact. A probability
    that is NaN or outside [0, 1] by more than rounding turns sums of its class into NaN, unless the mask leaves it out.
    """
    check_installed()
    batch, classes, voxels = probs.shape
    if not (probs.numel() and voxels):
        return torch.zeros(batch, classes, num_bins, 3, dtype=torch.float64, device=probs.device)
    probs, truth = probs.contiguous(), _as_numbers(y)
    kept = truth if mask is None else _as_numbers(mask)
    parts, block, steps, unroll = cut(voxels, batch * classes, _STEPS)
    wide, narrow = widths(num_bins)
    partial = torch.empty(batch * classes, parts, num_bins, 3, dtype=torch.float32, device=probs.device)
    _kernels_triton.bin_forward[(batch * classes * parts,)](
        probs,
        truth,
        kept,
        kernel_table(num_bins, probs.device),
        partial,
        voxels,
        parts,
        classes,
        first_class,
        num_bins=num_bins,
        soft=soft,
        right=right,
        use_labels=use_labels,
        use_mask=mask is not None,
        wide=wide,
        narrow=narrow,
        spare=max(narrow, 1),
        block=block,
        steps=steps,
        unroll=unroll,
        whole=voxels % (steps * block) == 0,
        num_warps=LANES // 32,
    )
    return add_up(partial, num_bins, soft=soft).reshape(batch, classes, num_bins, 3)


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
    """Return the gradient with respect to ``probs``; arguments as in the plain torch version."""
    check_installed()
    batch, classes, voxels = probs.shape
    probs = probs.contiguous()
    grad = torch.empty_like(probs)
    if grad.numel():
        num_bins = grad_gaps.shape[-1]
        block = 4 * LANES
        parts = -(-voxels // block)
        _kernels_triton.bin_backward[(batch * classes * parts,)](
            probs,
            _as_numbers(y),
            kernel_table(num_bins, probs.device),
            bin_gradients(grad_gaps, grad_counts),
            grad,
            voxels,
            parts,
            classes,
            first_class,
            num_bins=num_bins,
            soft=soft,
            right=right,
            use_labels=use_labels,
            block=block,
            num_warps=LANES // 32,
        )
    return grad
