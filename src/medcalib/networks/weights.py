"""Read and name the weights of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medcalib.errors import UserError
from medcalib.files.tensors import load_tensors

__all__ = ["load_state", "load_weights", "read_checkpoint", "weights_digest"]


def read_checkpoint(path: str | Path) -> Any:
    """Load a checkpoint to the CPU without running code from it.

    Raises:
        UserError: the file is missing or damaged, which its checksums show.

    Warns:
        UserWarning: the file has no checksums.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"{path} does not exist: train first, with medcalib run --mode train and the same bundle and seed."
        )
    return load_tensors(path, "checkpoint", "delete it and train again")


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Load a state dict into a network and return it.

    Args:
        network: the network.
        path: a file holding its state dict.

    Raises:
        UserError: the file is missing, damaged, or belongs to another architecture.
    """
    return load_state(network, read_checkpoint(path), path)


def load_state(network: nn.Module, state: Mapping[str, torch.Tensor], path: str | Path) -> nn.Module:
    """Load a state dict that was read from ``path`` into a network and return it.

    Raises:
        UserError: it belongs to another architecture.
    """
    own = network.state_dict()
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise UserError(
            f"{path} holds the weights of another architecture than network_def describes: {len(wrong)} of "
            f"{len(own)} tensors differ, the first is {wrong[0]}."
        )
    network.load_state_dict(state)
    return network


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict, in hex.

    Example:
        >>> import torch
        >>> weights_digest({"a": torch.zeros(2)}) == weights_digest({"a": torch.zeros(2)})
        True
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
