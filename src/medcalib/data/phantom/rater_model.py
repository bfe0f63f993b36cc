"""The model of the phantom's raters: each with a bias, a spread, and an eye for small lesions of their own.

Shapes and scan are those of `medcalib.data.phantom.volume_model.PhantomModel`, with lesions down to 3 mm. Rater r draws
the contour where the signed distance d to the latent boundary (mm, negative inside) equals their displacement: a bias
``b_r``, positive where they draw too large, plus a Gaussian random field of standard deviation ``s_r``, which is the
sum of a wobble over a few voxels and of a smooth deformation. A small lesion they miss altogether with the probability
``m_r``. They therefore call a voxel lesion with probability ``(1 - m_r) Phi((b_r - d_lesion) / s_r)`` and, where they
do not, organ with probability ``Phi((b_r - d_organ) / s_r)``. The mean over the raters is the expected response.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from medcalib.data.phantom.volume_model import Array, PhantomModel

__all__ = ["RATERS", "RatedVolumes", "Rater", "RaterModel"]


@dataclass(frozen=True)
class Rater:
    """How one rater draws; lengths in mm."""

    name: str
    """Under which the labels of the rater lie."""
    bias: float
    """How far outside the latent boundary the contours lie on average; negative inside."""
    wobble_sd: float
    """Standard deviation of the contour around that over a few voxels."""
    deformation_sd: float
    """Standard deviation of the smooth deformation of the contour."""
    miss: float
    """Probability of missing a small lesion."""

    @property
    def spread(self) -> float:
        """Standard deviation of a contour around its mean place."""
        return float(np.hypot(self.wobble_sd, self.deformation_sd))


RATERS = (
    Rater("rater_1", bias=0.0, wobble_sd=0.3, deformation_sd=0.2, miss=0.0),
    Rater("rater_2", bias=0.7, wobble_sd=0.4, deformation_sd=0.3, miss=0.1),
    Rater("rater_3", bias=-0.7, wobble_sd=0.4, deformation_sd=0.3, miss=0.5),
    Rater("rater_4", bias=0.3, wobble_sd=0.6, deformation_sd=0.7, miss=0.2),
    Rater("rater_5", bias=-0.3, wobble_sd=0.5, deformation_sd=0.6, miss=0.7),
)
"""The five raters of the phantom."""


@dataclass(frozen=True)
class RatedVolumes:
    """The arrays of one case."""

    image: NDArray[np.int16]
    """(X, Y, Z) intensities."""
    labels: dict[str, NDArray[np.uint8]]
    """Of each rater, by name, (X, Y, Z) class indices."""
    probability: NDArray[np.float32]
    """(X, Y, Z, class) mean over these raters of the probabilities that their labels were drawn from."""


@dataclass(frozen=True)
class RaterModel:
    """Parameters of the raters' phantom; lengths in mm.

    Example:
        >>> rated = RaterModel().draw(np.random.default_rng(0), with_lesion=True)
        >>> list(rated.labels), rated.probability.shape == (*rated.image.shape, 3)
        (['rater_1', 'rater_2', 'rater_3', 'rater_4', 'rater_5'], True)
    """

    phantom: PhantomModel = field(default_factory=lambda: PhantomModel(lesion_radius=(3.0, 8.0)))
    """Shapes and scan."""
    raters: tuple[Rater, ...] = RATERS
    """Who draws."""
    small_lesion: float = 4.5
    """Radius of the sphere as large as a lesion, below which raters may miss it."""
    deformation_smoothness: float = 5.0
    """Standard deviation of the Gaussian kernel that smooths deformations."""

    def draw(self, rng: np.random.Generator, with_lesion: bool, present: Sequence[str] | None = None) -> RatedVolumes:
        """Draw one case on a grid whose axes point right, anterior and superior.

        Args:
            rng: source of all randomness.
            with_lesion: whether the organ has a lesion.
            present: names of the raters who saw the case; all when None.
        """
        organ, lesion = self.phantom.bodies(rng, with_lesion)
        image = np.round(self.phantom.scan(rng, organ, lesion)).astype(np.int16)
        volume = np.count_nonzero(lesion < 0) * float(np.prod(self.phantom.spacing))
        is_small = bool((3 * volume / (4 * np.pi)) ** (1 / 3) < self.small_lesion)
        labels, probabilities = {}, []
        for rater in self.raters:
            label = self._label(rng, rater, organ, lesion, is_small)
            # everybody draws, so that the others' labels do not depend on who is present
            if present is None or rater.name in present:
                labels[rater.name] = label
                probabilities.append(self.probability(rater, organ, lesion, is_small))
        return RatedVolumes(image, labels, np.mean(probabilities, axis=0).astype(np.float32))

    def probability(self, rater: Rater, organ: Array, lesion: Array, is_small: bool) -> Array:
        """Probabilities (X, Y, Z, class) that the labels of a rater are drawn from.

        Args:
            rater: who draws.
            organ: signed distance (X, Y, Z) to the latent boundary of the organ.
            lesion: the same of the lesion, infinite where there is none.
            is_small: whether the lesion may be missed.
        """
        in_lesion = (1 - rater.miss * is_small) * ndtr((rater.bias - lesion) / rater.spread)
        in_organ = ndtr((rater.bias - organ) / rater.spread)
        return np.stack([(1 - in_lesion) * (1 - in_organ), (1 - in_lesion) * in_organ, in_lesion], axis=-1)

    def _label(
        self, rng: np.random.Generator, rater: Rater, organ: Array, lesion: Array, is_small: bool
    ) -> NDArray[np.uint8]:
        organ_contour, lesion_contour = (self._displacement(rng, rater, organ.shape) for _ in range(2))
        misses = bool(rng.random() < rater.miss) and is_small
        in_lesion = np.zeros(organ.shape, bool) if misses else lesion < lesion_contour
        return np.where(in_lesion, 2, np.where(organ < organ_contour, 1, 0)).astype(np.uint8)

    def _displacement(self, rng: np.random.Generator, rater: Rater, shape: tuple[int, ...]) -> Array:
        wobble = self.phantom.field(rng, shape, self.phantom.annotator_smoothness)
        deformation = self.phantom.field(rng, shape, self.deformation_smoothness)
        return rater.bias + rater.wobble_sd * wobble + rater.deformation_sd * deformation
