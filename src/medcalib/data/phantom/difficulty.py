"""Phantom cases that are harder to segment than most, so that something can fail and be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import numpy as np

from medcalib.data.phantom.volume_model import PhantomModel

__all__ = ["ATTRIBUTE", "Difficulty", "case_difficulties", "harder_model", "has_lesion"]

ATTRIBUTE = "difficulty"
"""Name of the attribute of a case."""

_LESION_FREE_EVERY, _FIRST_LESION_FREE = 10, 7
# further words of a seed, so that neither depends on what is drawn for a case
_WHICH, _HOW = 1, 2


class Difficulty(StrEnum):
    """What makes a case hard.

    Example:
        >>> str(Difficulty.MOTION)
        'motion'
    """

    NORMAL = "normal"
    """Nothing."""
    MISSING_LESION = "missing_lesion"
    """There is none to be found."""
    LOW_CONTRAST = "low_contrast"
    """Tissues hardly differ, while noise and texture are as ever."""
    NOISE = "noise"
    """Strong noise."""
    MOTION = "motion"
    """Ghosts of the organ along one axis of the plane."""
    SHIFTED_INTENSITY = "shifted_intensity"
    """Organ and lesion are brighter or darker than elsewhere, so that an intensity stands for another tissue."""
    VOXEL_SIZE = "voxel_size"
    """Larger voxels, above all thicker slices."""


_SPOILING = tuple(kind for kind in Difficulty if kind not in (Difficulty.NORMAL, Difficulty.MISSING_LESION))


def case_difficulties(sizes: Mapping[str, int], hard_share: float, seed: int) -> dict[str, list[Difficulty]]:
    """Which cases are hard, and how.

    Of every ten cases of a part the eighth has no lesion. Of all cases of a part, ``hard_share``, rounded to whole
    cases, are spoilt in one of the other ways; the seed says which cases, and in which order the ways take turns, from
    part to part.

    Args:
        sizes: number of cases of each part.
        hard_share: share of the cases of every part that is spoilt, in [0, 1]; none of those without lesion are.
        seed: of the dataset.

    Returns:
        For each part the difficulties of its cases.

    Example:
        >>> found = case_difficulties({"training": 4, "test": 10}, hard_share=0.3, seed=0)
        >>> [sum(one is not Difficulty.NORMAL for one in part) for part in found.values()]
        [1, 4]
        >>> str(found["test"][7])
        'missing_lesion'
    """
    rng = np.random.default_rng([seed, 0, _WHICH])
    order = rng.permutation(len(_SPOILING))
    spoilt_before = 0
    found = {}
    for part, size in sizes.items():
        kinds = [Difficulty.NORMAL if has_lesion(place) else Difficulty.MISSING_LESION for place in range(size)]
        normal = [place for place, kind in enumerate(kinds) if kind is Difficulty.NORMAL]
        number = min(round(hard_share * size), len(normal))
        for place in sorted(rng.choice(normal, number, replace=False)):
            kinds[place] = _SPOILING[order[spoilt_before % len(order)]]
            spoilt_before += 1
        found[part] = kinds
    return found


def has_lesion(position: int) -> bool:
    """Whether the case at this position in its part has a lesion."""
    return position % _LESION_FREE_EVERY != _FIRST_LESION_FREE


def harder_model(model: PhantomModel, difficulty: Difficulty, seed: int, index: int) -> PhantomModel:
    """The model from which a hard case is drawn.

    How hard it is varies from case to case. The true probabilities stay those of the latent boundary, which the spoilt
    scan shows less well.

    Args:
        model: that of ordinary cases.
        difficulty: what makes the case hard.
        seed: of the dataset.
        index: of the case in it.

    Returns:
        A model; the same one for what does not change the scan.

    Example:
        >>> harder_model(PhantomModel(), Difficulty.NOISE, seed=0, index=3).noise_sd > 2 * PhantomModel().noise_sd
        True
    """
    rng = np.random.default_rng([seed, index, _HOW])
    severity = float(rng.uniform())

    def between(mild: float, severe: float) -> float:
        return mild + severity * (severe - mild)

    background, organ, lesion = model.tissue_intensity
    match difficulty:
        case Difficulty.LOW_CONTRAST:
            part = between(0.35, 0.12)
            tissues = background, background + part * (organ - background), background + part * (lesion - background)
            return replace(model, tissue_intensity=tissues, tissue_intensity_sd=part * model.tissue_intensity_sd)
        case Difficulty.NOISE:
            return replace(model, noise_sd=between(5.0, 9.0) * model.noise_sd)
        case Difficulty.MOTION:
            return replace(model, ghost_share=between(0.4, 0.7))
        case Difficulty.SHIFTED_INTENSITY:
            shift = between(0.5, 0.8) * (organ - background) * (1 if rng.uniform() < 0.5 else -1)
            return replace(model, tissue_intensity=(background, organ + shift, lesion + shift))
        case Difficulty.VOXEL_SIZE:
            factors = np.array([between(1.4, 1.8)] * 2 + [between(2.0, 3.0)])
            return replace(
                model,
                spacing=tuple(np.round(factors * model.spacing, 1).tolist()),
                in_plane_size=tuple(round(size / factors[0]) for size in model.in_plane_size),
                num_slices=tuple(round(size / factors[2]) for size in model.num_slices),
            )
    return model
