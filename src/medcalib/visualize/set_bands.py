"""Bands from the inner to the outer set of a class, which a guarantee gives, around its outline."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Patch
from numpy.typing import NDArray

from medcalib.visualize.slices import CaseSlice

__all__ = ["band_colors", "band_entry", "set_band"]

# so that outlines of the same colour stand out
OPACITY = 0.33
WORDS = {
    (True, True): "inner to outer set",
    (False, True): "added by the outer set",
    (True, False): "not in the inner set",
}


def set_band(cut: CaseSlice, number: int) -> NDArray[np.bool_] | None:
    """Pixels of a class that are in its outer but not in its inner set, (right, up); None where there are none.

    The prediction stands for a set that is not given.

    Args:
        cut: the slice.
        number: of the class, 1 for the first one of the sets.

    Example:
        >>> prediction = np.array([[1, 1, 0, 0]])
        >>> cut = CaseSlice(prediction, prediction, prediction, None, (1, 1), "", None, outer=prediction[None] >= 0)
        >>> set_band(cut, 1)
        array([[False, False,  True,  True]])
    """
    if cut.inner is None and cut.outer is None:
        return None
    predicted = cut.prediction == number
    within = predicted if cut.inner is None else cut.inner[number - 1]
    around = predicted if cut.outer is None else cut.outer[number - 1]
    band = around & ~within
    return band if band.any() else None


def band_colors(band: NDArray[np.bool_], color: tuple[float, float, float]) -> NDArray[np.float64]:
    """A band as a picture (up, right, 4) in red, green, blue and opacity."""
    colors = np.zeros((*band.T.shape, 4))
    colors[..., :3], colors[..., 3] = color, OPACITY * band.T
    return colors


def band_entry(cut: CaseSlice) -> Patch:
    """The entry of a legend."""
    label = WORDS[cut.inner is not None, cut.outer is not None]
    return Patch(facecolor="black", alpha=OPACITY, linewidth=0, label=label)
