"""How much memory a training step takes, found without taking it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["LiveMemory", "StepMemory", "training_step_memory"]

# edge length in voxels of the maps on which a loss is run to see how much it keeps for each
TRIAL_SIZE = 16


class StepMemory(NamedTuple):
    """Bytes of one training step.

    Attributes:
        parameters: number of trained parameters.
        weights: of all parameters and buffers.
        optimizer: what the optimizer keeps from step to step.
        activations: what the network keeps for its backward pass.
        loss: the most that the loss and its gradient take.
        total: the most that is needed at one time, all of these and the gradients included.
    """

    parameters: int
    weights: int
    optimizer: int
    activations: int
    loss: int
    total: int


class LiveMemory(TorchDispatchMode):
    """Count the bytes of the tensors that are alive of those that were made within the context.

    Tensors that share memory count once; those on the device ``meta`` count as if they were real.

    Attributes:
        current: bytes of the tensors that are alive now.
        peak: the most there ever were.

    Example:
        >>> with LiveMemory() as memory:
        ...     total = (torch.zeros(100) + 1).sum()
        >>> memory.current, memory.peak
        (4, 800)
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self._counted = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operation and count what it makes."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                # made before the context, and maybe returned as it is
                self._counted.setdefault(leaf.untyped_storage(), True)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._counted:
            return
        self._counted[storage] = True
        size = storage.nbytes()
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.current -= size


def training_step_memory(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_function: Callable[[Any, Tensor], Tensor],
    input_shape: Sequence[int],
    label_shape: Sequence[int],
) -> StepMemory:
    """Simulate a training step and count its tensors.

    The network runs on the device ``meta``, where tensors have shapes but no values, so this takes neither the memory
    nor the time; the loss runs on small maps on the CPU, and what it takes is scaled to the size of the real ones.
    What an allocator or a library of kernels takes beside tensors is not counted.

    Args:
        network: network on the device ``meta``; it is trained for one step.
        optimizer: optimizer of its parameters.
        loss_function: called with what the network returns and labels.
        input_shape: shape (B, C, ...) of a batch.
        label_shape: shape (B, 1 or C, ...) of its labels.

    Returns:
        The bytes, for numbers of the types that the network has.

    Example:
        >>> with torch.device("meta"):
        ...     network = nn.Conv2d(1, 2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
        >>> loss = nn.CrossEntropyLoss()
        >>> memory = training_step_memory(
        ...     network, optimizer, lambda logits, label: loss(logits, label[:, 0].long()), (1, 1, 8, 8), (1, 1, 8, 8)
        ... )
        >>> memory.parameters, memory.weights, memory.optimizer, memory.activations
        (2, 8, 8, 512)
    """
    weights = sum(tensor.untyped_storage().nbytes() for tensor in _own_tensors(network))
    network.train()
    images = torch.empty(input_shape, device="meta")
    with LiveMemory() as memory:
        outputs = network(images)
        activations = memory.current
        loss = _loss_memory(loss_function, outputs, label_shape)
        leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
        del outputs
        torch.autograd.backward(leaves, [torch.empty_like(leaf) for leaf in leaves])
        del leaves
        peak = max(memory.peak, activations + loss)
        before = memory.current
        optimizer.step()
        state = memory.current - before
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    inputs = images.untyped_storage().nbytes()
    return StepMemory(parameters, weights, state, activations, loss, inputs + weights + state + peak)


def _own_tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _loss_memory(loss_function: Callable, outputs: Any, label_shape: Sequence[int]) -> int:
    """The most that a loss takes, scaled from small outputs to the real ones."""
    trial = tree_map(
        lambda leaf: torch.rand(_small(leaf.shape), requires_grad=True) if isinstance(leaf, Tensor) else leaf, outputs
    )
    real, small = (
        sum(leaf.numel() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)) for tree in (outputs, trial)
    )
    label = torch.zeros(_small(label_shape), dtype=torch.uint8)
    with LiveMemory() as memory:
        loss_function(trial, label).mean().backward()
    return round(memory.peak * real / small)


def _small(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a batch with at most `TRIAL_SIZE` voxels along each spatial axis."""
    return (*shape[:2], *(min(size, TRIAL_SIZE) for size in shape[2:]))
