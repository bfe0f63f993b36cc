"""One case to look at: its image with the outlines of the segmentations, and where the network is uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from medcalib.keys import IGNORED
from medcalib.visualize.ignored_area import draw_ignored, ignored_entry
from medcalib.visualize.set_bands import band_colors, band_entry, set_band
from medcalib.visualize.slices import CaseSlice, case_slice
from medcalib.visualize.style import legend_label, plain_text

__all__ = ["class_color", "draw_case_overlay", "draw_outline"]

Color = tuple[float, float, float]

# Inches: one column of a two-column page, and the highest picture in it.
COLUMN_WIDTH = 3.35
LARGEST_HEIGHT = 2.6
FONT_SIZE = 7.0
TITLE_SIZE = 8.0
LINE = 1.28 / 72
# Okabe and Ito, in the order in which they stand out from grey.
COLORS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
# The ground truth is a pale band on which the thin line of the prediction still shows where the two agree.
OUTLINES: dict[str, dict[str, Any]] = {
    "ground truth": {"linewidth": 1.8, "linestyle": "solid", "alpha": 0.6},
    "prediction": {"linewidth": 0.9, "linestyle": (0, (2.6, 1.0)), "alpha": 1.0},
}
HEAT = "inferno"
# Share of the scale from which the heat map hides the image as far as it ever does.
OPAQUE_FROM, OPACITY = 0.35, 0.9


@plain_text
def draw_case_overlay(
    image: ArrayLike,
    prediction: ArrayLike,
    uncertainty: ArrayLike,
    label: ArrayLike | None = None,
    *,
    class_names: Sequence[str],
    affine: ArrayLike | None = None,
    spacing: Sequence[float] | None = None,
    axis: int | None = None,
    channel: int = 0,
    rgb: bool = False,
    origin: Literal["upper", "lower"] = "lower",
    maximum: float | None = None,
    uncertainty_label: str = "entropy (nats)",
    window: tuple[float, float] = (1.0, 99.0),
    title: str | None = None,
    width: float = COLUMN_WIDTH,
    inner: ArrayLike | None = None,
    outer: ArrayLike | None = None,
) -> Figure:
    """Outlines of the classes in the image, and the uncertainty over the image, in one slice of the case.

    Of a volume the slice with the most foreground is shown, see :func:`medcalib.visualize.slices.case_slice`. The first
    axis points to the right and the second one upwards, in millimetres; with an ``affine`` letters name the sides of
    the patient. Low uncertainties are transparent; those above ``maximum`` have its colour.

    Args:
        image: (C, ...) with two or three spatial axes.
        prediction: label map, (...) or (1, ...).
        uncertainty: not negative, such as the entropy in nats, same shape as ``prediction``; NaN is left out.
        label: ground truth, label map of the same shape; where it is below 0, it is unknown, and hatched.
        class_names: name of every class, the background first.
        affine: from voxels to millimetres, (4, 4); turns a volume so that its axes point to the right, the front and
            the top of the patient, and gives the spacing. Of an image with two axes only the spacing is used.
        spacing: voxel size in mm along each axis, where there is no ``affine``; 1 without either.
        axis: the axis across which a volume is cut, after it was turned; by default the one with the coarsest spacing,
            the last of equal ones.
        channel: which channel of the image is shown.
        rgb: whether the three channels of an image of two axes are colours.
        origin: ``"lower"``, or ``"upper"`` where the second axis points downwards as in photographs.
        maximum: upper end of the scale of the uncertainty; by default the logarithm of the number of classes.
        uncertainty_label: name and unit of the uncertainty.
        window: percentiles of the slice that are shown black and white.
        title: such as the case id.
        width: width of the figure in inches.
        inner: voxels of which a guarantee says that they are of a class, (class, ...), without background.
        outer: voxels of which it says that they may be of a class, same shape. Each class has a band of its colour
            from the inner to the outer set; where one of them is not given, to the prediction.

    Returns:
        A figure that belongs to no window and needs no closing.

    Raises:
        ValueError: If shapes do not fit each other, a label has no name, or an option is not as above.

    Example:
        >>> prediction = np.zeros((8, 9, 5), dtype=int)
        >>> prediction[2:5, 3:6, 3] = 1
        >>> image, names = np.random.rand(1, 8, 9, 5), ["background", "liver"]
        >>> figure = draw_case_overlay(image, prediction, prediction * 0.3, class_names=names)
        >>> figure.axes[0].get_title()
        'slice 4 of 5'
    """
    if origin not in ("lower", "upper"):
        raise ValueError(f'origin must be "lower" or "upper", got {origin!r}.')
    top = float(np.log(len(class_names))) if maximum is None else float(maximum)
    if not 0 < top < np.inf:
        raise ValueError(f"maximum of the uncertainty must be above 0 and finite, got {top}.")
    cut = case_slice(
        image,
        prediction,
        uncertainty,
        label,
        affine=affine,
        spacing=spacing,
        axis=axis,
        channel=channel,
        rgb=rgb,
        inner=inner,
        outer=outer,
    )
    for name, sets in (("inner", cut.inner), ("outer", cut.outer)):
        if sets is not None and len(sets) != len(class_names) - 1:
            raise ValueError(f"{name} must hold {len(class_names) - 1} classes, those after the background.")
    outlines = {"ground truth": cut.label, "prediction": cut.prediction}
    segmentations = {name: np.maximum(labels, 0) for name, labels in outlines.items() if labels is not None}
    ignored = None if cut.label is None or not (cut.label == IGNORED).any() else cut.label == IGNORED
    present = np.unique(np.concatenate([np.unique(labels) for labels in segmentations.values()])).astype(int)
    lowest = 0 if cut.label is None else cut.label.min()
    if cut.prediction.min() < 0 or lowest < IGNORED or present[-1] >= len(class_names):
        raise ValueError(f"labels must lie between 0 and {len(class_names) - 1}, got {present.tolist()}.")
    bands = {number: band for number in range(1, len(class_names)) if (band := set_band(cut, number)) is not None}
    classes = sorted({number for number in present.tolist() if number > 0} | bands.keys())

    entries: list[Artist] = [
        Line2D([], [], color=class_color(n), linewidth=3, label=legend_label(str(class_names[n]))) for n in classes
    ]
    entries += [Line2D([], [], color="black", label=name, **OUTLINES[name]) for name in segmentations]
    if bands:
        entries.append(band_entry(cut))
    if ignored is not None:
        entries.append(ignored_entry())
    figure, left, right = _page(cut, width, title, entries)
    for axes in (left, right):
        _show_image(axes, cut, origin, window)
    _name_sides(left, cut.sides)
    if ignored is not None:
        draw_ignored(left, ignored, cut.spacing)
    for number, band in bands.items():
        left.imshow(band_colors(band, class_color(number)), origin=origin, extent=_extent(cut, origin), zorder=1)
    for name, labels in segmentations.items():
        for number in classes:
            draw_outline(left, labels == number, cut.spacing, class_color(number), **OUTLINES[name])
    _show_heat(right, cut, origin, top)
    exceeded = bool((np.nan_to_num(cut.uncertainty) > top * (1 + 1e-5)).any())
    _color_bar(figure, right, top, uncertainty_label, exceeded)
    return figure


def _page(cut: CaseSlice, width: float, title: str | None, entries: Sequence[Artist]) -> tuple[Figure, Axes, Axes]:
    """A figure with two axes side by side, the title and the legend."""
    if width < 1.75:
        raise ValueError(f"width must be at least 1.75 inches, got {width:g}.")
    across, up = (n * mm for n, mm in zip(cut.prediction.shape, cut.spacing, strict=True))
    high = min((width - 0.75) / 2 * up / across, LARGEST_HEIGHT)
    letters = max(len(str(entry.get_label())) for entry in entries)
    columns = max(1, min(len(entries), int(width * 72 / ((0.55 * letters + 4.5) * FONT_SIZE))))
    lines = -(-len(entries) // columns) + bool(title) * 1.4 + bool(cut.name) * 1.2
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, compress=True)
    figure = Figure(figsize=(width, high + lines * FONT_SIZE * LINE + 0.2), facecolor="white", layout=layout)
    left, right = figure.subplots(1, 2)
    if title:
        figure.suptitle(title, fontsize=TITLE_SIZE, fontweight="bold")
    if cut.name:
        left.set_title(cut.name, fontsize=FONT_SIZE, pad=2)
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        fontsize=FONT_SIZE,
        frameon=False,
        borderpad=0.1,
        handlelength=2.2,
        columnspacing=1.0,
        labelspacing=0.25,
    )
    return figure, left, right


def _extent(cut: CaseSlice, origin: Literal["upper", "lower"]) -> tuple[float, float, float, float]:
    wide, high = (n * mm for n, mm in zip(cut.prediction.shape, cut.spacing, strict=True))
    return (0.0, wide, 0.0, high) if origin == "lower" else (0.0, wide, high, 0.0)


def _show_image(axes: Axes, cut: CaseSlice, origin: Literal["upper", "lower"], window: tuple[float, float]) -> None:
    finite = cut.image[np.isfinite(cut.image)]
    low, high = np.percentile(finite, window) if finite.size else (0.0, 1.0)
    levels = Normalize(low, high if high > low else low + 1, clip=True)(cut.image.astype(float))
    axes.imshow(
        np.swapaxes(levels.filled(0.0), 0, 1), cmap="gray", vmin=0, vmax=1, origin=origin, extent=_extent(cut, origin)
    )
    axes.set_axis_off()
    # The ends of a contour must not widen the axes.
    axes.set_autoscale_on(False)


def _name_sides(axes: Axes, sides: Sequence[str] | None) -> None:
    places = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.02, "center", "bottom"),
        (0.5, 0.98, "center", "top"),
    )
    for letter, (x, y, ha, va) in zip(sides or (), places, strict=False):
        text = axes.text(x, y, letter, ha=ha, va=va, color="white", fontsize=FONT_SIZE, transform=axes.transAxes)
        text.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def draw_outline(axes: Axes, mask: NDArray[np.bool_], spacing: tuple[float, float], color: Color, **look: Any) -> None:
    """Draw the border of a mask as a line inside it, which begins halfway between the pixels inside and those outside.

    So two masks that share a border, or of which one encloses the other, have a line each, side by side.

    Args:
        axes: shows the image from 0 to its size in mm.
        mask: (right, up).
        spacing: size of a pixel in mm, to the right and upwards.
        color: of the line.
        **look: other properties of the line: ``linewidth``, ``linestyle`` and ``alpha``.
    """
    if not mask.any():
        return
    # Around the mask lie pixels outside, so that the line closes at the border of the image too.
    x, y = ((np.arange(-1, n + 1) + 0.5) * mm for n, mm in zip(mask.shape, spacing, strict=True))
    border = axes.contour(x, y, np.pad(mask, 1).T.astype(float), levels=[0.5], colors="none")
    # of a line twice as wide the inner half is shown; its dashes grow with its width
    dashes = look.get("linestyle", "solid")
    if not isinstance(dashes, str):
        dashes = (dashes[0] / 2, tuple(length / 2 for length in dashes[1]))
    border.set(edgecolor=color, **look | {"linewidth": 2 * look["linewidth"], "linestyle": dashes})
    border.set_clip_path(border.get_paths()[0], axes.transData)


def _show_heat(axes: Axes, cut: CaseSlice, origin: Literal["upper", "lower"], top: float) -> None:
    part = np.nan_to_num(cut.uncertainty.astype(float)) / top
    colors = colormaps[HEAT](part)
    colors[..., 3] = (part / OPAQUE_FROM).clip(0, 1) * OPACITY
    axes.imshow(np.swapaxes(colors, 0, 1), origin=origin, extent=_extent(cut, origin))


def _color_bar(figure: Figure, axes: Axes, top: float, label: str, exceeded: bool) -> None:
    scale = ScalarMappable(Normalize(0, top), HEAT)
    bar = figure.colorbar(scale, ax=axes, extend="max" if exceeded else "neither", extendfrac=0.05, pad=0.02, aspect=25)
    bar.set_label(label, fontsize=FONT_SIZE, labelpad=2)
    bar.outline.set_linewidth(0.6)
    bar.ax.tick_params(labelsize=FONT_SIZE, length=2.0, width=0.6, pad=1.5)
    bar.ax.locator_params(nbins=5)


def class_color(number: int) -> Color:
    """The colour of a class, red, green and blue in [0, 1]; from the eighth on paler, then darker.

    Example:
        >>> class_color(1) == to_rgb("#56b4e9")
        True
    """
    turn, place = divmod(number - 1, len(COLORS))
    color = np.array(to_rgb(COLORS[place]))
    return tuple(color if turn == 0 else (color + 1) / 2 if turn == 1 else color / 2)
