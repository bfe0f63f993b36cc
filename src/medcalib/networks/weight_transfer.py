"""Begin with the weights of another network: all of them, or all but those of the layers at the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from medcalib.errors import UserError, listed
from medcalib.files.tensors import load_tensors

__all__ = ["WeightTransfer", "load_initial_weights", "read_weights", "transfer"]

# the parts of checkpoints in which programs keep the weights
_PARTS = ("network", "state_dict", "model", "model_state_dict", "network_weights")
# of what is to be learnt and of what there is, at least so much must find its place
_LEAST = 0.5


@dataclass(frozen=True)
class WeightTransfer:
    """Which weights a network takes over from a file.

    Attributes:
        state: tensors that fit, by their names in the network.
        replaced: layers at the output that begin anew.
        left_out: layers of the file that the network does not have.
    """

    state: dict[str, Tensor]
    replaced: list[str]
    left_out: list[str]

    def __str__(self) -> str:
        told = f"{len(self.state)} tensors"
        if self.replaced:
            told += f"; new at the output: {listed(self.replaced)}"
        return told + (f"; left out: {listed(self.left_out)}" if self.left_out else "")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file: of this package, or of another program that stores one alone or in a checkpoint.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; name a file or a bundle with whose weights a training can begin.")
    content = load_tensors(path, "file of weights", "name another with --initial_weights")
    for part in (None, *_PARTS):
        state = content if part is None else content.get(part) if isinstance(content, dict) else None
        if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
            return dict(state)
    raise UserError(
        f"{path} holds no weights: neither tensors by name, nor these as one of {', '.join(_PARTS)}; name another file "
        f"with --initial_weights."
    )


def transfer(network: nn.Module, state: Mapping[str, Tensor], out_channels: int, path: str | Path) -> WeightTransfer:
    """Find which weights of another network fit, and which layers at the output begin anew.

    A layer is at the output if it puts out ``out_channels`` channels and there is none of its shape in the file. All
    other layers must fit. Names may begin with ``module.`` or ``network.``, as wrapped networks have them.

    Args:
        network: the network, which is only read; it may lie on the device meta.
        state: weights by name.
        out_channels: number of channels of a prediction.
        path: where the weights come from, for messages.

    Raises:
        UserError: a layer that is not at the output does not fit, or too little of either side does.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1))
        >>> given = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)).state_dict()
        >>> transfer(network, given, 3, "model.pt").replaced
        ['1 (3 channels)']
    """
    own = network.state_dict()
    state = max((_renamed(state, rename) for rename in _NAMES), key=lambda names: _size(_fitting(own, names)))
    fitting = _fitting(own, state)
    new = [name for name in own if name not in fitting]
    replaced = list(dict.fromkeys(_layer(name) for name in new))
    unfit = [name for name in new if not _is_at_output(network, name, own[name], state.get(name), out_channels)]
    if not fitting:
        raise UserError(f"None of the {len(state)} tensors in {path} fits the {len(own)} of the network; {_ADVICE}.")
    if unfit:
        raise UserError(
            f"{path} holds the weights of another architecture: {len(new)} of the {len(own)} tensors of the network "
            f"find none of their shape, the first one that is not at the output is {_told(unfit[0], own, state)}; "
            f"{_ADVICE}."
        )
    # by number of weights, for a head of many layers is still a head
    for whole, what in ((own, "of the network"), (state, "in the file")):
        if (part := _size(fitting) / _size(whole)) < _LEAST:
            raise UserError(f"{path} fits too little: {part:.0%} of the weights {what} find their place; {_ADVICE}.")
    left_out = list(dict.fromkeys(_layer(name) for name in state if name not in own))
    return WeightTransfer(fitting, [f"{layer} ({out_channels} channels)" for layer in replaced], left_out)


def load_initial_weights(
    network: nn.Module, path: str | Path, out_channels: int, models_dir: str | Path | None = None
) -> nn.Module:
    """Give a network that is about to be trained the weights of another one, and return it.

    Args:
        network: the network, with its first random weights; changed in place.
        path: a file of weights, as of `read_weights`.
        out_channels: number of channels of a prediction.
        models_dir: folder of the training. If it has begun, its own weights follow, and the file is not read.

    Raises:
        UserError: as of `read_weights` and `transfer`.

    Example:
        >>> import tempfile
        >>> from medcalib.files.tensors import save_tensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tensors(nn.Linear(2, 2).state_dict(), f"{folder}/model.pt")
        ...     load_initial_weights(nn.Linear(2, 2), f"{folder}/model.pt", out_channels=2)
        Linear(in_features=2, out_features=2, bias=True)
    """
    if models_dir is None or not (Path(models_dir) / "checkpoint.pt").exists():
        taken = transfer(network, read_weights(path), out_channels, path)
        network.load_state_dict(taken.state, strict=False)
    return network


_ADVICE = "name weights of the same architecture, in which only the number of classes may differ"
_NAMES: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: name.removeprefix("module."),
    lambda name: name.removeprefix("module.").removeprefix("network."),
    lambda name: f"network.{name.removeprefix('module.')}",
)


def _renamed(state: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    return {rename(name): value for name, value in state.items()}


def _fitting(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same name and shape, of layers that fit as a whole."""
    different = {_layer(name) for name in own if name not in state or state[name].shape != own[name].shape}
    return {name: state[name] for name in own if _layer(name) not in different}


def _is_at_output(network: nn.Module, name: str, own: Tensor, given: Tensor | None, out_channels: int) -> bool:
    if own.ndim == 0:  # a counter of a layer whose other tensors decide
        return True
    layer: Any = network.get_submodule(_layer(name))
    axis = 1 if own.ndim > 1 and isinstance(layer, _ConvTransposeNd) else 0
    if own.shape[axis] != out_channels:
        return False
    # a layer of which one tensor fits and another does not has another number of inputs
    return given is None or given.ndim != own.ndim or given.shape[axis] != own.shape[axis] or given.shape == own.shape


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _size(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def _told(name: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    there = f"{tuple(state[name].shape)} in the file" if name in state else "not in the file"
    return f"{name} ({tuple(own[name].shape)}, {there})"
