"""Reliability diagrams and histograms over the cases, side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcalib.compare import Comparison
from medcalib.comparison_page.chart import Bars, Chart, FigureBlock, Heat, Series
from medcalib.visualize.bins import accuracy_heatmap, bin_means, calibration_errors, mean_without_nan

__all__ = ["reliability"]

ALL = "mean over classes"
DIAGONAL = Series([0.0, 1.0], [0.0, 1.0], label="perfect calibration")
SQUARE = {"x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}

Array = NDArray[np.float64]


def reliability(comparison: Comparison) -> list[FigureBlock]:
    """One figure with the pooled curves of all methods, and one with diagram and histogram of each of them.

    Voxels of all cases and seeds are pooled. The mean over classes averages frequencies and confidences of the classes
    that occur.
    """
    arrays = {name: found for name in comparison.evaluations if (found := _arrays(comparison, name)) is not None}
    if not arrays:
        return []
    classes = next(iter(arrays.values()))[0]
    arrays = {name: found for name, found in arrays.items() if found[0] == classes}
    variants = [ALL, *classes] if len(classes) > 1 else classes
    curves: dict[str, dict[str, tuple[Array, Array]]] = {}
    panels: list[Chart] = []
    for name, (_, counts, predicted, observed) in arrays.items():
        confidence, frequency = bin_means(*(array.sum(0) for array in (counts, predicted, observed)))
        present = observed.sum((0, 2)) > 0
        of_class = {one: (confidence[at], frequency[at]) for at, one in enumerate(classes)}
        heat = accuracy_heatmap(counts, observed, counts.shape[-1])
        heats = dict(zip(classes, heat, strict=True))
        if len(classes) > 1:
            of_class[ALL] = (mean_without_nan(confidence[present], 0), mean_without_nan(frequency[present], 0))
            heats[ALL] = np.rint(heat[present].mean(0)).astype(int) if present.any() else heat[0] * 0
        curves[name] = of_class
        errors = calibration_errors(*(array.sum(0) for array in (counts, predicted, observed)))
        numbers = ", ".join(
            f"{kind}\N{NO-BREAK SPACE}{np.nanmean(values[present]):.3f}"
            for kind, values in errors.items()
            if present.any()
        )
        panels += _panels(name, of_class, heats, variants, counts, numbers)
    overlay = Chart(
        title="All methods",
        x_label="mean confidence",
        y_label="observed frequency",
        alt=f"Reliability curves of {', '.join(curves)}; below the diagonal they are over-confident.",
        parts=[
            DIAGONAL,
            *(
                Series(*of_class[one], method=name, markers=True, variant=one)
                for name, of_class in curves.items()
                for one in variants
            ),
        ],
        height=460,
        **SQUARE,  # type: ignore[arg-type]
    )
    return [
        FigureBlock(
            "reliability",
            "Observed frequency over mean confidence of the bins, all cases pooled. Below the dashed diagonal a method "
            "is over-confident, above it under-confident.",
            [overlay],
            list(curves),
            variants,
            "class",
        ),
        FigureBlock(
            "reliability_by_method",
            "Left of each pair: observed frequency of every bin of confidence, all cases pooled, with the errors of "
            "the pooled bins, mean over classes. Right: how many cases have a given observed frequency in a bin of "
            "confidence, brighter for more; all share one scale. The wider the cells spread about the diagonal, the "
            "less the pooled curve says of a single case.",
            panels,
            (),
            variants,
            "class",
            narrow=True,
        ),
    ]


def _panels(
    name: str,
    of_class: dict[str, tuple[Array, Array]],
    heats: dict[str, NDArray[np.int64]],
    variants: list[str],
    counts: Array,
    numbers: str,
) -> list[Chart]:
    num_bins = counts.shape[-1]
    middles = ((np.arange(num_bins) + 0.5) / num_bins).tolist()
    bars = [Bars(middles, of_class[one][1].tolist(), 1 / num_bins, name, one) for one in variants]
    lines = [Series(*of_class[one], method=name, markers=False, variant=one) for one in variants]
    diagram = Chart(
        title=name,
        x_label="confidence",
        y_label="frequency",
        alt=f"Reliability diagram of {name}: {numbers or 'no class occurs'}.",
        parts=[*bars, DIAGONAL, *lines],
        height=230,
        **SQUARE,  # type: ignore[arg-type]
    )
    histogram = Chart(
        title=numbers,
        x_label="confidence",
        y_label="frequency",
        alt=f"Histogram of {counts.shape[0]} cases of {name} over confidence and observed frequency.",
        parts=[*(Heat(heats[one], counts.shape[0], one) for one in variants), DIAGONAL],
        height=230,
        **SQUARE,  # type: ignore[arg-type]
    )
    return [diagram, histogram]


def _arrays(comparison: Comparison, method: str) -> tuple[list[str], Array, Array, Array] | None:
    """Names of classes, and counts and sums (case, class, bin) of all seeds one after another."""
    found = [one for one in comparison.evaluations[method] if one.statistics is not None]
    if not found or len({(*one.class_names, one.statistics.num_bins) for one in found if one.statistics}) > 1:
        return None
    joined = [
        np.concatenate(
            [np.asarray(one.statistics[part], dtype=np.float64) for one in found if one.statistics is not None]
        )
        for part in range(3)
    ]
    return list(found[0].class_names), joined[0], joined[1], joined[2]
