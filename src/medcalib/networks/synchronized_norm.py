"""Batch normalisation over the whole batch that several processes share."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["synchronize_batch_norm"]


class _AllSum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class _SynchronizedNorm:
    """In training, the statistics of all processes' cases; before the class of PyTorch in the order of classes.

    That of PyTorch, `torch.nn.SyncBatchNorm`, is for GPUs only, and lets cases count that are there only because a
    process has none of its own.

    Attributes:
        counts: whether the cases of this process count.
    """

    counts: bool = True

    def forward(self, inputs: Tensor) -> Tensor:
        layer: Any = self
        if not layer.training or not dist.is_initialized():
            return super().forward(inputs)  # type: ignore[misc]
        layer._check_input_dim(inputs)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        values = inputs.as_subclass(Tensor)
        values = values if values.dtype == torch.float64 else values.float()
        share = float(self.counts)
        ones = values.new_full((1,), share * values.numel() / values.shape[1])
        sums = _AllSum.apply(torch.cat([values.sum(axes) * share, ones]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.reshape(shape)
        variance = _AllSum.apply(centred.square().sum(axes) * share) / count
        normed = centred * (variance + layer.eps).rsqrt().reshape(shape)
        if layer.affine:
            normed = normed * layer.weight.reshape(shape) + layer.bias.reshape(shape)
        if layer.track_running_stats:
            with torch.no_grad():
                layer.num_batches_tracked += 1
                momentum = layer.momentum if layer.momentum is not None else 1 / layer.num_batches_tracked
                layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
                # as in PyTorch, without bias
                unbiased = variance * (count / (count - 1))
                layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), momentum)
        return normed.to(inputs.dtype)


class _SynchronizedNorm1d(_SynchronizedNorm, nn.BatchNorm1d):
    pass


class _SynchronizedNorm2d(_SynchronizedNorm, nn.BatchNorm2d):
    pass


class _SynchronizedNorm3d(_SynchronizedNorm, nn.BatchNorm3d):
    pass


_SYNCHRONIZED = {
    nn.BatchNorm1d: _SynchronizedNorm1d,
    nn.BatchNorm2d: _SynchronizedNorm2d,
    nn.BatchNorm3d: _SynchronizedNorm3d,
}


def synchronize_batch_norm(network: nn.Module) -> list[Any]:
    """Let the batch normalisations of a network use the statistics of the batch that all processes share.

    Done in place, so that weights, hooks and whoever holds a layer stay what they are.

    Args:
        network: the same in all processes.

    Returns:
        The layers; where their attribute ``counts`` is false, the cases of this process do not count in the next batch.

    Example:
        >>> len(synchronize_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))))
        1
    """
    found = [module for module in network.modules() if type(module) in _SYNCHRONIZED]
    for module in found:
        module.__class__ = _SYNCHRONIZED[type(module)]  # type: ignore[index]
    return found
