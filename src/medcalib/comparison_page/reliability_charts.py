"""Reliability diagrams and histograms over the cases, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medcalib.compare import Comparison
from medcalib.comparison_page.chart import Bars, Chart, FigureBlock, Heat, Series
from medcalib.comparison_page.method_rows import is_classification
from medcalib.functional import BinStatistics
from medcalib.visualize.bins import accuracy_heatmap, bin_means, calibration_errors, mean_without_nan

__all__ = ["reliability"]

ALL, PREDICTED = "mean over classes", "predicted class"
DIAGONAL = Series([0.0, 1.0], [0.0, 1.0], label="perfect calibration")
SQUARE = {"x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}

Array = NDArray[np.float64]


class Binned(NamedTuple):
    """What is shown of one method.

    Attributes:
        curves: mean confidence and observed frequency (bin,) by class.
        heats: number of cases (frequency bin, confidence bin) by class.
        num_cases: of all seeds.
        errors: what is written above.
    """

    curves: dict[str, tuple[Array, Array]]
    heats: dict[str, NDArray[np.int64]]
    num_cases: int
    errors: str


def reliability(comparison: Comparison) -> list[FigureBlock]:
    """One figure with the pooled curves of all methods, and one with diagram and histogram of each of them.

    Voxels of all cases and seeds are pooled. The mean over classes averages frequencies and confidences of the classes
    that occur. Of classified images there is the predicted class as well, and no histograms: a single image has no
    frequency.
    """
    found = {name: bins for name in comparison.evaluations if (bins := _binned(comparison, name)) is not None}
    if not found:
        return []
    classes = list(next(iter(found.values())).curves)
    found = {name: bins for name, bins in found.items() if list(bins.curves) == classes}
    images = is_classification(comparison)
    overlay = Chart(
        title="All methods",
        x_label="mean confidence",
        y_label="observed frequency",
        alt=f"Reliability curves of {', '.join(found)}; below the diagonal they are over-confident.",
        parts=[
            DIAGONAL,
            *(
                Series(*bins.curves[one], method=name, markers=True, variant=one)
                for name, bins in found.items()
                for one in classes
            ),
        ],
        height=460,
        **SQUARE,  # type: ignore[arg-type]
    )
    if images:
        caption = "Observed frequency of every bin of confidence, all cases pooled."
    else:
        caption = (
            "Left of each pair: observed frequency of every bin of confidence, all cases pooled, and above the errors "
            "of the pooled bins, mean over classes. Right: how many cases have a given observed frequency in a bin of "
            "confidence, brighter for more; all share one scale. The wider the cells spread about the diagonal, the "
            "less the pooled curve says of a single case."
        )
    return [
        FigureBlock(
            "reliability",
            "Observed frequency over mean confidence of the bins, all cases pooled. Below the dashed diagonal a method "
            "is over-confident, above it under-confident.",
            [overlay],
            list(found),
            classes,
            "class",
        ),
        FigureBlock(
            "reliability_by_method",
            caption,
            [panel for name, bins in found.items() for panel in _panels(name, bins, images)],
            (),
            classes,
            "class",
            narrow=True,
        ),
    ]


def _panels(name: str, bins: Binned, images: bool) -> list[Chart]:
    num_bins = len(next(iter(bins.curves.values()))[0])
    middles = ((np.arange(num_bins) + 0.5) / num_bins).tolist()
    bars = [Bars(middles, curve[1].tolist(), 1 / num_bins, name, one) for one, curve in bins.curves.items()]
    lines = [Series(*curve, method=name, variant=one) for one, curve in bins.curves.items()]
    look: dict[str, Any] = {"x_label": "confidence", "y_label": "frequency", "height": 230, **SQUARE}
    alt = f"Reliability diagram of {name}: {bins.errors or 'no class occurs'}."
    diagram = Chart(title=name, alt=alt, parts=[*bars, DIAGONAL, *lines], **look)
    if images:
        return [diagram]
    heats = [Heat(heat, bins.num_cases, one) for one, heat in bins.heats.items()]
    alt = f"Histogram of {bins.num_cases} cases of {name} over confidence and observed frequency."
    return [diagram, Chart(title=bins.errors, alt=alt, parts=[*heats, DIAGONAL], **look)]


def _binned(comparison: Comparison, method: str) -> Binned | None:
    """What is shown of a method; None without bin statistics, or if those of its seeds differ in bins or classes."""
    found = [one for one in comparison.evaluations[method] if one.statistics is not None]
    if not found or len({(*one.class_names, one.statistics.num_bins) for one in found if one.statistics}) > 1:
        return None
    classes = list(found[0].class_names)
    counts, predicted, observed = _joined([one.statistics for one in found if one.statistics is not None])
    present = observed.sum((0, 2)) > 0
    pooled = [array.sum(0) for array in (counts, predicted, observed)]
    confidence, frequency = bin_means(*pooled)
    heat = accuracy_heatmap(counts, observed, counts.shape[-1])
    curves, heats = {}, {}
    if len(classes) > 1:
        curves[ALL] = (mean_without_nan(confidence[present], 0), mean_without_nan(frequency[present], 0))
        heats[ALL] = np.rint(heat[present].mean(0)).astype(int) if present.any() else heat[0] * 0
    top = [one.top_label for one in found if one.top_label is not None]
    if top:
        means = bin_means(*(array.sum((0, 1)) for array in _joined(top)))
        curves[PREDICTED] = means
    curves |= {one: (confidence[at], frequency[at]) for at, one in enumerate(classes)}
    heats |= dict(zip(classes, heat, strict=True))
    errors = calibration_errors(*pooled)
    texts = [
        f"{kind}\N{NO-BREAK SPACE}{np.nanmean(values[present]):.3f}" for kind, values in errors.items() if present.any()
    ]
    return Binned(curves, heats, len(counts), ", ".join(texts))


def _joined(statistics: Sequence[BinStatistics]) -> list[Array]:
    """Counts and sums (case, class, bin) of all seeds one after another."""
    return [np.concatenate([np.asarray(one[part], dtype=np.float64) for one in statistics]) for part in range(3)]
