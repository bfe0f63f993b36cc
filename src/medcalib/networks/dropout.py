"""Put dropout into any network, and make only dropout stochastic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.networks.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from medcalib.errors import UserError
from medcalib.networks.module_names import match_modules

__all__ = [
    "ChannelDropout",
    "ElementDropout",
    "active_dropouts",
    "dropout_probability",
    "find_dropouts",
    "insert_dropout",
    "stochastic_dropout",
]

INSERTED = "inserted_dropout"
LEVELS = 2**16


class ElementDropout(nn.Dropout):
    """Dropout of single elements, on CPUs several times faster than `torch.nn.Dropout`.

    On CPUs one random number of 64 bits decides over four elements, so the probability is rounded to a multiple of
    2^-16; the other elements are scaled by the rounded value, so the expectation is kept. Elsewhere it is
    `torch.nn.Dropout`.

    Args:
        p: probability in [0, 1) that an element becomes zero.

    Example:
        >>> dropped = ElementDropout(0.25)(torch.ones(4096))
        >>> [round(value, 4) for value in dropped.unique().tolist()]
        [0.0, 1.3333]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the input, of any shape, in training mode with some elements zero."""
        if not self.training or self.p == 0 or input.numel() == 0 or input.device.type != "cpu":
            return super().forward(input)
        num_dropped = min(round(self.p * LEVELS), LEVELS - 1)
        # like the input in memory, so that the product needs no strides
        keep = torch.empty_like(input, dtype=torch.bool).as_subclass(Tensor)
        words = torch.empty((keep.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.int16)[: keep.numel()]
        torch.ge(levels, num_dropped - LEVELS // 2, out=keep.as_strided((keep.numel(),), (1,)))
        return (input * keep).mul_(LEVELS / (LEVELS - num_dropped))


class ChannelDropout(_DropoutNd):
    """Dropout of whole channels (B, C, ...) with any number of spatial dimensions, also none.

    Args:
        p: probability in [0, 1) that a channel becomes zero.

    Example:
        >>> ChannelDropout(0.5)(torch.ones(1, 64, 3, 3)).amax((2, 3)).unique().tolist()
        [0.0, 2.0]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return the input, in training mode with some channels zero."""
        return torch.feature_dropout(input, self.p, self.training)


def insert_dropout(network: nn.Module, modules: Sequence[str], p: float = 0.5, channelwise: bool = False) -> nn.Module:
    """Let the outputs of named modules pass through dropout.

    The network is changed in place. Names and values of its weights stay as they were, so it takes the weights of the
    network without dropout, and no random number is drawn. Copies and pickles of the network keep the dropout.

    Args:
        network: any network.
        modules: names or patterns of names of modules that return a tensor, see
            `medcalib.networks.module_names.match_modules`.
        p: probability in [0, 1) that an element becomes zero.
        channelwise: whether whole channels become zero together.

    Returns:
        The network.

    Raises:
        UserError: a pattern matches no module, a module has inserted dropout already or cannot be followed by dropout,
            or ``p`` is not in [0, 1); when the network runs, a module does not return a tensor.

    Example:
        >>> network = insert_dropout(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), ["0"], p=0.2)
        >>> list(find_dropouts(network)), list(network.state_dict())
        (['0.inserted_dropout'], ['0.weight', '0.bias'])
    """
    if not 0 <= p < 1:
        raise UserError(f"the dropout probability p must be in [0, 1), not {p}.")
    matched = match_modules(network, modules)
    for name, module in matched.items():
        if hasattr(module, INSERTED):
            raise UserError(f"{name} is followed by inserted dropout already; name it once.")
        if isinstance(module, nn.Sequential) and type(module).forward is not nn.Sequential.forward:
            raise UserError(
                f"{name} is a {type(module).__name__}, which runs its modules in a way of its own and cannot be "
                f"followed by dropout; name modules inside it."
            )
    for module in matched.values():
        dropout = ChannelDropout(p) if channelwise else ElementDropout(p)
        module.add_module(INSERTED, dropout.train(module.training))
        # a sequence runs the added module by itself
        if not isinstance(module, nn.Sequential):
            module.register_forward_hook(drop_output)
    return network


def drop_output(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Forward hook: pass the output of a module through the dropout inserted into it.

    It finds the dropout in the module that it is given, so that a copy of the module uses the copy's dropout.
    """
    if not isinstance(output, Tensor):
        raise UserError(
            f"dropout was inserted after a {type(module).__name__}, which returns a {type(output).__name__}; name "
            f"modules that return one tensor."
        )
    return getattr(module, INSERTED)(output)


def dropout_probability(module: nn.Module) -> float | None:
    """Return the probability of a dropout module, ``None`` for any other module."""
    if isinstance(module, _DropoutNd):
        return float(module.p)
    return float(module.drop_prob) if isinstance(module, DropPath) else None


def find_dropouts(network: nn.Module) -> dict[str, nn.Module]:
    """Return the dropout modules of a network by name: all kinds of torch, and MONAI's dropout of residual paths.

    Those with probability 0, which many networks hold where no dropout was asked for, count only if they were inserted.
    """
    return {
        name: module
        for name, module in network.named_modules()
        if dropout_probability(module) or isinstance(module, ElementDropout | ChannelDropout)
    }


def active_dropouts(network: nn.Module) -> dict[str, nn.Module]:
    """Return the dropout modules of a network that are in training mode and drop anything, by name."""
    return {
        name: module
        for name, module in find_dropouts(network).items()
        if module.training and dropout_probability(module)
    }


@contextmanager
def stochastic_dropout(network: nn.Module) -> Iterator[nn.Module]:
    """Put dropout into training mode and everything else into evaluation mode, for the time of a context.

    Normalisation uses and keeps its running statistics. Afterwards, also after an error, every module has the mode it
    had before.

    Args:
        network: a network with dropout.

    Yields:
        The network.

    Raises:
        UserError: the network has no dropout module.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
        >>> with stochastic_dropout(network):
        ...     [module.training for module in network]
        [False, True]
        >>> network[1].training
        False
    """
    dropouts = find_dropouts(network)
    if not dropouts:
        raise UserError(
            f"no dropout found in {type(network).__name__}; use a method that inserts it, such as mc_dropout, or give "
            f"the network a dropout of its own."
        )
    modes = {module: module.training for module in network.modules()}
    try:
        # set directly: networks may override train() to keep parts of them in a mode
        for module in modes:
            module.training = False
        for module in dropouts.values():
            module.training = True
        yield network
    finally:
        for module, training in modes.items():
            module.training = training
