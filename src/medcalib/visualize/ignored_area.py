"""Mark where the truth of an image is unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

__all__ = ["draw_ignored", "ignored_entry"]

_LOOK: dict[str, Any] = {"hatch": "////", "edgecolor": "#d9d9d9", "linewidth": 0.0}
_VEIL = (0.5, 0.5, 0.5, 0.35)


def draw_ignored(axes: Axes, mask: NDArray[np.bool_], spacing: tuple[float, float]) -> None:
    """Hatch the pixels of unknown truth.

    Args:
        axes: shows the image from 0 to its size in mm.
        mask: (right, up).
        spacing: size of a pixel in mm, to the right and upwards.
    """
    if not mask.any():
        return
    x, y = ((np.arange(-1, n + 1) + 0.5) * mm for n, mm in zip(mask.shape, spacing, strict=True))
    area = axes.contourf(
        x, y, np.pad(mask, 1).T.astype(float), levels=[0.5, 1.5], colors=[_VEIL], hatches=[_LOOK["hatch"]], zorder=1
    )
    area.set(edgecolor=_LOOK["edgecolor"], linewidth=_LOOK["linewidth"])


def ignored_entry() -> Artist:
    """What a legend shows for it."""
    return Patch(facecolor="#808080", label="to be ignored", **_LOOK)
