"""Samplers: from one window and a network to the logits of every member, one after the other.

A sampler is called with inputs (B, C, ...) and a network, and yields logits (B, classes, ...). Only one member is alive
at a time, so the number of members does not change the memory that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import torch
from monai.transforms import Randomizable
from torch import Tensor, nn

from medcalib.errors import UserError
from medcalib.networks.dropout import stochastic_dropout
from medcalib.networks.ensemble import NetworkEnsemble
from medcalib.networks.reuse import reuse_deterministic
from medcalib.seeds import derived_seed

__all__ = ["EnsembleSampler", "HeadSampler", "MCDropoutSampler", "Sampler", "TTASampler", "single_member"]

Sampler = Callable[[Tensor, nn.Module], Iterator[Tensor]]


def single_member(inputs: Tensor, network: nn.Module) -> Iterator[Tensor]:
    """The plain prediction as the only member."""
    yield network(inputs)


class MCDropoutSampler:
    """Members that differ in what dropout leaves out (Gal and Ghahramani, arXiv:1506.02142).

    Only dropout is stochastic: every other layer stays in evaluation mode, and modes and random state are restored
    afterwards. What lies before the first dropout is computed once per window. Member m draws its masks from a seed of
    its own, the same for every window and case, so predictions depend neither on the order of the cases nor on how
    they are shared among processes.

    Args:
        num_members: number of forward passes.
        seed: seed of the run.
        reuse: whether the deterministic part of the network is computed once per window; the result is the same.

    Raises:
        UserError: ``num_members`` is less than one; when called, the network has no dropout.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.5)).eval()
        >>> sampler = MCDropoutSampler(num_members=3)
        >>> [tuple(logits.shape) for logits in sampler(torch.ones(1, 1, 4, 4), network)]
        [(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)]
    """

    def __init__(self, num_members: int = 20, seed: int = 0, reuse: bool = True) -> None:
        if num_members < 1:
            raise UserError(f"method::sampler::num_members must be at least 1, not {num_members}.")
        self.num_members = num_members
        self.seed = seed
        self.reuse = reuse

    def __call__(self, inputs: Tensor, network: nn.Module) -> Iterator[Tensor]:
        """Yield the logits of each member."""
        with stochastic_dropout(network):
            if not self.reuse:
                yield from self._members(inputs, network)
                return
            with reuse_deterministic(network):
                yield from self._members(inputs, network)

    def _members(self, inputs: Tensor, network: nn.Module) -> Iterator[Tensor]:
        devices = [inputs.device] if inputs.is_cuda else []
        for member in range(self.num_members):
            with torch.random.fork_rng(devices):
                torch.manual_seed(derived_seed(self.seed, member))
                logits = network(inputs)
            yield logits


class EnsembleSampler:
    """Members that are networks of their own: those of a `medcalib.networks.NetworkEnsemble`.

    Raises:
        UserError: when called, the network is no ensemble.

    Example:
        >>> from medcalib.networks import NetworkEnsemble
        >>> ensemble = NetworkEnsemble(nn.Conv2d(1, 2, 1), num_members=3)
        >>> [tuple(logits.shape) for logits in EnsembleSampler()(torch.ones(1, 1, 4, 4), ensemble)]
        [(1, 2, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)]
    """

    def __call__(self, inputs: Tensor, network: nn.Module) -> Iterator[Tensor]:
        """Yield the logits of each network."""
        if not isinstance(network, NetworkEnsemble):
            raise UserError(
                f"EnsembleSampler needs a NetworkEnsemble, but trained_network is a {type(network).__name__}; "
                f"set trained_network to medcalib.networks.load_ensemble."
            )
        yield from network.members(inputs)


class HeadSampler:
    """Members that are the heads of one network, in the order in which it returns them.

    Args:
        skip_heads: number of first heads that do not take part; early layers can spoil the mean (arXiv:2203.08878).

    Raises:
        UserError: when called, the network has no heads, or none is left.

    Example:
        >>> def heads(inputs):
        ...     return [inputs, inputs + 1, inputs + 2]
        >>> [logits.item() for logits in HeadSampler(skip_heads=1)(torch.zeros(1, 1), heads)]
        [1.0, 2.0]
    """

    def __init__(self, skip_heads: int = 0) -> None:
        if skip_heads < 0:
            raise UserError(f"method::sampler::skip_heads must not be negative, but is {skip_heads}.")
        self.skip_heads = skip_heads

    def __call__(self, inputs: Tensor, network: nn.Module) -> Iterator[Tensor]:
        """Yield the logits of each head."""
        heads = network(inputs)
        if isinstance(heads, Tensor):
            raise UserError(f"HeadSampler needs a network with several heads, but {type(network).__name__} has one.")
        if self.skip_heads >= len(heads):
            raise UserError(
                f"method::sampler::skip_heads is {self.skip_heads}, but the network has {len(heads)} heads; "
                f"at least one must be left."
            )
        yield from heads[self.skip_heads :]


class TTASampler:
    """Members that see the window flipped, rotated or with other intensities (test-time augmentation).

    The first view is the window itself; then follow all combinations of the flips, each with every rotation. With
    ``intensity`` every view is seen once more after these transforms (arXiv:1807.07356). The inverse of flips and
    rotations is applied to the prediction, unless it has no spatial axes, as that of a classifier.

    Args:
        flip_axes: spatial axes along which the window is flipped; not one that would swap left and right organs. None,
            as where a data fragment says nothing, is an error.
        rotation_axes: the two spatial axes in whose plane the window is also rotated by 90, 180 and 270 degrees.
        intensity: MONAI's random array transforms of an image (C, ...), such as `monai.transforms.RandGaussianNoise`.
        seed: seed of the intensity transforms.
        sampler: draws several members from every view, such as an `EnsembleSampler`; one when None.

    Raises:
        UserError: an axis is given twice, or when called, the data lacks it.

    Example:
        >>> views = TTASampler(flip_axes=[0, 1])
        >>> len(list(views(torch.rand(1, 1, 4, 4), nn.Conv2d(1, 2, 1))))
        4
    """

    def __init__(
        self,
        flip_axes: Sequence[int] | None = (),
        rotation_axes: Sequence[int] | None = None,
        intensity: Sequence[Callable[[Tensor], Tensor]] = (),
        seed: int = 0,
        sampler: Sampler | None = None,
    ) -> None:
        if flip_axes is None:
            raise UserError(
                "The data fragment does not say along which axes tta may flip: add data::tta_flip_axes to it, or give "
                "--method::sampler::flip_axes=[0]."
            )
        for name, axes in (("flip_axes", flip_axes), ("rotation_axes", rotation_axes or ())):
            if len(set(axes)) != len(axes) or any(axis < 0 for axis in axes):
                raise UserError(f"method::sampler::{name} must be different axes counted from 0, not {list(axes)}.")
        if rotation_axes is not None and len(rotation_axes) != 2:
            raise UserError(f"method::sampler::rotation_axes must be two axes, not {list(rotation_axes)}.")
        self.flip_axes = tuple(flip_axes)
        self.rotation_axes = tuple(rotation_axes) if rotation_axes is not None else None
        self.intensity = tuple(intensity)
        self.seed = seed
        self.sampler = sampler or single_member

    def __call__(self, inputs: Tensor, network: nn.Module) -> Iterator[Tensor]:
        """Yield the logits of each view, turned back."""
        self._check_axes(inputs)
        for number, (flips, quarter_turns, changes_intensity) in enumerate(self._views()):
            # the view of nothing is the window itself, so that one view equals the plain path in memory layout, too
            view = inputs
            if flips:
                view = view.flip([axis + 2 for axis in flips])
            if quarter_turns:
                view = view.rot90(quarter_turns, self._rotation_plane())
            if changes_intensity:
                view = torch.stack([self._changed(image, number, index) for index, image in enumerate(view)])
            for logits in self.sampler(view, network):
                if logits.ndim == 2:
                    yield logits
                    continue
                restored = logits
                if quarter_turns:
                    restored = restored.rot90(-quarter_turns, self._rotation_plane())
                if flips:
                    restored = restored.flip([axis + 2 for axis in flips])
                yield restored

    def _views(self) -> Iterator[tuple[tuple[int, ...], int, bool]]:
        for changes_intensity in (False, True) if self.intensity else (False,):
            for quarter_turns in range(4) if self.rotation_axes is not None else range(1):
                for size in range(len(self.flip_axes) + 1):
                    for flips in combinations(self.flip_axes, size):
                        yield flips, quarter_turns, changes_intensity

    def _rotation_plane(self) -> list[int]:
        return [axis + 2 for axis in self.rotation_axes or ()]

    def _changed(self, image: Tensor, view: int, index: int) -> Tensor:
        for number, transform in enumerate(self.intensity):
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=derived_seed(self.seed, view, index, number))
            image = transform(image)
        return image

    def _check_axes(self, inputs: Tensor) -> None:
        rank = inputs.ndim - 2
        for name, axes in (("flip_axes", self.flip_axes), ("rotation_axes", self.rotation_axes or ())):
            for axis in axes:
                if axis >= rank:
                    raise UserError(
                        f"method::sampler::{name} names axis {axis}, but the data has {rank} spatial axes, 0 to "
                        f"{rank - 1}; correct data::tta_flip_axes or the method's axes."
                    )
