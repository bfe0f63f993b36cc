"""The order in which the tensors of a network lie in memory."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["fast_layout"]

# channels that oneDNN handles at a time on CPUs with AVX-512; others handle fewer
_BLOCK = 16


def fast_layout(network: nn.Module) -> torch.memory_format:
    """The layout in which a training step on a CPU takes least time, among those that are safe.

    That is channels last, except for networks with a convolution of size 1 and a stride that reads fewer than 16
    channels, as narrow ResNets have: there oneDNN (of torch 2.13) writes past its memory when it computes the gradient
    of the weights, and the process may crash or hang.

    Args:
        network: with convolutions in two or three dimensions.

    Returns:
        A value for the argument ``memory_format`` of `torch.nn.Module.to`.

    Example:
        >>> fast_layout(nn.Conv2d(16, 32, 1, stride=2)), fast_layout(nn.Conv2d(8, 16, 1, stride=2))
        (torch.channels_last, torch.contiguous_format)
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    if any(_is_unsafe(convolution) for convolution in convolutions):
        return torch.contiguous_format
    is_3d = any(isinstance(convolution, nn.Conv3d) for convolution in convolutions)
    return torch.channels_last_3d if is_3d else torch.channels_last


def _is_unsafe(convolution: nn.Conv2d | nn.Conv3d) -> bool:
    return (
        max(convolution.kernel_size) == 1
        and max(convolution.stride) > 1
        and convolution.in_channels // convolution.groups < _BLOCK
    )
