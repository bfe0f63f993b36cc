"""Differentiable sums over a volume, from which losses are made.

Each function reduces a volume to small tables per batch element and class. Whatever is computed from the tables is
ordinary autograd; only the way from voxels to tables has a backward of its own, which recomputes what it needs from
the input. Nothing of the size (batch, class, bin, voxel) and no one-hot target ever exists.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from medcalib.functional.backends import UnusableError, bin_volume, bin_volume_backward, choose_backend, give_up
from medcalib.functional.inputs import is_label_map, plain, prepare_labels, prepare_target

__all__ = ["BinSums", "SoftmaxSums", "bin_sums", "can_fuse", "softmax_sums"]

_NO_PROBABILITY = "the logits hold NaN or infinity, so their softmax is not a probability."


class BinSums(NamedTuple):
    """What a calibration loss needs, float64.

    Attributes:
        counts: weight of each bin, (batch, class, bin).
        gaps: sum of prediction minus target in each bin, (batch, class, bin).
        present: sum of the target of each class, (batch, class); carries no gradient.
    """

    counts: Tensor
    gaps: Tensor
    present: Tensor


class SoftmaxSums(NamedTuple):
    """What calibration, Dice and cross-entropy losses need together, float64; all but ``bins`` are (batch, class).

    Attributes:
        bins: bin sums of the softmax.
        total: sum of the softmax.
        squared: sum of its squares.
        overlap: sum of the softmax where the class is true.
        log_true: sum of the log-softmax where the class is true.
    """

    bins: BinSums
    total: Tensor
    squared: Tensor
    overlap: Tensor
    log_true: Tensor


class _BinSumsFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, probs: Tensor, y: Tensor, num_bins: int, check: bool, options: dict) -> tuple[Tensor, ...]:
        probs = probs.detach()
        sums = bin_volume(probs, y, num_bins, check=check, **options)
        ctx.save_for_backward(probs, y)
        ctx.options = options
        counts, present = sums[..., 0].contiguous(), sums[..., 2].sum(-1)
        ctx.mark_non_differentiable(present)
        return counts, sums[..., 1] - sums[..., 2], present

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_counts: Tensor, grad_gaps: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        probs, y = ctx.saved_tensors
        return bin_volume_backward(probs, y, grad_counts, grad_gaps, **ctx.options), None, None, None, None


class _SoftmaxSumsOnCPU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, num_bins: int, soft: bool, right: bool
    ) -> tuple[Tensor, Tensor]:
        from medcalib.functional import _fused_numba

        logits = logits.detach()
        probs = logits.softmax(1)
        bins, sums, valid = _fused_numba.forward(logits, probs, labels, num_bins, soft=soft, right=right)
        if not valid:
            raise ValueError(_NO_PROBABILITY)
        ctx.save_for_backward(probs, labels)
        ctx.options = {"soft": soft, "right": right}
        return bins, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bins: Tensor, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        from medcalib.functional import _fused_numba

        probs, labels = ctx.saved_tensors
        return _fused_numba.backward(probs, labels, grad_bins, grad_sums, **ctx.options), None, None, None, None


class _SoftmaxSumsOnCUDA(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, num_bins: int, soft: bool, right: bool
    ) -> tuple[Tensor, Tensor]:
        from medcalib.functional import _fused_triton

        logits = logits.detach()
        bins, sums, norms = _fused_triton.forward(logits, labels, num_bins, soft=soft, right=right)
        ctx.save_for_backward(logits, labels, norms)
        ctx.options = {"soft": soft, "right": right}
        return bins, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_bins: Tensor, grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        from medcalib.functional import _fused_triton

        logits, labels, norms = ctx.saved_tensors
        grad = _fused_triton.backward(logits, labels, norms, grad_bins, grad_sums, **ctx.options)
        return grad, None, None, None, None


def bin_sums(
    y_pred: Tensor,
    y: Tensor,
    num_bins: int = 20,
    *,
    soft: bool = False,
    right: bool = False,
    first_class: int = 0,
    check: bool = True,
    backend: str | None = None,
) -> BinSums:
    r"""Sum voxels and gaps over bins of the predicted probability, differentiably in ``y_pred``.

    With hard bins :math:`\partial G_k / \partial p_i` is 1 in the bin of :math:`p_i`; with soft bins
    :math:`w_k(p_i) + w_k'(p_i)(p_i - y_i)`, and the counts move with :math:`w_k'(p_i)`.

    Args:
        y_pred: probabilities (B, C, ...).
        y: integer label map (B, 1, ...) or target (B, C, ...).
        num_bins: number of bins.
        soft: soft instead of hard bins, as in :func:`medcalib.functional.bin_statistics`.
        right: give a probability on a boundary to the upper bin instead of the lower one.
        first_class: the class of the first channel, where leading channels were left out of ``y_pred``.
        check: raise for invalid values. Without it nothing waits for a CUDA device, and invalid probabilities or
            labels turn the sums into NaN.
        backend: ``"torch"``, ``"numba"`` or ``"triton"`` instead of what fits the device.

    Returns:
        Sums, differentiable once.

    Raises:
        ValueError: If shapes do not fit or ``num_bins < 1``; if ``check``, also for values out of range.

    Example:
        >>> import torch
        >>> y_pred = torch.tensor([[[0.2, 0.9]]], requires_grad=True)
        >>> gaps = bin_sums(y_pred, torch.tensor([[[0.0, 1.0]]]), num_bins=2).gaps
        >>> gaps.abs().sum().backward()
        >>> y_pred.grad
        tensor([[[ 1., -1.]]])
    """
    labels = is_label_map(y_pred, y, num_bins) or (first_class > 0 and y.shape[1] == 1)
    probs = y_pred.as_subclass(torch.Tensor).reshape(*y_pred.shape[:2], -1)
    if probs.dtype in (torch.float16, torch.bfloat16):
        probs = probs.float()
    check = check or probs.device.type == "cpu"
    classes = probs.shape[1] + first_class
    truth = prepare_labels(y, classes, check=check) if labels else prepare_target(y, check=check)
    options = {"use_labels": labels, "soft": soft, "right": right, "first_class": first_class, "backend": backend}
    sums = BinSums(*_BinSumsFunction.apply(probs, truth, num_bins, check, options))
    if check:
        return sums
    wrong = (truth < 0) | (truth >= classes) if labels else ~((truth >= 0) & (truth <= 1))
    return sums._replace(gaps=sums.gaps.masked_fill(wrong.any(), torch.nan))


def can_fuse(logits: Tensor, y: Tensor) -> bool:
    """Tell whether :func:`softmax_sums` takes these logits and this target on their device."""
    return (
        logits.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and logits.ndim >= 2
        and logits.shape[1] > 1
        and y.shape == (logits.shape[0], 1, *logits.shape[2:])
        and choose_backend(logits.device.type) in ("numba", "triton")
    )


def softmax_sums(
    logits: Tensor,
    y: Tensor,
    num_bins: int = 20,
    *,
    soft: bool = False,
    right: bool = False,
    check: bool = True,
    backend: str | None = None,
) -> SoftmaxSums:
    """Sum all that calibration, Dice and cross-entropy losses need from logits in one pass.

    Args:
        logits: float32 or half-precision logits (B, C, ...), C at least 2. On CPU half precision is widened first; on
            CUDA the logits are read as they are, and sums over a few thousand voxels each are made in float32.
        y: integer label map (B, 1, ...).
        num_bins: number of bins.
        soft: soft instead of hard bins.
        right: give a probability on a boundary to the upper bin instead of the lower one.
        check: raise for invalid values. Without it nothing waits for a CUDA device, and they turn the sums into NaN;
            on CPU, where it costs nothing, they are always checked.
        backend: ``"numba"`` or ``"triton"`` instead of what fits the device.

    Returns:
        Sums, differentiable once.

    Raises:
        ValueError: If shapes do not fit or ``num_bins < 1``; if ``check``, also if a label is outside the classes, or
            if a logit is NaN or infinite.
        UnusableError: If Triton cannot build its kernels here, and nobody named it.

    Example:
        >>> import torch
        >>> sums = softmax_sums(torch.zeros(1, 2, 8), torch.ones(1, 1, 8), num_bins=4)
        >>> sums.overlap
        tensor([[0., 4.]], dtype=torch.float64)
    """
    if not is_label_map(logits, y, num_bins):
        raise ValueError(f"y must be a label map of one channel, got shape {tuple(y.shape)}.")
    flat = logits.as_subclass(torch.Tensor).reshape(*logits.shape[:2], -1)
    if (backend or choose_backend(logits.device.type)) == "triton":
        bins, sums = _on_cuda(flat, plain(y), num_bins, soft, right, check=check, named=backend is not None)
    else:
        labels = prepare_labels(plain(y), flat.shape[1]).contiguous()
        bins, sums = _SoftmaxSumsOnCPU.apply(flat.float().contiguous(), labels, num_bins, soft, right)
    present, total, squared, overlap, log_true = sums.unbind(-1)
    return SoftmaxSums(BinSums(bins[..., 0], bins[..., 1], present.detach()), total, squared, overlap, log_true)


def _on_cuda(
    logits: Tensor, y: Tensor, num_bins: int, soft: bool, right: bool, *, check: bool, named: bool
) -> tuple[Tensor, Tensor]:
    if check:
        prepare_labels(y, logits.shape[1])
    # The kernel reads labels of any dtype, which saves a copy.
    labels = y.reshape(y.shape[0], -1).contiguous()
    labels = labels.view(torch.uint8) if labels.dtype == torch.bool else labels
    try:
        bins, sums = _SoftmaxSumsOnCUDA.apply(logits, labels, num_bins, soft, right)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # triton raises whatever its compiler, the system's and the file system raise
        if named:
            raise
        give_up("triton", error)
        raise UnusableError("triton") from error
    if check and not bool(sums.detach().isfinite().all()):
        raise ValueError(_NO_PROBABILITY)
    return bins, sums
