"""Convolutions that are as fast on one window as on many."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["OneDNNConv3d", "fast_convolutions", "plain_convolutions"]


class OneDNNConv3d(nn.Conv3d):
    """A `torch.nn.Conv3d` that asks oneDNN for every prediction on a CPU, whatever the size of the batch.

    Torch itself (2.13) asks oneDNN only for larger inputs. For a batch of one it looks at the product of channels and
    the first two spatial axes: up to 20480 it unfolds the image and multiplies matrices, which takes up to twenty times
    as long. Where its gradients are recorded, as in training, on other devices and in other types than float32, it is
    `torch.nn.Conv3d`.

    Example:
        >>> convolution = OneDNNConv3d(1, 8, 3, padding=1)
        >>> with torch.no_grad():
        ...     convolution(torch.rand(1, 1, 8, 8, 8)).shape
        torch.Size([1, 8, 8, 8, 8])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if isinstance(self.padding, str) or self._is_plain(input, weight, bias):
            return super()._conv_forward(input, weight, bias)
        return torch.mkldnn_convolution(input, weight, bias, self.padding, self.stride, self.dilation, self.groups)

    def _is_plain(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        tensors = (images, weight) if bias is None else (images, weight, bias)
        return (
            # frozen layers before those that are trained record nothing either
            (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
            # what is written down must also run on other devices
            or torch.jit.is_tracing()
            or torch.compiler.is_compiling()
            or images.device.type != "cpu"
            or not torch.backends.mkldnn.enabled
            or not torch.backends.mkldnn.is_available()
            or images.dtype != torch.float32
            or weight.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
            # oneDNN would say less well what is wrong with a shape
            or images.ndim != 5
            or images.numel() == 0
            or images.shape[1] != self.in_channels
            or self.padding_mode != "zeros"
        )


def fast_convolutions(network: nn.Module) -> nn.Module:
    """Let the three-dimensional convolutions of a network ask oneDNN for every prediction on a CPU.

    Their logits are those of torch's own choice up to rounding. Names and values of weights stay as they were, and so
    does every training step. In two dimensions torch's choice is as fast.

    Args:
        network: any network; it is changed in place. Subclasses of `torch.nn.Conv3d` in it stay as they are.

    Returns:
        The network.

    Example:
        >>> fast_convolutions(nn.Sequential(nn.Conv3d(1, 8, 3), nn.Conv2d(1, 8, 3)))
        Sequential(
          (0): OneDNNConv3d(1, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1))
          (1): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
        )
    """
    for module in network.modules():
        if type(module) is nn.Conv3d:
            # the class alone, so that weights, hooks and references to the module stay what they are
            module.__class__ = OneDNNConv3d
    return network


def plain_convolutions(network: nn.Module) -> nn.Module:
    """Take back what `fast_convolutions` did, for networks that are written to files that other programs read.

    Args:
        network: any network; it is changed in place.

    Returns:
        The network.

    Example:
        >>> plain_convolutions(fast_convolutions(nn.Sequential(nn.Conv3d(1, 8, 3))))
        Sequential(
          (0): Conv3d(1, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1))
        )
    """
    for module in network.modules():
        if type(module) is OneDNNConv3d:
            module.__class__ = nn.Conv3d  # type: ignore[assignment]
    return network
