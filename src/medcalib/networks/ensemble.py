"""Several networks of one architecture as one network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from medcalib.errors import UserError
from medcalib.networks.weights import load_weights

__all__ = ["NetworkEnsemble", "load_ensemble"]


class NetworkEnsemble(nn.Module):
    """Copies of a network, each to be given weights of its own.

    Args:
        network: the architecture; it is copied, not kept.
        num_members: number of networks.

    Raises:
        UserError: ``num_members`` is less than one.

    Example:
        >>> import torch
        >>> ensemble = NetworkEnsemble(nn.Conv2d(1, 2, 1), num_members=3)
        >>> [tuple(logits.shape) for logits in ensemble(torch.zeros(1, 1, 4, 4))]
        [(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)]
    """

    def __init__(self, network: nn.Module, num_members: int) -> None:
        super().__init__()
        if num_members < 1:
            raise UserError(f"an ensemble needs at least one network, not {num_members}.")
        self.networks = nn.ModuleList(copy.deepcopy(network) for _ in range(num_members))

    def members(self, inputs: Tensor) -> Iterator[Any]:
        """Yield what each network returns, one after the other, so that only one output needs to be kept."""
        for network in self.networks:
            yield network(inputs)

    def forward(self, inputs: Tensor) -> list[Any]:
        """Return what each network returns."""
        return list(self.members(inputs))


def load_ensemble(network: nn.Module, paths: Sequence[str | Path]) -> NetworkEnsemble:
    """Make an ensemble with the weights of several files.

    Args:
        network: the architecture.
        paths: one file for each network, holding its state dict.

    Raises:
        UserError: no path is given, a file is missing or damaged, or holds the weights of another architecture, such
            as one with other classes.
    """
    if missing := [str(path) for path in paths if not Path(path).exists()]:
        raise UserError(f"The ensemble lacks {', '.join(missing)}: train these networks first.")
    ensemble = NetworkEnsemble(network, len(paths))
    for member, path in zip(ensemble.networks, paths, strict=True):
        load_weights(member, path)
    return ensemble
