"""Figures as the bytes of a file: what another process can draw and hand back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

from matplotlib.figure import Figure
from numpy.typing import NDArray

from medcalib.visualize.histogram import draw_dataset_reliability_histograms
from medcalib.visualize.reliability import CaseReliabilityDrawer, draw_dataset_reliability_diagrams

__all__ = ["render", "render_case", "render_dataset"]

_case_drawer = cache(CaseReliabilityDrawer)


def render(figure: Figure, formats: Sequence[str], dpi: int = 150) -> dict[str, bytes]:
    """The content of an image file for each format.

    Args:
        figure: any figure.
        formats: such as ``png`` and ``pdf``.
        dpi: resolution of raster formats.

    Example:
        >>> render(Figure(figsize=(1, 1)), ["png"])["png"][1:4]
        b'PNG'
    """
    files = {}
    for suffix in formats:
        # compressing a PNG hard takes longer than drawing it
        options = {"pil_kwargs": {"compress_level": 1}} if suffix == "png" else {}
        content = io.BytesIO()
        figure.savefig(content, format=suffix, dpi=dpi, **options)
        files[suffix] = content.getvalue()
    return files


def render_case(
    statistics: Sequence[NDArray], class_names: tuple[str, ...], title: str, formats: Sequence[str], dpi: int
) -> dict[str, bytes]:
    """Reliability diagrams of one case.

    Args:
        statistics: counts, sums of predictions and of targets, each (class, bin).
        class_names: one name for each class.
        title: title of the figure.
        formats: formats of the files.
        dpi: resolution of raster formats.
    """
    return render(_case_drawer(class_names).draw(*statistics, title=title), formats, dpi)


def render_dataset(
    kind: str, statistics: Sequence[NDArray], class_names: tuple[str, ...], formats: Sequence[str], dpi: int
) -> dict[str, bytes]:
    """Reliability ``diagram`` or ``histogram`` of a dataset.

    Args:
        kind: which of the two.
        statistics: counts, sums of predictions and of targets, each (case, class, bin).
        class_names: one name for each class.
        formats: formats of the files.
        dpi: resolution of raster formats.
    """
    draw = {"diagram": draw_dataset_reliability_diagrams, "histogram": draw_dataset_reliability_histograms}[kind]
    return render(draw(*statistics, class_names), formats, dpi)
