"""The batch that a network is given: images with the outlines of their labels, or with the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from medcalib.keys import IGNORED
from medcalib.visualize.ignored_area import draw_ignored, ignored_entry
from medcalib.visualize.overlay import class_color, draw_outline
from medcalib.visualize.slices import CaseSlice, case_slice
from medcalib.visualize.style import legend_label, plain_text

__all__ = ["draw_batch_preview"]

Array = NDArray[Any]

# Inches: a page between its margins, and the parts of it.
PAGE_WIDTH, NARROWEST_PAGE = 7.0, 3.35
WIDEST, HIGHEST = 2.2, 2.6
FONT_SIZE = 7.0
LINE = 1.35 / 72
OUTLINE = {"linewidth": 1.0}
# Inches that a letter takes on average.
LETTER = 0.6 * FONT_SIZE / 72


@plain_text
def draw_batch_preview(
    images: ArrayLike,
    labels: ArrayLike,
    cases: Sequence[str],
    *,
    class_names: Sequence[str],
    channel_names: Sequence[str],
    spacing: Sequence[float] | None = None,
    max_panels: int = 16,
    window: tuple[float, float] = (0.5, 99.5),
) -> Figure:
    r"""Draw the images of a batch with what is to be predicted.

    Of a volume the slice that shows the most classes, and of these the one with the most foreground, is drawn, across
    the axis with the coarsest spacing, the first axis to the right and the second one upwards; an image of two axes is
    drawn whole, its second axis downwards. Three channels of an image of two axes are colours; of other images each
    channel has a column. A channel has one scale of grey levels for all images, so that those that augmentation made
    brighter are brighter.

    Args:
        images: (B, C, ...) with two or three spatial axes.
        labels: label maps (B, 1, ...); or channels of 0 and 1 (B, label, ...), of which the last one that is set is
            shown; or the classes of whole images, (B, 1). Where they are below 0, they are unknown, and hatched.
        cases: name of each image, (B,).
        class_names: name of every class; where the labels are channels, of every channel.
        channel_names: name of every channel of the images.
        spacing: voxel size in mm along each axis; 1 by default.
        max_panels: how many pictures there are at most; the first images are shown.
        window: percentiles of the batch that are shown black and white.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If shapes, labels or names do not fit each other.

    Example:
        >>> labels = np.zeros((2, 1, 8, 9, 5), dtype=int)
        >>> labels[:, :, 2:5, 3:6, 3] = 1
        >>> images, names = np.random.rand(2, 1, 8, 9, 5), ["background", "liver"]
        >>> figure = draw_batch_preview(images, labels, ["a", "b"], class_names=names, channel_names=["CT"])
        >>> figure.axes[0].get_title("left")
        'a\nslice 4 of 5'
    """
    images, labels = np.asarray(images, dtype=np.float32), np.asarray(labels)
    names = [str(name) for name in class_names]
    _check(images, labels, cases, channel_names)
    flat = images.ndim == 4
    rgb = flat and images.shape[1] == 3
    channels = [0] if rgb else list(range(images.shape[1]))
    number = min(len(images), max(1, max_panels // len(channels)))
    windows = [_window(images, window)] if rgb else [_window(images[:, channel], window) for channel in channels]

    is_class = labels.ndim == 2
    if is_class:
        maps = np.zeros((len(images), *images.shape[2:]), dtype=int)
        numbers = labels[:, 0]
    else:
        maps, names = _label_maps(labels, names)
        numbers = np.where(maps == IGNORED, 0, maps)
    if numbers.min() < 0 or numbers.max() >= len(names):
        raise ValueError(f"labels must lie between 0 and {len(names) - 1}, got {np.unique(numbers).tolist()}.")
    classes = [int(n) for n in np.unique(maps[:number]) if n > 0]

    cuts = [
        [_cut(image, labelled, channel, spacing, rgb) for channel in channels]
        for image, labelled in zip(images[:number], maps, strict=False)
    ]
    headings = [str(case) for case in cases[:number]]
    if is_class:
        headings = [f"{case}\n{names[int(n)]}" for case, n in zip(headings, numbers, strict=False)]
    elif not flat:
        headings = [f"{case}\n{cut[0].name}" for case, cut in zip(headings, cuts, strict=True)]
    shown = "colours" if rgb else None
    notes = [
        f"{shown or channel_names[channel]}: {low:.3g} (black) to {high:.3g} (white)"
        for channel, (low, high) in zip(channels, windows, strict=True)
    ]
    entries: list[Any] = [
        Line2D([], [], color=class_color(n), linewidth=2.4, label=legend_label(names[n])) for n in classes
    ]
    if not is_class and (maps[:number] < 0).any():
        entries.append(ignored_entry())
    figure, grid, room = _page(cuts, 1 + ("\n" in headings[0]), entries, notes)
    for axes_of_image, cut_of_image, heading in zip(grid, cuts, headings, strict=True):
        for axes, cut, (low, high) in zip(axes_of_image, cut_of_image, windows, strict=True):
            _show(axes, cut, low, high, flat)
            draw_ignored(axes, cut.prediction < 0, cut.spacing)
            for n in classes:
                draw_outline(axes, cut.prediction == n, cut.spacing, class_color(n), **OUTLINE)
        axes_of_image[0].set_title(_shortened(heading, room), fontsize=FONT_SIZE, pad=3, loc="left")
        if len(channels) > 1:
            for axes, name in zip(axes_of_image, channel_names, strict=True):
                _name(axes, str(name))
    return figure


def _check(images: Array, labels: Array, cases: Sequence[str], channel_names: Sequence[str]) -> None:
    if images.ndim not in (4, 5) or not images.size:
        raise ValueError(f"images must have shape (B, C, ...) with two or three spatial axes, got {images.shape}.")
    if not len(images) == len(labels) == len(cases):
        raise ValueError(f"{len(images)} images need as many labels and names, not {len(labels)} and {len(cases)}.")
    if images.shape[1] != len(channel_names):
        raise ValueError(f"{images.shape[1]} channels need as many names, not {len(channel_names)}.")
    if labels.ndim != 2 and labels.shape[2:] != images.shape[2:]:
        raise ValueError(f"labels must have the spatial shape of the images {images.shape}, got {labels.shape}.")


def _label_maps(labels: Array, names: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Label maps (B, ...), and the names of their values."""
    if labels.shape[1] == 1 and len(names) > 1:
        return labels[:, 0].astype(int), names
    numbers = np.arange(1, labels.shape[1] + 1).reshape(-1, *[1] * (labels.ndim - 2))
    maps = ((labels > 0) * numbers).max(axis=1)
    return np.where((labels < 0).any(axis=1), IGNORED, maps), ["", *names]


