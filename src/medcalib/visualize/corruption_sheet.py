"""Images of one case at all levels of several corruptions, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from medcalib.visualize.style import plain_text

__all__ = ["draw_corruption_sheet"]

# inches
_PANEL, _LEFT, _TOP = 1.1, 0.28, 0.3
# of a row, whose name is written upwards
_LEAST = 0.75
_FONT_SIZE = 8.0
# of the image as it is, which are shown black and white in all panels
_WINDOW = (0.5, 99.5)


@plain_text
def draw_corruption_sheet(
    sheets: Mapping[str, Sequence[ArrayLike]], origin: str = "lower", sides: tuple[float, float] = (1.0, 1.0)
) -> Figure:
    """Draw a row for each corruption and a column for each level, all on the grey scale of the image as it is.

    Args:
        sheets: by name of the corruption, slices (x, y), or colours (x, y, 3), of the levels 0 (as it is), 1, 2, ...
        origin: ``lower`` of volumes, ``upper`` of pictures.
        sides: of a voxel along x and y.

    Returns:
        A figure that belongs to no window and needs no closing.

    Example:
        >>> figure = draw_corruption_sheet({"noise": [np.eye(4), np.eye(4) / 2], "blur": [np.eye(4), np.eye(4) / 3]})
        >>> len(figure.axes)
        4
    """
    rows, columns = len(sheets), max(map(len, sheets.values()))
    plain = np.asarray(next(iter(sheets.values()))[0], dtype=float)
    shape = plain.shape[1] * sides[1] / (plain.shape[0] * sides[0])
    size = (_LEFT + columns * _PANEL, _TOP + rows * max(_PANEL * shape, _LEAST))
    figure = Figure(figsize=size)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=_LEFT / size[0], right=0.995, bottom=0.005, top=1 - _TOP / size[1], wspace=0.03, hspace=0.03
    )
    low, high = np.percentile(plain, _WINDOW)
    for line, (name, slices) in zip(grid, sheets.items(), strict=True):
        for level, axes in enumerate(line):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if level >= len(slices):
                continue
            values = np.clip((np.asarray(slices[level], dtype=float) - low) / max(high - low, 1e-12), 0, 1)
            axes.imshow(
                np.swapaxes(values, 0, 1), cmap="gray", vmin=0, vmax=1, origin=origin, aspect=sides[1] / sides[0],
                interpolation="nearest",
            )  # fmt: skip
        line[0].set_ylabel(name.replace("_", " "), fontsize=_FONT_SIZE, labelpad=3)
    for level, axes in enumerate(grid[0]):
        axes.set_title("as it is" if level == 0 else f"level {level}", fontsize=_FONT_SIZE, pad=4)
    return figure
