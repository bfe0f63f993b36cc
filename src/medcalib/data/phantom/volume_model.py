"""The phantom's model: shapes, annotators with a known spread, and the scan of it all.

An organ, and in most cases a lesion inside it, have a latent boundary given by its signed distance ``d`` (mm, negative
inside). An annotator draws the contour where ``d`` equals their displacement, a Gaussian random field with mean 0 and a
known standard deviation ``s``. A voxel is therefore lesion with probability ``Phi(-d_lesion / s_lesion)`` and, where it
is not, organ with probability ``Phi(-d_organ / s_organ)``. The field is correlated over a few voxels only: the contour
wobbles like a human one, and a single case still holds many nearly independent draws.

These probabilities are those of an annotator who sees the latent boundary. The scan blurs it and adds noise, so that it
leaves open where the boundary lies: the best prediction that can be made of the image alone is the mean of the true
probabilities over all boundaries that fit the image, which differs from them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtr

__all__ = ["CLASS_NAMES", "PhantomModel", "PhantomVolumes", "gaussian_random_field"]

CLASS_NAMES = ("background", "organ", "lesion")

Array = NDArray[np.floating]


@dataclass(frozen=True)
class PhantomModel:
    """Parameters of the phantom; lengths and distances in mm.

    Example:
        >>> volumes = PhantomModel().draw(np.random.default_rng(0), with_lesion=True)
        >>> volumes.probability.shape == (*volumes.label.shape, 3)
        True
    """

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.5)
    """Voxel size along the right, anterior and superior axis."""
    in_plane_size: tuple[int, int] = (40, 48)
    """Smallest and largest number of voxels along each of the first two axes."""
    num_slices: tuple[int, int] = (32, 36)
    """Smallest and largest number of voxels along the third axis."""
    organ_radius: tuple[float, float] = (13.0, 16.0)
    """Smallest and largest semi-axis of the organ."""
    lesion_radius: tuple[float, float] = (6.0, 8.0)
    """Smallest and largest semi-axis of a lesion."""
    organ_annotator_sd: float = 0.65
    """Standard deviation of the drawn organ contour around the latent one."""
    lesion_annotator_sd: float = 0.4
    """Standard deviation of the drawn lesion contour around the latent one."""
    annotator_smoothness: float = 1.2
    """Standard deviation of the Gaussian kernel that smooths the annotators' displacement."""
    tissue_intensity: tuple[float, float, float] = (100.0, 200.0, 290.0)
    """Mean intensity of background, organ and lesion."""
    tissue_intensity_sd: float = 12.0
    """Standard deviation of a tissue's intensity over cases."""
    texture_sd: float = 12.0
    """Standard deviation of the smooth texture within tissues."""
    noise_sd: float = 20.0
    """Standard deviation of the white noise of the scan."""
    bias_field_sd: float = 0.08
    """Standard deviation of the logarithm of the multiplicative bias field."""
    ghost_share: float = 0.0
    """Part of the signal that motion moves to ghosts."""

    def draw(self, rng: np.random.Generator, with_lesion: bool) -> "PhantomVolumes":
        """Draw one case on a grid whose axes point right, anterior and superior.

        Args:
            rng: source of all randomness.
            with_lesion: whether the organ has a lesion.

        Returns:
            Image, label and the class probabilities the label was drawn from.
        """
        organ_distance, lesion_distance = self.bodies(rng, with_lesion)
        shape = organ_distance.shape
        organ_contour, lesion_contour = (
            sd * self.field(rng, shape, self.annotator_smoothness)
            for sd in (self.organ_annotator_sd, self.lesion_annotator_sd)
        )
        label = np.where(lesion_distance < lesion_contour, 2, np.where(organ_distance < organ_contour, 1, 0))
        lesion = ndtr(-lesion_distance / self.lesion_annotator_sd)
        organ = (1 - lesion) * ndtr(-organ_distance / self.organ_annotator_sd)
        background = (1 - lesion) * ndtr(organ_distance / self.organ_annotator_sd)
        return PhantomVolumes(
            image=np.round(self.scan(rng, organ_distance, lesion_distance)).astype(np.int16),
            label=label.astype(np.uint8),
            probability=np.stack([background, organ, lesion], axis=-1).astype(np.float32),
        )

    def bodies(self, rng: np.random.Generator, with_lesion: bool) -> tuple[Array, Array]:
        """Draw the latent shapes of a case on a grid of its own.

        Args:
            rng: source of all randomness.
            with_lesion: whether the organ has a lesion.

        Returns:
            Signed distances (X, Y, Z) in mm, negative inside, to the boundaries of organ and lesion.
        """
        shape = (
            int(rng.integers(self.in_plane_size[0], self.in_plane_size[1] + 1)),
            int(rng.integers(self.in_plane_size[0], self.in_plane_size[1] + 1)),
            int(rng.integers(self.num_slices[0], self.num_slices[1] + 1)),
        )
        axes = [(np.arange(size) - (size - 1) / 2) * step for size, step in zip(shape, self.spacing, strict=True)]
        position = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

        organ_centre = rng.uniform(-2, 2, 3)
        organ_distance = self._body(rng, position - organ_centre, self.organ_radius, roughness=1.2)
        lesion_distance = np.full(shape, np.inf)
        if with_lesion:
            direction = rng.normal(size=3)
            lesion_centre = organ_centre + direction / np.linalg.norm(direction) * rng.uniform(2, 6)
            lesion_distance = self._body(rng, position - lesion_centre, self.lesion_radius, roughness=0.8)
        return organ_distance, lesion_distance

    def field(self, rng: np.random.Generator, shape: tuple[int, ...], smoothness: float) -> Array:
        """Draw a random field with variance 1 that is correlated over so many mm."""
        return gaussian_random_field(rng, shape, [smoothness / step for step in self.spacing])

    def _body(self, rng: np.random.Generator, offset: Array, radius: tuple[float, float], roughness: float) -> Array:
        """Signed distance to a lumpy, tilted ellipsoid, to first order, for offsets (X, Y, Z, 3) from its centre."""
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        semi_axes = rng.uniform(*radius, size=3)
        mean_radius = float(np.mean(semi_axes))
        level = mean_radius * (np.linalg.norm(offset @ rotation / semi_axes, axis=-1) - 1)
        level += roughness * self.field(rng, level.shape, smoothness=mean_radius / 3)
        slope = np.linalg.norm(np.gradient(level, *self.spacing), axis=0)
        return level / np.maximum(slope, 0.3)

    def scan(self, rng: np.random.Generator, organ_distance: Array, lesion_distance: Array) -> Array:
        """Simulate the scan of the latent shapes, which the annotators' displacement does not touch."""
        intensities = [rng.normal(mean, self.tissue_intensity_sd) for mean in self.tissue_intensity]
        # A voxel on the boundary holds some of either tissue; half a voxel to each side it holds only one.
        width = float(np.mean(self.spacing)) / 2
        in_organ, in_lesion = (
            np.clip(0.5 - distance / (2 * width), 0, 1) for distance in (organ_distance, lesion_distance)
        )
        tissue = intensities[0] + in_organ * (intensities[1] - intensities[0])
        tissue += in_lesion * (intensities[2] - tissue)
        tissue += self.texture_sd * self.field(rng, tissue.shape, smoothness=2.0)
        blurred = ndimage.gaussian_filter(tissue, [0.7 / step for step in self.spacing])
        bias = np.exp(self.bias_field_sd * self.field(rng, tissue.shape, smoothness=15.0))
        signal = blurred * bias
        # without ghosts nothing is drawn for them, so that such a case is the same as ever
        if self.ghost_share > 0:
            signal = self._with_ghosts(rng, signal)
        return signal + rng.normal(0, self.noise_sd, tissue.shape)

    def _with_ghosts(self, rng: np.random.Generator, signal: Array) -> Array:
        """Copies to both sides along one axis of the plane, which wrap around, as of periodic motion in MRI."""
        axis = int(rng.integers(2))
        step = signal.shape[axis] // int(rng.integers(2, 5))
        ghosts = (np.roll(signal, step, axis) + np.roll(signal, -step, axis)) / 2
        return signal + self.ghost_share * (ghosts - signal)


