"""Several output heads on a shared trunk."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medcalib.errors import UserError
from medcalib.networks.module_names import match_modules

__all__ = ["MultiHead"]


class HeadBank(nn.Module):
    """Copies of a module whose outputs are joined along the batch.

    Whatever the network does to each sample afterwards (interpolation, an activation, stacking of resolutions) it then
    does to every head by itself, as it would not if they were joined along the channels.

    Args:
        head: the module; it is the first of the bank.
        num_heads: number of copies; all but the first draw first weights of their own.
    """

    def __init__(self, head: nn.Module, num_heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList([head, *(_redrawn(head) for _ in range(num_heads - 1))])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs (heads x B, ...)."""
        return torch.cat([head(inputs) for head in self.heads])


class MultiHead(nn.Module):
    """A network whose output modules are there several times, each with weights of its own (arXiv:1511.06314).

    The trunk runs once. The heads differ in their first weights only, so the loss decides how far they stay apart, see
    `medcalib.losses.MultiHeadLoss`.

    Args:
        network: any network; it is changed in place.
        modules: names or patterns of names of the modules that become heads, all those through which the outputs pass,
            see `medcalib.networks.module_names.match_modules`; those without weights stay as they are.
        num_heads: number of heads; with one the network computes what it did before.

    Raises:
        UserError: a pattern matches no module, no matched module has weights, one lies in another, weights cannot be
            drawn anew, or ``num_heads`` is less than one; when the network runs, an output passes through no head or
            through two.

    Example:
        >>> network = MultiHead(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)), ["1"], num_heads=3)
        >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 1, 8, 8))]
        [(1, 2, 6, 6), (1, 2, 6, 6), (1, 2, 6, 6)]
    """

    def __init__(self, network: nn.Module, modules: Sequence[str], num_heads: int) -> None:
        super().__init__()
        if num_heads < 1:
            raise UserError(f"num_heads must be at least 1, not {num_heads}.")
        heads = {name: head for name, head in match_modules(network, modules).items() if list(head.parameters())}
        if not heads:
            raise UserError(f"{', '.join(modules)} match only modules without weights; name those that return logits.")
        for name in heads:
            outer = next((other for other in heads if name.startswith(f"{other}.")), None)
            if outer is not None:
                raise UserError(f"{name} lies in {outer}, which is a head itself; name only one of them.")
        for head in heads.values():
            _replace(network, head, HeadBank(head, num_heads))
        self.network = network
        self.num_heads = num_heads

    def forward(self, inputs: Tensor) -> list[Any]:
        """Return what the network returns, once for each head."""
        outputs = self.network(inputs)
        # len() would fix the number of images in what is traced
        return [self._of_head(outputs, head, inputs.shape[0]) for head in range(self.num_heads)]

    def _of_head(self, outputs: Any, head: int, batch_size: int) -> Any:
        if isinstance(outputs, list | tuple):
            return [self._of_head(output, head, batch_size) for output in outputs]
        if isinstance(outputs, dict):
            return {key: self._of_head(output, head, batch_size) for key, output in outputs.items()}
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != (self.num_heads * batch_size,):
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UserError(
                f"an output of {type(self.network).__name__} does not pass through exactly one of the heads: for "
                f"{self.num_heads} heads and {batch_size} images its shape is {shape}; name the module of every output."
            )
        return outputs[head * batch_size : (head + 1) * batch_size]


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    # under all names: what a network lists under one it may call under another
    parents = [
        (parent, name) for parent in network.modules() for name, child in parent._modules.items() if child is old
    ]
    for parent, name in parents:
        parent.set_submodule(name, new)


def _redrawn(module: nn.Module) -> nn.Module:
    drawn = copy.deepcopy(module)
    for name, part in drawn.named_modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
        elif list(part.parameters(recurse=False)):
            raise UserError(
                f"a head cannot draw weights of its own: {type(part).__name__} {name} has no reset_parameters; name "
                f"modules of torch's own layers."
            )
    return drawn
