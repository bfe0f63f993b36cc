"""One case with several raters to look at: where they draw, where they differ, and where the network is uncertain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from medcalib.visualize.overlay import class_color, draw_outline
from medcalib.visualize.slices import CaseSlice, case_slice
from medcalib.visualize.style import legend_label, plain_text

__all__ = ["draw_rater_maps"]

# inches: the text width of a two-column page
WIDTH = 7.0
LARGEST_HEIGHT = 2.6
FONT_SIZE = 7.0
TITLE_SIZE = 8.0
LINE = 1.28 / 72
HEAT = "inferno"
RATER: dict[str, Any] = {"linewidth": 0.6, "linestyle": "solid", "alpha": 0.9}
PREDICTION: dict[str, Any] = {"linewidth": 1.0, "linestyle": (0, (2.6, 1.0)), "alpha": 1.0}


@plain_text
def draw_rater_maps(
    image: ArrayLike,
    votes: ArrayLike,
    prediction: ArrayLike,
    variance: ArrayLike,
    uncertainty: ArrayLike,
    *,
    class_names: Sequence[str],
    affine: ArrayLike | None = None,
    maximum: float | None = None,
    uncertainty_label: str = "entropy (nats)",
    rgb: bool = False,
    title: str | None = None,
) -> Figure:
    """Outlines of all raters and of the prediction, the variance of the raters, and the uncertainty, in one slice.

    The slice is that with the most voxels that any rater marked, see :func:`medcalib.visualize.slices.case_slice`.

    Args:
        image: (C, ...) with two or three spatial axes.
        votes: masks of the raters (R, class, ...), without background.
        prediction: masks of the prediction (class, ...).
        variance: variance of the raters, (1, ...), in [0, 0.25].
        uncertainty: not negative, (1, ...).
        class_names: names of the classes, without background.
        affine: from voxels to millimetres, (4, 4).
        maximum: upper end of the scale of the uncertainty; its largest value in the slice when None.
        uncertainty_label: its name and unit.
        rgb: whether the three channels of an image of two axes are colours.
        title: such as the case id.

    Returns:
        A figure that belongs to no window and needs no closing.

    Example:
        >>> votes = np.zeros((2, 1, 8, 9), dtype=bool)
        >>> votes[0, 0, 2:5, 3:6] = votes[1, 0, 3:6, 3:6] = True
        >>> share = votes.mean((0, 1))[None]
        >>> figure = draw_rater_maps(
        ...     np.random.rand(1, 8, 9), votes, votes[0], share - share**2, share - share**2, class_names=["liver"]
        ... )
        >>> [axes.get_title() for axes in figure.axes[:3]]
        ['2 raters and prediction', 'variance of the raters', 'entropy (nats)']
    """
    masks, predicted = np.asarray(votes, dtype=bool), np.asarray(prediction, dtype=bool)
    raters, classes = masks.shape[:2]
    anyone = masks.any((0, 1)).astype(int)
    cuts = []
    for shown in (variance, uncertainty):
        cuts.append(
            case_slice(
                image,
                predicted.any(0).astype(int),
                shown,
                anyone,
                affine=affine,
                rgb=rgb,
                inner=masks.reshape(raters * classes, *masks.shape[2:]),
                outer=predicted,
            )
        )
    cut = cuts[0]
    figure, axes = _page(cut, raters, title, class_names)
    origin = "upper" if np.asarray(image).ndim == 3 else "lower"
    _show(axes[0], _levels(cut.image), cut, "gray", 1.0, origin)
    # of sets that were given there are slices
    drawn, own = (np.asarray(sets).reshape(-1, classes, *cut.prediction.shape) for sets in (cut.inner, cut.outer))
    for index in range(classes):
        color = class_color(index + 1)
        for rater in range(raters):
            draw_outline(axes[0], drawn[rater, index], cut.spacing, color, **RATER)
        # on a ground on which white shows wherever it lies
        draw_outline(axes[0], own[0, index], cut.spacing, (0.0, 0.0, 0.0), **PREDICTION | {"linestyle": "solid"})
        draw_outline(axes[0], own[0, index], cut.spacing, (1.0, 1.0, 1.0), **PREDICTION)
    highest = float(np.nanmax(cuts[1].uncertainty, initial=0.0)) if maximum is None else float(maximum)
    scales = ((cuts[0].uncertainty, 0.25), (cuts[1].uncertainty, highest or 1.0))
    for panel, (values, top) in zip(axes[1:], scales, strict=True):
        _show(panel, values, cut, HEAT, top, origin)
        bar = figure.colorbar(ScalarMappable(Normalize(0, top), HEAT), ax=panel, pad=0.02, aspect=25)
        bar.ax.tick_params(labelsize=FONT_SIZE, length=2.0, width=0.6, pad=1.5)
        bar.ax.locator_params(nbins=5)
    names = (f"{raters} rater{'s' * (raters != 1)} and prediction", "variance of the raters", uncertainty_label)
    for panel, name in zip(axes, names, strict=True):
        panel.set_title(name, fontsize=FONT_SIZE, pad=2)
    return figure


def _page(cut: CaseSlice, raters: int, title: str | None, class_names: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    across, up = (n * mm for n, mm in zip(cut.prediction.shape, cut.spacing, strict=True))
    high = min((WIDTH - 1.2) / 3 * up / across, LARGEST_HEIGHT)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, compress=True)
    figure = Figure(figsize=(WIDTH, high + 4 * FONT_SIZE * LINE + 0.2), facecolor="white", layout=layout)
    axes = figure.subplots(1, 3)
    if title or cut.name:
        heading = ", ".join(filter(None, (title, cut.name)))
        figure.suptitle(heading, fontsize=TITLE_SIZE, fontweight="bold")
    entries = [
        Line2D([], [], color=class_color(number), linewidth=2, label=legend_label(str(name)))
        for number, name in enumerate(class_names, 1)
    ]
    entries.append(Line2D([], [], color="black", label="prediction (black and white)", **PREDICTION))
    figure.legend(
        handles=entries, loc="outside lower center", ncols=min(len(entries), 6), fontsize=FONT_SIZE, frameon=False
    )
    return figure, list(axes)


def _levels(image: NDArray[Any]) -> NDArray[Any]:
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (1.0, 99.0)) if finite.size else (0.0, 1.0)
    return np.clip((image - low) / (high - low if high > low else 1.0), 0, 1)


def _show(axes: Axes, values: NDArray[Any], cut: CaseSlice, cmap: str, top: float, origin: str) -> None:
    wide, high = (n * mm for n, mm in zip(cut.prediction.shape, cut.spacing, strict=True))
    extent = (0.0, wide, 0.0, high) if origin == "lower" else (0.0, wide, high, 0.0)
    shown = np.swapaxes(np.nan_to_num(np.asarray(values, dtype=float)), 0, 1)
    axes.imshow(shown, cmap=cmap, vmin=0, vmax=top, origin=origin, extent=extent)  # type: ignore[arg-type]
    axes.set_axis_off()
    axes.set_autoscale_on(False)
