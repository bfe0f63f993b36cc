"""Which implementation bins a volume: compiled where there is one for the device, plain torch everywhere else."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from medcalib.functional import _binning_torch
from medcalib.functional._inputs import ROUNDING, check_probabilities

__all__ = ["bin_volume", "bin_volume_backward", "choose_backend"]


@cache
def choose_backend(device_type: str) -> str:
    """Return ``"numba"`` on CPU and ``"triton"`` on CUDA where they are installed, else ``"torch"``."""
    wanted = {"cpu": "numba", "cuda": "triton"}.get(device_type)
    return wanted if wanted is not None and find_spec(wanted) is not None else "torch"


def bin_volume(
    probs: Tensor,
    y: Tensor,
    num_bins: int,
    mask: Tensor | None = None,
    *,
    use_labels: bool,
    soft: bool,
    right: bool = False,
    first_class: int = 0,
    check: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Bin probabilities (B, C, voxels) with prepared labels (B, voxels) or target (B, C, voxels).

    Returns:
        Counts, sums of predictions and of targets stacked last, (B, C, bins, 3), float64. Without ``check``, all NaN
        if a probability is invalid.

    Raises:
        ValueError: If ``check`` and a probability that counts is NaN or outside [0, 1].
    """
    backend = backend or choose_backend(probs.device.type)
    options = {"use_labels": use_labels, "soft": soft, "right": right, "first_class": first_class}
    if backend == "numba":
        from medcalib.functional import _binning_numba

        values = probs if probs.dtype in (torch.float32, torch.float64) else probs.float()
        sums, valid = _binning_numba.forward(values, y, num_bins, mask, **options)
        if not valid:
            check_probabilities(probs, mask)
        return sums
    if check:
        check_probabilities(probs, mask)
    if backend == "triton":
        from medcalib.functional import _binning_triton

        sums = _binning_triton.forward(probs, y, num_bins, mask, **options)
    else:
        sums = _binning_torch.forward(probs, y, num_bins, mask, **options)
    if not check:
        inside = (probs >= -ROUNDING) & (probs <= 1 + ROUNDING)
        if mask is not None:
            inside |= ~mask[:, None]
        sums = sums.where(inside.all(), torch.nan)
    return sums


def bin_volume_backward(
    probs: Tensor,
    y: Tensor,
    grad_counts: Tensor,
    grad_gaps: Tensor,
    *,
    use_labels: bool,
    soft: bool,
    right: bool = False,
    first_class: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Return the gradient with respect to ``probs`` from those of the counts and of the gap sums (B, C, bins)."""
    backend = backend or choose_backend(probs.device.type)
    options = {"use_labels": use_labels, "soft": soft, "right": right, "first_class": first_class}
    if backend == "numba":
        from medcalib.functional import _binning_numba

        return _binning_numba.backward(probs, y, grad_counts, grad_gaps, **options)
    return _binning_torch.backward(probs, y, grad_counts, grad_gaps, **options)
