"""Which implementation bins a volume: compiled where there is one for the device, plain torch everywhere else."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from medcalib.functional import _binning_torch
from medcalib.functional.inputs import ROUNDING, check_probabilities

__all__ = ["UnusableError", "bin_volume", "bin_volume_backward", "choose_backend", "give_up"]


class UnusableError(RuntimeError):
    """A backend that is installed, but cannot run here; plain torch takes its place from then on."""


_unusable: set[str] = set()


@cache
def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


def choose_backend(device_type: str) -> str:
    """Return ``"numba"`` on CPU and ``"triton"`` on CUDA where they are installed and work, else ``"torch"``."""
    wanted = {"cpu": "numba", "cuda": "triton"}.get(device_type)
    return wanted if wanted is not None and wanted not in _unusable and _is_installed(wanted) else "torch"


def give_up(backend: str, error: Exception) -> None:
    """Use plain torch instead of a backend from now on, and warn the first time."""
    if backend in _unusable:
        return
    _unusable.add(backend)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    warnings.warn(
        f"The bins of this process are summed by plain torch, which is slower, since {backend} cannot be used "
        f"({reason}); it needs a C compiler, the header files of Python and a folder TRITON_CACHE_DIR to write to.",
        RuntimeWarning,
        stacklevel=4,
    )


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

    Where `mask` (B, voxels) is false, probabilities and truth may be anything, NaN included. Where nobody names a
    backend and that of the device cannot run, plain torch does its work, and a warning says so once.

    Returns:
        Counts, sums of predictions and of targets stacked last, (B, C, bins, 3), float64. Without ``check``, all NaN
        if a probability is invalid.

    Raises:
        ValueError: If ``check`` and a probability that counts is NaN or outside [0, 1].
    """
    named, backend = backend is not None, backend or choose_backend(probs.device.type)
    options: dict[str, Any] = {"use_labels": use_labels, "soft": soft, "right": right, "first_class": first_class}
    if backend == "numba":
        from medcalib.functional import _binning_numba

        values = probs if probs.dtype in (torch.float32, torch.float64) else probs.float()
        sums, valid = _binning_numba.forward(values, y, num_bins, mask, **options)
        if not valid:
            check_probabilities(probs, mask)
        return sums
    if backend == "triton":
        from medcalib.functional import _binning_triton

        try:
            sums = _binning_triton.forward(probs, y, num_bins, mask, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # triton raises whatever its compiler, the system's and the file system raise
            if named:
                raise
            give_up(backend, error)
        else:
            # The kernel has made NaN of what is no probability.
            if check and not bool(sums.isfinite().all()):
                check_probabilities(probs, mask)
            return sums if check else sums.where(sums.isfinite().all(), torch.nan)
    if check:
        check_probabilities(probs, mask)
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
    options: dict[str, Any] = {"use_labels": use_labels, "soft": soft, "right": right, "first_class": first_class}
    if backend == "numba":
        from medcalib.functional import _binning_numba

        return _binning_numba.backward(probs, y, grad_counts, grad_gaps, **options)
    if backend == "triton":
        from medcalib.functional import _binning_triton

        return _binning_triton.backward(probs, y, grad_counts, grad_gaps, **options)
    return _binning_torch.backward(probs, y, grad_counts, grad_gaps, **options)
