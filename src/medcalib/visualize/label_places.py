"""Places for the names of points, so that none covers another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from numpy.typing import ArrayLike, NDArray

__all__ = ["place_labels"]

Array = NDArray[np.float64]

# Points of 1/72 inch: gap between marker and label, room around a label, largest distance that is tried.
GAP, ROOM, FARTHEST = 2.0, 1.0, 100.0
DIRECTIONS = 32
# What a label pays, in points of distance: for each line behind it, each marker that its leader passes over, each
# leader that crosses a label, and a leader along an axis, which would be taken for an arm of a cross.
LINE_COST, MARKER_COST, CROSSING_COST, PARALLEL_COST = 12.0, 15.0, 200.0, 20.0


def place_labels(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    labels: Mapping[int, str],
    lines: ArrayLike = (),
    font_size: float = 7.0,
    marker_size: float = 4.0,
) -> list[Annotation]:
    """Write names beside points where they are free of markers and of each other; thin lines lead from far ones.

    Of the free places within the axes each takes the cheapest: near, on few lines, and with no marker on the way. Call
    it when nothing else of the figure changes any more.

    Args:
        axes: the axes, of which limits and everything else are final.
        x: horizontal place of every point, (point,); points with NaN are not there.
        y: vertical place of every point, (point,).
        labels: the name of those points that have one, by their place in ``x``; the first ones choose first.
        lines: segments that are better not written on, (line, end, 2), in the units of the data.
        font_size: of the names, in points.
        marker_size: of the points, in points.

    Returns:
        The names, without those for which there is no room.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure(figsize=(3, 2)).subplots()
        >>> _ = axes.plot([0, 1], [0, 1], "o")
        >>> [name.get_text() for name in place_labels(axes, [0, 1], [0, 1], {0: "a", 1: "b"})]
        ['a', 'b']
    """
    axes.figure.draw_without_rendering()
    scale = axes.figure.dpi / 72
    frame = axes.get_window_extent().get_points() / scale
    points = axes.transData.transform(np.stack([np.asarray(x, float), np.asarray(y, float)], 1)) / scale
    behind = axes.transData.transform(np.reshape(np.asarray(lines, float), (-1, 2))).reshape(-1, 2, 2) / scale
    known = ~np.isnan(points).any(1)
    markers = points[known]
    names = np.empty((0, 2, 2))
    leaders = np.empty((0, 2, 2))
    placed = []
    style = {"fontsize": font_size, "ha": "center", "va": "center", "zorder": 4}
    for index, text in labels.items():
        if not known[index]:
            continue
        trial = axes.text(x[index], y[index], text, in_layout=False, **style)
        half = trial.get_window_extent().size / scale / 2 + ROOM
        trial.remove()
        point = points[index]
        centres, distances = _candidates(point, half, marker_size / 2 + GAP)
        ends = np.clip(point, centres - half, centres + half)
        ways = np.stack([np.broadcast_to(point, ends.shape), ends], 1)
        far = distances > marker_size / 2 + GAP + 1
        boxes = np.stack([centres - half, centres + half], 1)
        own = np.abs(markers - point).max(1) < 1e-9
        impossible = (
            (boxes[:, 0] < frame[0]).any(1)
            | (boxes[:, 1] > frame[1]).any(1)
            | _touch(boxes, _around(markers, marker_size / 2)).any(1)
            | _touch(boxes, names).any(1)
        )
        cost = (
            distances
            + LINE_COST * _crosses(behind, boxes).sum(0)
            + MARKER_COST * far * _crosses(ways, _around(markers[~own], marker_size / 2)).sum(1)
            + CROSSING_COST * (_crosses(leaders, boxes).sum(0) + far * _crosses(ways, names).sum(1))
            + PARALLEL_COST * far * (np.abs(ends - point).min(1) < marker_size)
        )
        if impossible.all():
            continue
        best = np.where(impossible, np.inf, cost).argmin()
        placed.append(
            axes.annotate(
                text,
                (x[index], y[index]),
                xytext=centres[best] - point,
                textcoords="offset points",
                # else the layout would make room for it
                in_layout=False,
                arrowprops=_leader((ends[best] - boxes[best, 0]) / half / 2, marker_size) if far[best] else None,
                **style,
            )
        )
        names = np.concatenate([names, boxes[best : best + 1]])
        if far[best]:
            leaders = np.concatenate([leaders, ways[best : best + 1]])
    return placed


def _candidates(point: Array, half: Array, nearest: float) -> tuple[Array, Array]:
    """Centres (candidate, 2) of boxes around a point and how far their borders are away from it, (candidate,)."""
    distance, angle = np.meshgrid(
        np.arange(nearest, nearest + FARTHEST, 2.0), np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS, indexing="ij"
    )
    towards = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(-1, 2)
    # out to the border of the box, whose nearest point may be a corner
    with np.errstate(divide="ignore"):
        inside = (half / np.abs(towards)).min(1)
    centres = point + towards * (distance.ravel() + inside)[:, None]
    return centres, np.linalg.norm(np.clip(point, centres - half, centres + half) - point, axis=1)


def _around(centres: Array, half: float) -> Array:
    """Boxes (box, corner, 2) around points."""
    return np.stack([centres - half, centres + half], 1)


def _touch(boxes: Array, others: Array) -> NDArray[np.bool_]:
    """Whether boxes overlap, (box, other)."""
    return ((boxes[:, None, 0] < others[None, :, 1]) & (others[None, :, 0] < boxes[:, None, 1])).all(-1)


def _crosses(lines: Array, boxes: Array) -> NDArray[np.bool_]:
    """Whether segments touch boxes, (line, box): no axis separates the two."""
    centre, half = (boxes[:, 1] + boxes[:, 0]) / 2, (boxes[:, 1] - boxes[:, 0]) / 2
    middle, reach = (lines[:, 1] + lines[:, 0]) / 2, np.abs(lines[:, 1] - lines[:, 0]) / 2
    apart = middle[:, None] - centre
    along = lines[:, 1] - lines[:, 0]
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    across = np.abs((normal[:, None] * apart).sum(-1)) <= (np.abs(normal)[:, None] * half).sum(-1)
    return (np.abs(apart) <= reach[:, None] + half).all(-1) & across


def _leader(begin: Array, marker_size: float) -> dict[str, object]:
    """A line from a place in the box of the label, in parts of its size, to the border of the marker."""
    return {
        "arrowstyle": "-",
        "linewidth": 0.4,
        "color": "0.3",
        "relpos": tuple(begin),
        "shrinkA": 0,
        "shrinkB": marker_size / 2,
    }
