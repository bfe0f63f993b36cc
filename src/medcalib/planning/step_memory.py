"""Foretell the memory of a training step without making it: the network is run on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from medcalib.bundle.fragments import FragmentKind, fragment_path, read_yaml
from medcalib.bundle.layout import CONFIGS
from medcalib.bundle.templates import find_templates

__all__ = ["Budget", "StepMemory", "step_memory"]

_GB = 10**9
# weights, their gradients and two moments of AdamW, in float32
_COPIES_OF_WEIGHTS = 4
# logits, probabilities and targets of a loss of several parts, forward and backward
_COPIES_OF_LOGITS = 6
_BYTES = 4
# of mixed precision some values stay in float32, and convolutions need room to work in
_SHARE_OF_GPU = 0.75
_USABLE = 0.9
_CONTEXT_OF_GPU = 1.5 * _GB
_PROCESS = 1.0 * _GB


class Budget(NamedTuple):
    """The memory that a training step may take.

    Attributes:
        memory: in bytes.
        on_gpu: whether it is that of a GPU.
        option: how the user stated it.
    """

    memory: float
    on_gpu: bool
    option: str

    @classmethod
    def of_gpu(cls, gigabytes: float) -> Budget:
        """That of a GPU of so many GB."""
        return cls(gigabytes * _GB, True, f"--gpu_memory {gigabytes:g}")

    @property
    def usable(self) -> float:
        """Bytes that activations and weights may take."""
        return _USABLE * self.memory - (_CONTEXT_OF_GPU if self.on_gpu else _PROCESS)


class StepMemory(NamedTuple):
    """Bytes of a training step by what causes them.

    Attributes:
        weights: of weights, gradients and the optimizer.
        case: of what is kept of one patch for the backward pass, and of its loss.
    """

    weights: float
    case: float

    def of_batch(self, batch_size: int) -> float:
        """Bytes of a step with so many patches, without what the process and the GPU need anyway."""
        return self.weights + batch_size * self.case


def step_memory(
    network: str,
    settings: Mapping[str, Any],
    patch_size: Sequence[int],
    num_channels: int,
    num_classes: int,
    on_gpu: bool,
) -> StepMemory:
    """The memory that a training step takes with a network fragment.

    The network is made and run on PyTorch's device ``meta``, which knows shapes and computes nothing; what autograd
    keeps for the backward pass is counted. On a GPU most of it has half the size, by mixed precision.

    Args:
        network: name of a network fragment.
        settings: its settings that differ from those in the fragment.
        patch_size: voxels per axis.
        num_channels: of the image.
        num_classes: output channels.
        on_gpu: whether it is trained on a GPU.

    Example:
        >>> settings = {"init_filters": 8, "blocks_down": [1, 2], "dsdepth": 1}
        >>> small, large = (
        ...     step_memory("segresnet_ds", settings, patch, num_channels=1, num_classes=2, on_gpu=False)
        ...     for patch in ([16, 16, 16], [32, 16, 16])
        ... )
        >>> small.weights == large.weights, round(large.case / small.case, 1)
        (True, 2.0)
    """
    frozen = tuple(sorted((key, _frozen(value)) for key, value in settings.items()))
    return _measured(network, frozen, tuple(patch_size), num_channels, num_classes, on_gpu)


@lru_cache(maxsize=256)
def _measured(
    network: str, settings: tuple, patch_size: tuple[int, ...], num_channels: int, num_classes: int, on_gpu: bool
) -> StepMemory:
    module = _on_meta(network, settings, len(patch_size), num_channels, num_classes)
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        # tensors that share their memory count once; they are held, so that no other takes the place of one
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    with torch.device("meta"), saved_tensors_hooks(keep, lambda tensor: tensor):
        predicted = module(torch.empty(1, num_channels, *patch_size))
    activations = sum(size for storage, (_, size) in kept.items() if storage not in own)
    logits = sum(leaf.numel() for leaf in tree_leaves(predicted) if isinstance(leaf, Tensor))
    weights = sum(parameter.numel() for parameter in module.parameters())
    share = _SHARE_OF_GPU if on_gpu else 1.0
    return StepMemory(
        float(weights * _BYTES * _COPIES_OF_WEIGHTS), share * activations + logits * _BYTES * _COPIES_OF_LOGITS
    )


@lru_cache(maxsize=16)
def _on_meta(network: str, settings: tuple, spatial_dims: int, num_channels: int, num_classes: int) -> torch.nn.Module:
    """The network of a fragment, without memory for its weights."""
    content = read_yaml(fragment_path(find_templates() / CONFIGS, FragmentKind.NETWORK, network))
    parser = ConfigParser(
        {
            "imports": content.get("+imports", []),
            "network": content["network"],
            "network_def": content["network_def"],
            "data": {
                # its length alone matters for networks whose depth is set
                "patch_size": [64] * spatial_dims,
                "channel_names": [str(number) for number in range(num_channels)],
                "class_names": [str(number) for number in range(num_classes)],
            },
        }
    )
    for key, value in settings:
        parser[f"network::{key}"] = _thawed(value)
    with torch.device("meta"):
        return parser.get_parsed_content("network_def").train()


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value
