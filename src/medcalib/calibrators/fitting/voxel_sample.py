"""A random sample of the voxels of a stream, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from medcalib.calibrators.calibration_cases import Voxels
from medcalib.functional import to_probabilities

__all__ = ["SAMPLING", "VoxelSample"]

SAMPLING = ("error_balanced", "class_balanced", "uniform")

# Voxels that are looked at together.
CHUNK = 1 << 17
# How many times more voxels than wanted are held before some are left out.
SLACK = 1.25
# Where the strata of errors meet: an error below the first hardly moves any parameter.
ERRORS = (1e-4, 1e-3, 1e-2, 0.1, 0.5)


class VoxelSample:
    """Keep at most ``max_voxels`` voxels of a stream, with weights that restore the means over all of them.

    Every voxel draws a random number; in each stratum the voxels with the smallest numbers are kept, which is a simple
    random sample of the stratum without knowing its size in advance. The weight of a voxel is the size of its stratum
    over the number that is kept of it, so that weighted means estimate the means over all voxels without bias. As long
    as nothing has to be left out, every voxel is kept with weight 1, and the means are exact.

    Args:
        max_voxels: how many voxels are kept.
        sampling: what the strata are; of each equally many voxels are kept where there are enough.
            ``"error_balanced"``: ranges of the error of the uncalibrated prediction, one minus the probability of the
            true class (with the sigmoid, the largest difference of a channel), because nearly all voxels are all but
            certain and right and say next to nothing, in the spirit of https://arxiv.org/abs/1306.3706. Where the
            network is under-confident, balanced classes may give fits that vary less;
            ``"class_balanced"``: the true classes (for targets (C, N) the largest entry, or none where all are below
            one half); ``"uniform"``: all voxels are one stratum.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.
        seed: seed of the drawing.

    Example:
        >>> import torch
        >>> sample = VoxelSample(max_voxels=10, sampling="class_balanced")
        >>> sample.add(Voxels(torch.zeros(2, 1000), (torch.arange(1000) < 2).long()))
        >>> voxels, weights = next(sample.voxels())
        >>> sorted(zip(voxels.truth.tolist(), weights.tolist()))[-3:]
        [(0, 124.75), (1, 1.0), (1, 1.0)]
    """

    def __init__(self, max_voxels: int, sampling: str = "error_balanced", sigmoid: bool = False, seed: int = 0) -> None:
        if sampling not in SAMPLING:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLING)}, got {sampling!r}.")
        if max_voxels < 1:
            raise ValueError(f"max_voxels must be at least 1, got {max_voxels}.")
        self.max_voxels = max_voxels
        self.sampling = sampling
        self.sigmoid = sigmoid
        self._generator = torch.Generator().manual_seed(seed)
        self._seen = torch.zeros(0, dtype=torch.int64)
        self._limits = torch.zeros(0, dtype=torch.float64)
        self._parts: list[tuple[Tensor, ...]] = []
        self._keys: list[Tensor] = []
        self._drawn = False
        self._held = 0

    def add(self, voxels: Voxels) -> None:
        """Show the sample more voxels."""
        for start in range(0, voxels.logits.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            self._add(Voxels(voxels.logits[:, part], voxels.truth[..., part]))
            if self._held > SLACK * self.max_voxels:
                self._trim()

    def voxels(self) -> Iterator[tuple[Voxels, Tensor | None]]:
        """The voxels kept, in parts, and their weights (N,); None where all are 1."""
        self._trim()
        whole = self._held == int(self._seen.sum())
        weights = None if whole else self._seen / self._num_kept()
        for logits, truth, strata in self._parts:
            yield Voxels(logits, truth), None if weights is None else weights.to(strata.device)[strata.long()]

    def __len__(self) -> int:
        """Number of voxels kept."""
        self._trim()
        return self._held

    def _add(self, voxels: Voxels) -> None:
        strata = self._stratum(voxels).to(torch.int16)
        seen = strata.bincount().cpu()
        grown = max(len(seen), len(self._seen))
        self._seen = _pad(self._seen, grown, 0) + _pad(seen, grown, 0)
        self._limits = _pad(self._limits, grown, 1.0)
        part = (voxels.logits, voxels.truth, strata)
        if not self._drawn:
            # Numbers are drawn when the first voxel has to be left out. A copy: the case is not to stay in memory.
            self._parts.append(tuple(values.clone() for values in part))
            self._held += strata.numel()
            return
        keys = self._draw(strata)
        # What has no room in its stratum any more is never copied.
        self._keep(part, keys, keys < self._limits.to(keys.device)[strata.long()])

    def _draw(self, strata: Tensor) -> Tensor:
        return torch.rand(strata.numel(), generator=self._generator, dtype=torch.float64).to(strata.device)

    def _keep(self, part: tuple[Tensor, ...], keys: Tensor, chosen: Tensor) -> None:
        places = chosen.nonzero()[:, 0]
        self._parts.append(tuple(values[..., places] for values in part))
        self._keys.append(keys[places])
        self._held += len(places)

    def _trim(self) -> None:
        if self._held <= self.max_voxels:
            return
        if not self._drawn:
            self._keys, self._drawn = [self._draw(strata) for _, _, strata in self._parts], True
        num_kept = self._num_kept().tolist()
        for stratum, quota in enumerate(_quotas(self._seen.tolist(), self.max_voxels)):
            if num_kept[stratum] > quota:
                self._limits[stratum] = self._smallest_left_out(stratum, num_kept[stratum], quota)
        parts, keys, self._parts, self._keys, self._held = self._parts, self._keys, [], [], 0
        while parts:
            # One by one, so that what is left out is freed as soon as may be.
            part, of_part = parts.pop(0), keys.pop(0)
            self._keep(part, of_part, of_part < self._limits.to(of_part.device)[part[2].long()])

    def _smallest_left_out(self, stratum: int, num_kept: int, quota: int) -> float:
        """The number of a stratum below which ``quota`` others lie."""
        values, filled = np.empty(num_kept), 0
        for (*_, strata), keys in zip(self._parts, self._keys, strict=True):
            of_part = keys[strata == stratum].cpu().numpy()
            values[filled : filled + len(of_part)] = of_part
            filled += len(of_part)
        values.partition(quota)
        return float(values[quota])

    def _num_kept(self) -> Tensor:
        """Number of voxels held of each stratum."""
        return torch.stack([strata.bincount(minlength=len(self._seen)).cpu() for _, _, strata in self._parts]).sum(0)

    def _stratum(self, voxels: Voxels) -> Tensor:
        truth = voxels.truth
        if self.sampling == "uniform":
            return torch.zeros(truth.shape[-1], dtype=torch.int64, device=truth.device)
        if self.sampling == "error_balanced":
            probs = to_probabilities(voxels.logits, self.sigmoid, dim=0)
            difference = probs.sub_(voxels.target()).abs_()
            error = difference.amax(0) if self.sigmoid else difference.sum(0) / 2
            return torch.bucketize(error, error.new_tensor(ERRORS))
        if truth.ndim == 1:
            return truth.long()
        largest, index = truth.double().max(0)
        return torch.where(largest >= 0.5, index + 1, 0)


def _quotas(seen: list[int], total: int) -> list[int]:
    """Divide ``total`` so that every stratum gets all it has, or an equal share of what the others leave."""
    quotas = [0] * len(seen)
    remaining, strata = total, sorted(range(len(seen)), key=seen.__getitem__)
    for place, stratum in enumerate(strata):
        quotas[stratum] = min(seen[stratum], remaining // (len(strata) - place))
        remaining -= quotas[stratum]
    return quotas


def _pad(values: Tensor, length: int, fill: float) -> Tensor:
    return torch.cat([values, values.new_full((length - len(values),), fill)])
