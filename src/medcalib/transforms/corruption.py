"""Make images of test cases worse, in five levels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks.layers import gaussian_1d, separable_filtering
from monai.transforms import Invertd, RandBiasField, Transform
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate

from medcalib.keys import NUM_CORRUPTION_LEVELS, CaseKeys, CorruptionKeys
from medcalib.seeds import derived_seed

__all__ = ["STRENGTHS", "CorruptImaged", "ShowCorruptedd", "corrupt"]

STRENGTHS: dict[CorruptionKeys, tuple[float, ...]] = {
    CorruptionKeys.NOISE: (0.1, 0.2, 0.35, 0.55, 0.8),
    CorruptionKeys.BLUR: (0.4, 0.7, 1.0, 1.5, 2.2),
    CorruptionKeys.BIAS_FIELD: (0.05, 0.1, 0.16, 0.24, 0.35),
    CorruptionKeys.SPACING: (1.5, 2.0, 3.0, 4.0, 5.0),
    CorruptionKeys.CONTRAST: (1.25, 1.6, 2.0, 2.7, 3.5),
}
"""Strength of the levels 1 to 5: of noise its standard deviation, as a multiple of the image's spread; of blur that of
the filter, in sides of the finest voxel; of a bias field the standard deviation of its logarithm; of spacing the side
of the new voxels, in sides of the finest voxel; of contrast the exponent."""

# a constant frame of the image is no part of the body if it holds this part of the outermost voxels
_LEAST_FRAME = 0.25
# of intensities, for the ends of a scale that a few extreme voxels must not set
_PERCENTILES = (0.5, 99.5)
_DEGREE = 3


def corrupt(
    image: Tensor, kind: str, level: int, seed: int = 0, spacing: Sequence[float] | None = None, case: str = ""
) -> Tensor:
    """An image as a worse scanner, camera or protocol would have given it, much alike for all kinds of images.

    Strengths are in units of the image itself, so that the scale of its intensities does not matter: of ``a * image +
    b`` with ``a`` above 0 the result is ``a * result + b``. Channels are taken one by one, but a bias field is the same
    for all. Outside of the body, where a constant value reaches the border, as around a brain without its skull or
    below the window of a CT, nothing changes. No value leaves the range of its channel. But for this, ``bias_field``
    keeps the mean, and ``contrast`` mean and standard deviation, since changes of these are what preprocessing undoes.

    A level is farther from the image than the one before. Noise and bias field are drawn once for a seed and a case, so
    they are the same at all levels but for their strength.

    Args:
        image: channels of an image (C, ...) of two or three spatial axes, in any unit.
        kind: a `medcalib.keys.CorruptionKeys`.
        level: 0, which is the image as it is, to 5.
        seed: fixes noise and bias field together with the case.
        spacing: sides of a voxel, equal ones when None. Blur and the voxels of ``spacing`` are isotropic in this unit:
            an axis whose voxels are longer already is blurred less, or kept.
        case: id of the case.

    Returns:
        A new image of the same shape and type.

    Raises:
        ValueError: there is no such kind or level.

    Reference: levels of corruption as in Hendrycks and Dietterich, arXiv:1903.12261, with which Ovadia et al.,
    arXiv:1906.02530, measure how uncertainty decays.

    Example:
        >>> image = torch.linspace(0, 1, 64).reshape(1, 8, 8)
        >>> [round((corrupt(image, "noise", level) - image).square().mean().sqrt().item(), 2) for level in (0, 1, 2)]
        [0.0, 0.03, 0.06]
    """
    kind = CorruptionKeys(kind)
    if not 0 <= level <= NUM_CORRUPTION_LEVELS:
        raise ValueError(f"level must be 0 to {NUM_CORRUPTION_LEVELS}, got {level}.")
    plain = image.as_subclass(Tensor)
    if level == 0:
        return plain.clone()
    values = plain.double()
    if kind is CorruptionKeys.NOISE:
        random = np.random.default_rng(_seed(seed, case))
        drawn: Any = torch.from_numpy(random.standard_normal(values.shape))
    elif kind is CorruptionKeys.BIAS_FIELD:
        drawn = _field(values.shape[1:], _seed(seed, case))
    else:
        drawn = None
    sides = np.ones(values.ndim - 1) if spacing is None else np.asarray(spacing, dtype=float)
    strength = STRENGTHS[kind][level - 1]
    channels = []
    for number, channel in enumerate(values):
        inside = ~_outside(channel)
        worse = channel
        if bool(inside.any()) and bool(channel[inside].std(correction=0) > 0):
            own = drawn[number] if kind is CorruptionKeys.NOISE else drawn
            worse = _CHANGES[kind](channel, inside, strength, own, sides)
            worse = torch.where(inside, worse.clamp(channel.min(), channel.max()), channel)
        channels.append(worse)
    return torch.stack(channels).to(plain.dtype)


class CorruptImaged(Transform):
    """Make the image of a case worse, as `corrupt` does, with noise that depends on seed and case alone.

    It comes after the preprocessing, so that a level means the same to a network whatever it is given: voxels are those
    of its grid, intensities those that it sees. The label, other entries and where the image lies stay as they are.

    Args:
        kind: a `medcalib.keys.CorruptionKeys`.
        level: 0 to 5.
        seed: fixes noise and bias field together with the id of the case.

    Example:
        >>> case = {"case": "a", "image": MetaTensor(torch.rand(1, 8, 8))}
        >>> worse = CorruptImaged("blur", 2)(case)["image"]
        >>> worse.shape, bool((worse != case["image"]).any())
        (torch.Size([1, 8, 8]), True)
    """

    def __init__(self, kind: str, level: int, seed: int = 0) -> None:
        self.kind = CorruptionKeys(kind)
        self.level = level
        self.seed = seed

    @property
    def settings(self) -> dict[str, Any]:
        """What is recorded of it."""
        strength = STRENGTHS[self.kind][self.level - 1] if self.level else 0.0
        return {"kind": str(self.kind), "level": self.level, "strength": strength}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with a worse image."""
        image, case = data[CaseKeys.IMAGE], str(data.get(CaseKeys.CASE, ""))
        spacing = [float(side) for side in image.pixdim[: image.ndim - 1]] if isinstance(image, MetaTensor) else None
        worse = corrupt(image, self.kind, self.level, self.seed, spacing, case)
        if isinstance(image, MetaTensor):
            worse = MetaTensor(worse).copy_meta_from(image)
        return {**data, CaseKeys.IMAGE.value: worse}