@dataclass(frozen=True)
class PhantomVolumes:
    """The arrays of one case."""

    image: NDArray[np.int16]
    """(X, Y, Z) intensities."""
    label: NDArray[np.uint8]
    """(X, Y, Z) indices into `CLASS_NAMES`."""
    probability: NDArray[np.float32]
    """(X, Y, Z, class) probabilities that `label` was drawn from."""


def gaussian_random_field(rng: np.random.Generator, shape: tuple[int, ...], smoothness: list[float]) -> Array:
    """Draw a stationary Gaussian random field with mean 0 and variance 1 at every voxel.

    White noise is smoothed by a Gaussian kernel on the torus, so no voxel lies at a border and the variance is exact.

    Args:
        rng: source of randomness.
        shape: number of voxels along each axis.
        smoothness: standard deviation of the kernel along each axis, in voxels.

    Returns:
        The field, of the given shape.

    Example:
        >>> field = gaussian_random_field(np.random.default_rng(0), (64, 64), [1.0, 1.0])
        >>> bool(abs(field.std() - 1) < 0.1)
        True
    """
    gains = [np.exp(-2 * (np.pi * sd * np.fft.fftfreq(size)) ** 2) for size, sd in zip(shape, smoothness, strict=True)]
    gain = gains[0]
    for axis_gain in gains[1:]:
        gain = np.multiply.outer(gain, axis_gain)
    spectrum = np.fft.fftn(rng.standard_normal(shape)) * gain
    return np.fft.ifftn(spectrum).real / np.sqrt(np.mean(gain**2))
