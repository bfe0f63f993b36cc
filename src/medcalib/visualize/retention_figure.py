"""Figure of right and wrong predictions across ranges of uncertainty."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from medcalib.metrics.retention import min_max, retained_accuracy
from medcalib.metrics.risk import ranked_pairs
from medcalib.visualize.style import plain_text

__all__ = ["draw_retention"]

# Inches: the text width of a two-column page.
WIDTH = 7.0
FONT_SIZE = 7.0
TITLE_SIZE = 8.0
# Okabe and Ito.
CORRECT_COLOR, WRONG_COLOR, KEPT_COLOR = "#0072b2", "#d55e00", "#8c8c8c"


@plain_text
def draw_retention(
    uncertainties: Mapping[str, ArrayLike],
    correct: ArrayLike,
    thresholds: Sequence[float] = (0.3, 0.6, 0.9),
    num_ranges: int = 10,
    title: str | None = None,
    width: float = WIDTH,
) -> Figure:
    """Right and wrong predictions across uncertainty, and how right those are that a threshold keeps.

    One column for each uncertainty, scaled to [0, 1] over the cases. Above, the share of the right and of the wrong
    predictions that lies in each range, so that both sets can be compared whatever their sizes: the further apart they
    lie, the better the uncertainty tells them apart. Below, against the threshold up to which predictions are kept, the
    accuracy of what is kept and the part of the cases that is; at the given thresholds the accuracy is written out.
    Cases without an uncertainty have no place above and are never kept; the title of a column says how many there are.

    Args:
        uncertainties: name: one number a case, (case,); NaN where unknown.
        correct: whether the case is right, booleans or 0 and 1, (case,).
        thresholds: in [0, 1].
        num_ranges: number of ranges.
        title: title of the figure.
        width: width of the figure in inches.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If there is no uncertainty, ``num_ranges`` is below 1, shapes differ or a value is infinite.

    Example:
        >>> figure = draw_retention({"entropy": [0.1, 0.2, 0.5, 0.6]}, [True, True, True, False], thresholds=[0.3])
        >>> [text.get_text() for text in figure.axes[1].texts]
        ['1.000']
    """
    if not uncertainties:
        raise ValueError("a figure needs at least one uncertainty.")
    if num_ranges < 1:
        raise ValueError(f"num_ranges must be at least 1, got {num_ranges}.")
    columns = len(uncertainties)
    # a single column may be as wide as a column of the page
    width = min(width, 0.9 + 1.9 * max(columns, 1.35))
    figure = Figure(figsize=(width, 3.3 + (0.2 if title else 0.0)), layout="constrained")
    grid = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False)
    letters = max(8, int(0.8 * width / columns * 72 / (0.55 * TITLE_SIZE)))
    for (above, below), (name, values) in zip(grid.T, uncertainties.items(), strict=True):
        values, right = ranked_pairs(values, correct)
        known = np.isfinite(values)
        scaled = min_max(values[known])
        for axes in (above, below):
            _dress(axes)
        heading = name.replace("_", " ") + ("" if known.all() else f" ({(~known).sum()} unknown)")
        above.set_title(textwrap.fill(heading, letters), fontsize=TITLE_SIZE, fontweight="bold")
        if np.isnan(scaled).any() or not scaled.size:
            note = "the same for all cases" if scaled.size else "no cases"
            above.text(0.5, 0.5, note, fontsize=FONT_SIZE, ha="center", transform=above.transAxes)
            continue
        _draw_shares(above, scaled, right[known], num_ranges)
        _draw_accuracy(below, np.where(known, values, np.nan), right, thresholds)
    grid[0, 0].set_ylabel("share of each set", fontsize=FONT_SIZE)
    grid[1, 0].set_ylabel("accuracy, part kept", fontsize=FONT_SIZE)
    grid[0, 0].set(ylim=(0, None))
    grid[1, 0].set(xlim=(0, 1), ylim=(0, 1.03), xticks=[0, *thresholds, 1])
    for below in grid[1]:
        below.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        below.set_xlabel("uncertainty, scaled", fontsize=FONT_SIZE)
    _add_legend(figure, grid, correct)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold")
    return figure


def _draw_shares(axes: Axes, scaled: NDArray, right: NDArray, num_ranges: int) -> None:
    edges = np.linspace(0, 1, num_ranges + 1)
    bar = 0.45 / num_ranges
    middle = edges[:-1] + 0.5 / num_ranges
    for chosen, place, color, label in (
        (right == 1, middle - bar / 2, CORRECT_COLOR, "right"),
        (right == 0, middle + bar / 2, WRONG_COLOR, "wrong"),
    ):
        counts = np.histogram(scaled[chosen], edges)[0]
        axes.bar(place, counts / max(counts.sum(), 1), width=bar, color=color, label=label)


def _draw_accuracy(axes: Axes, values: NDArray, right: NDArray, thresholds: Sequence[float]) -> None:
    scaled = min_max(values)
    steps = np.unique(np.append(scaled[~np.isnan(scaled)], 1.0))
    curve = retained_accuracy(values, right, steps.tolist())
    look: dict[str, Any] = {"drawstyle": "steps-post", "linewidth": 1.3}
    axes.plot(curve.threshold, curve.retained, color=KEPT_COLOR, linestyle=(0, (4, 1.2)), label="part kept", **look)
    axes.plot(curve.threshold, curve.accuracy, color=CORRECT_COLOR, label="accuracy of what is kept", **look)
    chosen = retained_accuracy(values, right, thresholds)
    axes.plot(chosen.threshold, chosen.accuracy, linestyle="none", marker="o", markersize=3.2, color=CORRECT_COLOR)
    for threshold, accuracy in zip(chosen.threshold, chosen.accuracy, strict=True):
        if not np.isnan(accuracy):
            axes.annotate(
                f"{accuracy:.3f}",
                (threshold, accuracy),
                xytext=(0, -9),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=FONT_SIZE,
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6},
            )


def _add_legend(figure: Figure, grid: NDArray, correct: ArrayLike) -> None:
    right = np.asarray(correct, dtype=float)
    numbers = {"right": int((right == 1).sum()), "wrong": int((right == 0).sum())}
    entries: dict[str, Artist] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(f"{label} ({numbers[label]})" if label in numbers else label, handle)
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=len(entries) if len(grid.T) > 1 else 2,
        fontsize=FONT_SIZE,
        frameon=False,
        borderpad=0.1,
    )


def _dress(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)
    axes.tick_params(labelsize=FONT_SIZE, length=2.5, width=0.6, pad=1.5)
