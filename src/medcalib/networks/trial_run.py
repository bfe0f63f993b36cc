"""Run a network once to see what it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["trial_run"]


def trial_run(network: nn.Module, input_shape: Sequence[int]) -> Any:
    """Return the output of a network in evaluation mode for an image of zeros; the modes of modules are restored.

    Args:
        network: any network.
        input_shape: shape (channels, ...) of an image, without the batch axis.

    Example:
        >>> trial_run(nn.Conv2d(1, 2, 3, bias=False), (1, 3, 3))
        tensor([[[[0.]],
        <BLANKLINE>
                 [[0.]]]])
    """
    weight = next(network.parameters(), torch.empty(0))
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            return network.eval()(torch.zeros(1, *input_shape, device=weight.device, dtype=weight.dtype))
    finally:
        for module, training in modes.items():
            module.training = training
