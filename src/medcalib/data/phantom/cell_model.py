"""The model of the phantom cells: nuclei of known size and texture, and readers with a known spread.

A cell has a *severity*, a weighted sum of how large its nucleus is and how dark and coarse its chromatin: both show in
the image, and what else differs between cells, such as the colour and shape of the cytoplasm, has nothing to do with
them. A reader adds an error of their own, which is logistic with a known scale ``s``, and grades by two thresholds. The
grade is therefore above threshold ``t`` with probability ``1 / (1 + exp((t - severity) / s))``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from medcalib.data.phantom.volume_model import gaussian_random_field

__all__ = ["CELL_CLASS_NAMES", "Cell", "CellModel"]

CELL_CLASS_NAMES = ("negative", "low_grade", "high_grade")

_OVERSAMPLING = 2
_SLIDE = (240.0, 238.0, 236.0)
_CYTOPLASM = ((126.0, 178.0, 186.0), (222.0, 150.0, 160.0))
_CHROMATIN = ((120.0, 104.0, 158.0), (44.0, 30.0, 82.0))

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Cell:
    """One phantom cell."""

    image: NDArray[np.uint8]
    """(y, x, 3) red, green and blue."""
    label: int
    """Index into `CELL_CLASS_NAMES`: the grade that a reader gave."""
    probability: tuple[float, float, float]
    """Probabilities of the classes that `label` was drawn from."""
    nucleus_size: float
    """How large the nucleus is, in standard deviations from the mean."""
    chromatin: float
    """How dark and coarse the chromatin is, in standard deviations from the mean."""


@dataclass(frozen=True)
class CellModel:
    """Parameters of the phantom cells; lengths in pixels.

    Example:
        >>> cell = CellModel().draw(np.random.default_rng(0))
        >>> cell.image.shape, CELL_CLASS_NAMES[cell.label]
        ((64, 64, 3), 'negative')
    """

    size: int = 64
    """Side of an image."""
    nucleus_radius: float = 8.5
    """Mean radius of a nucleus of ordinary size."""
    nucleus_radius_sd: float = 1.8
    """How much the radius grows with one standard deviation of the size."""
    size_weight: float = 0.7
    """Weight of the nucleus' size in the severity."""
    chromatin_weight: float = 0.7
    """Weight of the chromatin in the severity."""
    thresholds: tuple[float, float] = (0.15, 1.1)
    """Severities above which a reader without error gives the second and the third grade."""
    reader_scale: float = 0.25
    """Scale of the logistic error of the readers."""
    noise_sd: float = 4.0
    """Standard deviation of the camera's noise, on the scale 0 to 255."""

    def probability(self, nucleus_size: float, chromatin: float) -> tuple[float, float, float]:
        """Probabilities of the classes.

        Args:
            nucleus_size: as in `Cell`.
            chromatin: as in `Cell`.

        Example:
            >>> [round(share, 3) for share in CellModel().probability(nucleus_size=1.0, chromatin=0.5)]
            [0.027, 0.523, 0.45]
        """
        severity = self.size_weight * nucleus_size + self.chromatin_weight * chromatin
        second, third = (float(expit((severity - limit) / self.reader_scale)) for limit in self.thresholds)
        return 1 - second, second - third, third

    def draw(self, rng: np.random.Generator) -> Cell:
        """Draw one cell.

        Args:
            rng: source of all randomness.

        Returns:
            Image, label, the probabilities that the label was drawn from, and what these depend on.
        """
        # cut off where a nucleus would vanish or fill its cell
        nucleus_size, chromatin = np.clip(rng.standard_normal(2), -2.5, 2.5).tolist()
        probability = self.probability(nucleus_size, chromatin)
        label = int(rng.choice(len(probability), p=probability))
        return Cell(self._image(rng, nucleus_size, chromatin), label, probability, nucleus_size, chromatin)

    def _image(self, rng: np.random.Generator, nucleus_size: float, chromatin: float) -> NDArray[np.uint8]:
        """Paint slide, cytoplasm and nucleus one over the other, then blur and add noise."""
        side = self.size * _OVERSAMPLING
        axis = (np.arange(side) - (side - 1) / 2) / _OVERSAMPLING
        y, x = np.meshgrid(axis, axis, indexing="ij")
        coarse, fine = (gaussian_random_field(rng, (side, side), [sd * _OVERSAMPLING] * 2) for sd in (6.0, 2.0))
        centre = rng.uniform(-3, 3, 2)

        image = np.array(_SLIDE) + 3 * coarse[..., None]
        stain = rng.beta(0.4, 0.4)
        colour = (1 - stain) * np.array(_CYTOPLASM[0]) + stain * np.array(_CYTOPLASM[1]) + rng.normal(0, 6, 3)
        thickness = rng.uniform(0.6, 0.85) * (1 + 0.10 * coarse + 0.05 * fine)
        cytoplasm = self._shape(rng, y - centre[0], x - centre[1], rng.uniform(21, 26), roughness=0.07)
        image = _paint(image, cytoplasm * np.clip(thickness, 0, 1), colour)

        radius = self.nucleus_radius + self.nucleus_radius_sd * nucleus_size
        offset = centre + rng.uniform(-2, 2, 2)
        nucleus = self._shape(rng, y - offset[0], x - offset[1], radius, roughness=0.03)
        darkness = expit(0.9 * chromatin)
        grain = gaussian_random_field(rng, (side, side), [(0.6 + 0.8 * darkness) * _OVERSAMPLING] * 2)
        shade = np.clip(darkness + (0.04 + 0.22 * darkness) * grain, 0, 1)[..., None]
        stained = (1 - shade) * np.array(_CHROMATIN[0]) + shade * np.array(_CHROMATIN[1]) + rng.normal(0, 4, 3)
        image = _paint(image, 0.95 * nucleus, stained)

        blurred = ndimage.gaussian_filter(image, [0.6 * _OVERSAMPLING, 0.6 * _OVERSAMPLING, 0])
        pixels = blurred.reshape(self.size, _OVERSAMPLING, self.size, _OVERSAMPLING, 3).mean((1, 3))
        pixels = pixels * rng.normal(1, 0.012, 3) + rng.normal(0, self.noise_sd, pixels.shape)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)

    def _shape(self, rng: np.random.Generator, y: Array, x: Array, radius: float, roughness: float) -> Array:
        """How much of each pixel a lumpy ellipse covers whose area is that of a circle."""
        angle, tilt = np.arctan2(y, x), rng.uniform(0, np.pi)
        stretch = rng.uniform(1, 1.25)
        ellipse = 1 / np.hypot(np.cos(angle - tilt) / np.sqrt(stretch), np.sin(angle - tilt) * np.sqrt(stretch))
        waves = sum(
            rng.normal(0, roughness) / order**0.5 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
            for order in range(2, 7)
        )
        return np.clip(radius * ellipse * (1 + waves) - np.hypot(x, y) + 0.5, 0, 1)


def _paint(image: Array, cover: Array, colour: Array) -> Array:
    return image + cover[..., None] * (colour - image)
