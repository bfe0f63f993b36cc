"""Compute the deterministic part of a network once while the members of a prediction are drawn."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from medcalib.networks.dropout import INSERTED, dropout_probability

__all__ = ["reuse_deterministic"]

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PLAIN = (int, float, str, type(None), torch.Size, torch.dtype, torch.device)


@contextmanager
def reuse_deterministic(network: nn.Module) -> Iterator[nn.Module]:
    """Let modules without randomness return what they returned before, as long as they are given the same inputs.

    Within the context the network may be run any number of times, on any number of inputs. A module that holds nothing
    in training mode (dropout with probability 0 aside) is not run again while its inputs are the very same tensors,
    unchanged, or have the same bits: what it returned is handed out once more. So the results are those of plain runs
    to the last bit.

    Outputs are kept until the network is given another input, or the context ends: those of modules that run before the
    first dropout, and those of later modules only while their inputs are alive anyway. So memory does not grow with the
    number of runs. A module whose inputs changed although the network's did not is not tried again.

    Nothing is reused while gradients are recorded or in `torch.inference_mode`, where changes in place cannot be seen.
    Randomness of functions, such as `torch.rand` in the ``forward`` of a module in evaluation mode, cannot be seen:
    such a network must not be run in this context. Nor may weights change in it, and what a ``forward`` does beside
    returning something is not done again.

    Args:
        network: any network, usually within `medcalib.networks.stochastic_dropout`.

    Yields:
        The network.

    Example:
        >>> from medcalib.networks import stochastic_dropout
        >>> class Counted(nn.Conv2d):
        ...     calls = 0
        ...
        ...     def forward(self, input):
        ...         self.calls += 1
        ...         return super().forward(input)
        >>> network, image = nn.Sequential(Counted(1, 2, 3), nn.Dropout(0.5)), torch.rand(1, 1, 8, 8)
        >>> with torch.no_grad(), stochastic_dropout(network), reuse_deterministic(network):
        ...     members = [network(image) for _ in range(5)]
        >>> network[0].calls
        1
    """
    run = _Run()
    with ExitStack() as stack:
        stack.callback(run.forget)
        for module, replacement in run.replacements(network):
            stack.callback(_restore, module, module.__dict__.get("forward"))
            module.forward = replacement
        yield network


def _restore(module: nn.Module, forward: Callable | None) -> None:
    del module.forward
    if forward is not None:
        module.forward = forward


def _is_stochastic(module: nn.Module) -> bool:
    # whatever is in training mode may draw random numbers or update statistics
    return module.training and dropout_probability(module) != 0


class _Run:
    """What has happened since the network was given its present input."""

    def __init__(self) -> None:
        self.caches: list[_Cache] = []
        self.arguments: _Snapshot | None = None
        self.random = False

    def replacements(self, network: nn.Module) -> list[tuple[nn.Module, Callable]]:
        """Pair the modules whose forward is to be replaced with the replacements."""
        replacements: dict[nn.Module, Callable] = {}
        for module, reusable in _outermost(network):
            if reusable:
                self.caches.append(_Cache(module.forward, self))
                replacements[module] = self.caches[-1]
            else:
                replacements[module] = self._noting_randomness(module.forward)
        replacements[network] = self._beginning(replacements.get(network, network.forward))
        return list(replacements.items())

    def _noting_randomness(self, forward: Callable) -> Callable:
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.random = True
            return forward(*args, **kwargs)

        return noting

    def _beginning(self, forward: Callable) -> Callable:
        def beginning(*args: Any, **kwargs: Any) -> Any:
            self.random = False
            given = _Snapshot((args, kwargs))
            if self.arguments is None or not self.arguments.same(given):
                self.forget()
                self.arguments = given
            return forward(*args, **kwargs)

        return beginning

    def forget(self) -> None:
        """Drop everything that was kept for the last input."""
        self.arguments = None
        for cache in self.caches:
            cache.forget()


def _outermost(network: nn.Module) -> list[tuple[nn.Module, bool]]:
    """Return the modules that are random themselves (False) and the outermost ones that hold no randomness (True)."""
    holders = {module for module in network.modules() if any(map(_is_stochastic, module.modules()))}
    found, pending = {}, [network]
    while pending:
        module = pending.pop()
        if module in found:
            continue
        children = set(module.children())
        # inserted dropout runs in a hook, outside of the module's own forward
        hooked = set() if isinstance(module, nn.Sequential) else {getattr(module, INSERTED, module)} & children
        if _is_stochastic(module):
            found[module] = False
        elif not holders & (children - hooked):
            found[module] = True
            children = hooked & holders
        pending.extend(children)
    return list(found.items())


class _Snapshot:
    """Arguments or results of a call: nested lists, tuples and dicts of tensors and plain values, as they were."""

    def __init__(self, value: Any) -> None:
        self.leaves, self.structure = tree_flatten(value)
        self.versions = [_version(leaf) for leaf in self.leaves]

    def storages(self) -> set[int]:
        return {leaf.untyped_storage().data_ptr() for leaf in self.leaves if isinstance(leaf, Tensor)}

    def weaken(self, forget: Callable) -> None:
        """Keep no tensor alive; call ``forget`` as soon as one is gone."""
        self.leaves = [weakref.ref(leaf, forget) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]

    def traceable(self) -> bool:
        """Whether changes of all parts would be noticed."""
        return all(
            isinstance(leaf, PLAIN) or (isinstance(leaf, Tensor) and leaf.layout is torch.strided)
            for leaf in self.leaves
        )

    def unchanged(self) -> bool:
        """Whether no tensor was changed in place since."""
        return [_version(leaf) for leaf in self.leaves] == self.versions

    def same(self, given: _Snapshot) -> bool:
        """Whether a call with what is given would see the same values."""
        return self.structure == given.structure and all(map(_same, self.leaves, self.versions, given.leaves))

    def value(self, take: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Any:
        """Return what was stored, in containers of its own: networks take elements out of returned lists."""
        leaves = [take(leaf) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.structure)


def _version(leaf: Any) -> int | None:
    return leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else None


def _same(stored: Any, version: int | None, given: Any) -> bool:
    stored = stored() if isinstance(stored, weakref.ref) else stored
    if not (isinstance(stored, Tensor) and isinstance(given, Tensor)):
        return type(stored) is type(given) and isinstance(stored, PLAIN) and stored == given
    # a tensor that was changed since no longer says what the module saw
    return version is not None and _version(stored) == version and (stored is given or _same_bits(stored, given))


def _same_bits(first: Tensor, second: Tensor) -> bool:
    properties = [
        (type(tensor), tensor.dtype, tensor.device, tensor.layout, tensor.shape, tensor.stride())
        for tensor in (first, second)
    ]
    if properties[0] != properties[1] or first.is_complex() or first.dtype.itemsize not in BITS:
        return False
    # as integers, so that NaN equals itself and zeros of different sign differ
    return torch.equal(*(tensor.as_subclass(Tensor).view(BITS[first.dtype.itemsize]) for tensor in (first, second)))


def _precision() -> list[Any]:
    return [
        setting
        for device in ("cpu", "cuda")
        for setting in (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
    ]


class _Cache:
    """Stands for the forward of a module that holds no randomness."""

    def __init__(self, forward: Callable, run: _Run) -> None:
        self.forward = forward
        self.run = run
        self.varies = False
        self.forget()

    def forget(self) -> None:
        """Start anew, for the network's next input."""
        self.tried = False
        self.private = False
        self._release()

    def _release(self, _: Any = None) -> None:
        self.inputs: _Snapshot | None = None
        self.outputs: _Snapshot | None = None

    def _give_up(self) -> None:
        self._release()
        self.varies = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module returned for the same inputs, or run it."""
        if self.varies or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return self.forward(*args, **kwargs)
        given = _Snapshot((args, kwargs, _precision()))
        if not self.tried:
            return self._first(given, *args, **kwargs)
        if self.inputs is None or self.outputs is None or not self.inputs.same(given):
            self._give_up()
            return self.forward(*args, **kwargs)
        if self.outputs.unchanged():
            return self.outputs.value(torch.clone) if self.private else self.outputs.value()
        # the network changes in place what it is given: from now on keep a copy that it never sees
        results = self.forward(*args, **kwargs)
        self.outputs, self.private = _Snapshot(_Snapshot(results).value(torch.clone)), True
        return results

    def _first(self, given: _Snapshot, *args: Any, **kwargs: Any) -> Any:
        self.tried = True
        random = self.run.random
        results = self.forward(*args, **kwargs)
        outputs = _Snapshot(results)
        # where memory is shared, what happens to the output happens to the input, too
        if not (given.traceable() and outputs.traceable()) or given.storages() & outputs.storages():
            self._give_up()
            return results
        if random:
            given.weaken(self._release)
        self.inputs, self.outputs = given, outputs
        return results