class ShowCorruptedd(Transform):
    """Load a case for a figure, with the image that a network was given brought back to the grid of the file.

    Args:
        load: from the files of a case to image and label.
        prepare: from the files of a case to the image that the network is given.
        preprocessing: that part of ``prepare`` that can be undone.
    """

    def __init__(self, load: Callable[[Any], Any], prepare: Callable[[Any], Any], preprocessing: Any) -> None:
        self.load = load
        self.prepare = prepare
        self.undo = Invertd(CaseKeys.IMAGE.value, preprocessing, orig_keys=CaseKeys.IMAGE.value, nearest_interp=False)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case as ``load`` does, with the other image."""
        files = {key: value for key, value in data.items() if key != CaseKeys.LABEL}
        shown = self.undo(self.prepare(files))[CaseKeys.IMAGE]
        return {**self.load(data), CaseKeys.IMAGE.value: shown}


def _seed(seed: int, case: str) -> int:
    return derived_seed(seed, int.from_bytes(hashlib.sha256(case.encode()).digest()[:8], "little"))


def _outside(channel: Tensor) -> Tensor:
    """Voxels of a constant frame, as far as they hang together with the border."""
    values = channel.numpy()
    border = np.ones(values.shape, dtype=bool)
    border[tuple(slice(1, -1) for _ in values.shape)] = False
    found, counts = np.unique(values[border], return_counts=True)
    if counts.max() < _LEAST_FRAME * border.sum():
        return torch.zeros_like(channel, dtype=torch.bool)
    parts, _ = ndimage.label(values == found[counts.argmax()])
    return torch.from_numpy(np.isin(parts, np.setdiff1d(parts[border], [0])))


def _field(shape: Sequence[int], seed: int) -> Tensor:
    """The logarithm of a smooth field, mean 0 and standard deviation 1."""
    bias = RandBiasField(degree=_DEGREE, coeff_range=(-1.0, 1.0), prob=1.0, dtype=np.float64)
    bias.set_random_state(seed)
    field = torch.as_tensor(bias(torch.ones(1, *shape, dtype=torch.float64))[0]).as_subclass(Tensor).log()
    return (field - field.mean()) / field.std(correction=0).clamp_min(1e-12)


def _noisy(channel: Tensor, inside: Tensor, strength: float, drawn: Any, _sides: Any) -> Tensor:
    return channel + strength * channel[inside].std(correction=0) * drawn


def _blurred(channel: Tensor, _inside: Tensor, strength: float, _drawn: Any, sides: np.ndarray) -> Tensor:
    # MONAI's GaussianSmooth takes what lies beyond the border for 0, which is no value of its own after standardising
    sigmas = torch.as_tensor(strength * sides.min() / sides)
    kernels = [gaussian_1d(sigma.float(), normalize=True).double() for sigma in sigmas]
    return separable_filtering(channel[None, None], kernels, mode="replicate")[0, 0]


def _biased(channel: Tensor, inside: Tensor, strength: float, field: Any, _sides: Any) -> Tensor:
    above = channel - channel.min()
    worse = above * (strength * field).exp()
    return channel.min() + worse * (above[inside].mean() / worse[inside].mean())


def _coarse(channel: Tensor, _inside: Tensor, strength: float, _drawn: Any, sides: np.ndarray) -> Tensor:
    factors = np.maximum(1.0, strength * sides.min() / sides)
    size = [max(1, round(length / factor)) for length, factor in zip(channel.shape, factors, strict=True)]
    few = interpolate(channel[None, None], size, mode="area")
    mode = "bilinear" if channel.ndim == 2 else "trilinear"
    return interpolate(few, tuple(channel.shape), mode=mode, align_corners=False)[0, 0]


def _contrasted(channel: Tensor, inside: Tensor, exponent: float, _drawn: Any, _sides: Any) -> Tensor:
    before = channel[inside]
    low, high = np.percentile(before.numpy(), _PERCENTILES)
    if not high > low:
        return channel
    worse = ((channel.clamp(low, high) - low) / (high - low)) ** exponent
    after = worse[inside]
    return (worse - after.mean()) * (before.std(correction=0) / after.std(correction=0)) + before.mean()


_CHANGES: dict[CorruptionKeys, Callable[[Tensor, Tensor, float, Any, Any], Tensor]] = {
    CorruptionKeys.NOISE: _noisy,
    CorruptionKeys.BLUR: _blurred,
    CorruptionKeys.BIAS_FIELD: _biased,
    CorruptionKeys.SPACING: _coarse,
    CorruptionKeys.CONTRAST: _contrasted,
}