def _window(values: Array, percentiles: tuple[float, float]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, percentiles) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _cut(image: Array, labelled: Array, channel: int, spacing: Sequence[float] | None, rgb: bool) -> CaseSlice:
    sizes = np.ones(labelled.ndim) if spacing is None else np.asarray(spacing, dtype=float)
    axis = int(np.flatnonzero(sizes >= 0.99 * sizes.max())[-1])
    shown = np.zeros(labelled.shape, dtype=bool)
    if labelled.ndim == 3:
        slices, chosen = np.moveaxis(labelled, axis, 0), np.moveaxis(shown, axis, 0)
        number_of_classes = np.array([len(np.unique(one[one > 0])) for one in slices])
        most = number_of_classes == number_of_classes.max()
        chosen[most] = slices[most] > 0
    return case_slice(image, labelled, shown, shown, spacing=sizes.tolist(), axis=axis, channel=channel, rgb=rgb)


def _page(
    cuts: Sequence[Sequence[CaseSlice]], lines: int, entries: Sequence[Any], notes: Sequence[str]
) -> tuple[Figure, list[list[Axes]], float]:
    """A figure with axes for every channel of every image, and what is said below them; the inches of a place."""
    cut, channels = cuts[0][0], len(cuts[0])
    across, up = (n * mm for n, mm in zip(cut.prediction.shape, cut.spacing, strict=True))
    beside = min(len(cuts), max(1, (4 if len(cuts) <= 8 else 6) // channels))  # images in one row
    rows = -(-len(cuts) // beside)
    wide = min(PAGE_WIDTH / (beside * channels) - 0.1, WIDEST)
    high = min(wide * up / across, HIGHEST)
    page = max(beside * channels * (wide + 0.1), NARROWEST_PAGE)
    texts = _wrapped(notes, page - 0.2)
    longest = max((len(str(entry.get_label())) for entry in entries), default=1)
    in_a_row = max(1, int(page / (LETTER * longest + 0.5)))
    foot = len(texts) + -(-len(entries) // in_a_row) + 1
    total = rows * (high + (lines + 1) * FONT_SIZE * LINE) + foot * FONT_SIZE * LINE
    figure = Figure(figsize=(page, total), facecolor="white", layout="constrained")
    grid = figure.subplots(rows, beside * channels, squeeze=False)
    for axes in grid.flat[len(cuts) * channels :]:
        axes.remove()
    for axes in grid.flat[: len(cuts) * channels]:
        axes.set_axis_off()
        # so that the name of a narrow image has the whole width of its place
        axes.set_anchor("W")
    figure.legend(
        handles=entries,
        loc="outside lower left",
        ncols=in_a_row,
        title="\n".join(texts),
        title_fontsize=FONT_SIZE,
        alignment="left",
        fontsize=FONT_SIZE,
        frameon=False,
        borderpad=0,
        labelspacing=0.25,
    )
    return figure, grid.reshape(-1, channels)[: len(cuts)].tolist(), page / (beside * channels) - 0.1


def _show(axes: Axes, cut: CaseSlice, low: float, high: float, flat: bool) -> None:
    wide, tall = (n * mm for n, mm in zip(cut.prediction.shape, cut.spacing, strict=True))
    levels = ((np.nan_to_num(cut.image, nan=low) - low) / (high - low)).clip(0, 1)
    axes.imshow(
        np.swapaxes(levels, 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
        origin="upper" if flat else "lower",
        extent=(0, wide, tall, 0) if flat else (0, wide, 0, tall),
    )
    axes.set_axis_off()
    # The ends of a contour must not widen the axes.
    axes.set_autoscale_on(False)


def _name(axes: Axes, name: str) -> None:
    text = axes.text(0.03, 0.97, name, ha="left", va="top", color="white", fontsize=FONT_SIZE, transform=axes.transAxes)
    text.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def _shortened(heading: str, room: float) -> str:
    """Cut what is too long for its panel in the middle, where names differ least."""
    letters = max(8, int(room / LETTER))
    return "\n".join(
        line if len(line) <= letters else f"{line[: letters // 2 - 1]}…{line[1 - letters // 2 :]}"
        for line in heading.split("\n")
    )


def _wrapped(notes: Sequence[str], room: float) -> list[str]:
    """Notes in as few lines as there is room for."""
    lines: list[str] = []
    for note in notes:
        if lines and (len(lines[-1]) + 3 + len(note)) * LETTER <= room:
            lines[-1] += f"   {note}"
        else:
            lines.append(note)
    return lines
