"""Calibration against accuracy: one point a method."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from medcalib.visualize.quality_control_figure import COLORS, COLUMN_WIDTH, FONT_SIZE, TITLE_SIZE
from medcalib.visualize.style import legend_label, plain_text

__all__ = ["draw_calibration_scatter"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
MARKER_SIZE = 4.0
FRONT: dict[str, Any] = {"color": "#8c8c8c", "linewidth": 1.0, "linestyle": (0, (3, 1.5)), "zorder": 1.5}


@plain_text
def draw_calibration_scatter(
    names: Sequence[str],
    ece: ArrayLike,
    dice: ArrayLike,
    ece_intervals: ArrayLike | None = None,
    dice_intervals: ArrayLike | None = None,
    front: ArrayLike | None = None,
    groups: Sequence[str] | None = None,
    ece_label: str = "ECE (lower is better)",
    dice_label: str = "Dice (higher is better)",
    title: str | None = None,
    width: float = COLUMN_WIDTH,
) -> Figure:
    """Calibration error against Dice, one point a method, with the front of those that none beats.

    As figure 1 of https://arxiv.org/abs/2010.14290. Points on the front are filled, and a stepped line bounds what they
    beat. Without groups every point carries its name. With groups, such as the losses of the trainings, colours tell
    the groups apart and markers the names, a legend explains them, and only points on the front are labelled.

    Args:
        names: name of each method, (point,).
        ece: calibration error of each, (point,); NaN leaves the point out.
        dice: Dice coefficient of each, (point,).
        ece_intervals: lower and upper end of the interval of each calibration error, (point, 2), drawn as one arm of a
            cross; none where NaN.
        dice_intervals: the same of the Dice coefficients.
        front: whether each point is on the front, (point,), as ``medcalib.compare.pareto_front`` says; no front is
            drawn if None.
        groups: group of each point, (point,).
        ece_label: what the horizontal axis shows.
        dice_label: what the vertical axis shows.
        title: title of the figure.
        width: width of the figure in inches.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If there is no point, or shapes differ.

    Example:
        >>> figure = draw_calibration_scatter(["plain", "tempered"], [0.03, 0.01], [0.9, 0.9], front=[False, True])
        >>> sorted(text.get_text() for text in figure.axes[0].texts)
        ['plain', 'tempered']
    """
    x, y = np.asarray(ece, dtype=float), np.asarray(dice, dtype=float)
    count = len(names)
    if not count or x.shape != (count,) or y.shape != (count,):
        raise ValueError(f"names, ece and dice must hold one value a point, got {count}, {x.shape} and {y.shape}.")
    x_arms, y_arms = (_arms(ends, values) for ends, values in ((ece_intervals, x), (dice_intervals, y)))
    on_front = np.zeros(count, dtype=bool) if front is None else np.asarray(front, dtype=bool)
    of_group = [""] * count if groups is None else list(groups)
    if on_front.shape != (count,) or len(of_group) != count:
        raise ValueError(f"front and groups must hold one value a point, got {on_front.shape} and {len(of_group)}.")

    figure = Figure(figsize=(width, 0.78 * width), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)
    axes.tick_params(labelsize=FONT_SIZE, length=2.5, width=0.6, pad=1.5)
    axes.set_xlabel(ece_label, fontsize=FONT_SIZE)
    axes.set_ylabel(dice_label, fontsize=FONT_SIZE)
    colors = dict(zip(dict.fromkeys(of_group), itertools.cycle(COLORS), strict=False))
    markers = dict.fromkeys(names, "o") if groups is None else dict(zip(dict.fromkeys(names), itertools.cycle(MARKERS)))
    for place in range(count):
        color = colors[of_group[place]]
        axes.errorbar(
            x[place],
            y[place],
            xerr=x_arms[place][:, None],
            yerr=y_arms[place][:, None],
            color=color,
            marker=markers[names[place]],
            markersize=MARKER_SIZE,
            markerfacecolor=color if on_front[place] else "white",
            markeredgewidth=0.8,
            elinewidth=0.6,
            ecolor=(color, 0.45),
        )
    axes.margins(0.08)
    axes.autoscale_view()
    axes.locator_params(nbins=5)
    if on_front.any():
        _draw_front(axes, x[on_front], y[on_front])
    if groups is not None or on_front.any():
        shown = (colors, markers) if groups is not None else ({}, {})
        _legend(figure, *shown, bool(on_front.any()))
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold")
    known = ~np.isnan(x) & ~np.isnan(y)
    named = np.flatnonzero(known & (on_front if groups is not None else True)).tolist()
    texts = [axes.text(x[place], y[place], names[place].replace("_", " "), fontsize=FONT_SIZE) for place in named]
    # in the axes as they will be
    figure.draw_without_rendering()
    adjust_text(
        texts,
        x[known],
        y[known],
        ax=axes,
        target_x=x[named],
        target_y=y[named],
        iter_lim=500,
        expand=(1.2, 1.7),
        arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.3"},
    )
    return figure


def _arms(ends: ArrayLike | None, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of the arms below and above each value, (point, 2); 0 where there is none."""
    if ends is None:
        return np.zeros((len(values), 2))
    ends = np.asarray(ends, dtype=float)
    if ends.shape != (len(values), 2):
        raise ValueError(f"intervals must hold two ends a point, ({len(values)}, 2), got {ends.shape}.")
    # a BCa interval may leave its estimate out
    return np.nan_to_num(np.maximum(np.abs(ends - values[:, None]) * (np.sign(ends - values[:, None]) == [-1, 1]), 0.0))


def _draw_front(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Draw the stepped border between what the front beats and what it does not."""
    order = np.lexsort((y, x))
    limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
    corners = [(x[order[0]], limits["ylim"][0])]
    for place in order:
        corners += [(x[place], corners[-1][1]), (x[place], y[place])]
    corners.append((limits["xlim"][1], corners[-1][1]))
    axes.plot(*zip(*corners, strict=True), **FRONT)
    axes.set(**limits)


def _legend(figure: Figure, colors: dict[str, str], markers: dict[str, str], front: bool) -> None:
    """Groups and names below the axes, in as many columns as fit."""
    dot: dict[str, Any] = {"linestyle": "none", "markersize": MARKER_SIZE, "markeredgewidth": 0.8}
    handles = [
        Line2D([], [], color=color, marker="o", label=legend_label(str(group)), **dot)
        for group, color in colors.items()
    ]
    handles += [
        Line2D([], [], color="black", markerfacecolor="white", marker=marker, label=legend_label(str(name)), **dot)
        for name, marker in markers.items()
    ]
    if front:
        handles.append(Line2D([], [], label="Pareto front (filled)", **FRONT))
    for handle in handles:
        handle.set_label(str(handle.get_label()).replace("_", " "))
    width, height = figure.get_size_inches()
    letters = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(width * 72 / (0.52 * FONT_SIZE * letters + 18)))
    rows = -(-len(handles) // columns)
    figure.set_size_inches(width, height + 1.35 * rows * FONT_SIZE / 72)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        fontsize=FONT_SIZE,
        frameon=False,
        handlelength=1.8,
        handletextpad=0.4,
        columnspacing=0.9,
        borderpad=0.1,
        labelspacing=0.25,
    )
