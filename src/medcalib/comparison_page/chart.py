"""What a figure shows, before it is drawn interactively or for printing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bars", "Chart", "FigureBlock", "Heat", "Series"]

Numbers = Sequence[float] | NDArray[np.float64]
Ends = tuple[Numbers, Numbers]
Ticks = Sequence[tuple[float, str]]

# charts in a file for printing, each of which takes some hundredths of a second
MOST_PRINTED = 160


@dataclass(frozen=True)
class Series:
    """A line or points.

    Attributes:
        x: where the points are.
        y: where the points are.
        method: whose look it has; a guide, which no method owns, if empty.
        x_ends: lower and upper ends of intervals of ``x``.
        y_ends: the same of ``y``; a band along a line, error bars at points.
        lines: whether the points are joined.
        markers: whether the points are marked.
        filled: whether the marks are.
        hover: what is said of each point.
        variant: shown only when this one is chosen; always if empty.
        label: written beside a single point, or the name of a guide.
    """

    x: Numbers
    y: Numbers
    method: str = ""
    x_ends: Ends | None = None
    y_ends: Ends | None = None
    lines: bool = True
    markers: bool = False
    filled: bool = True
    hover: Sequence[str] = ()
    variant: str = ""
    label: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars from 0 on.

    Attributes:
        x: their middles.
        height: NaN where there is none.
        width: of all of them.
        method: whose colour they have.
        variant: as of `Series`.
    """

    x: Sequence[float]
    height: Sequence[float]
    width: float
    method: str
    variant: str = ""


@dataclass(frozen=True)
class Heat:
    """Counts over two axes from 0 to 1.

    Attributes:
        counts: (y, x), from low to high.
        largest: upper end of the colour scale.
        variant: as of `Series`.
    """

    counts: NDArray[np.integer]
    largest: int
    variant: str = ""


@dataclass(frozen=True)
class Chart:
    """One pair of axes with what is in it.

    Attributes:
        title: above it.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        alt: what it shows, for those who do not see it.
        parts: what is drawn, the first lowest.
        x_range: ends of the horizontal axis; as the data need if None.
        y_range: the same of the vertical axis.
        x_ticks: values and their texts, instead of numbers.
        y_ticks: the same of the vertical axis.
        zero: whether a line marks 0 on the horizontal axis.
        height: in pixels.
    """

    title: str
    x_label: str
    y_label: str
    alt: str
    parts: Sequence[Series | Bars | Heat]
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: Ticks | None = None
    y_ticks: Ticks | None = None
    zero: bool = False
    height: int = 340


@dataclass(frozen=True)
class FigureBlock:
    """Charts that belong together: a figure of the page, and a file for printing.

    Attributes:
        name: of the file, without its ending.
        caption: what it shows and how to read it.
        charts: side by side where there is room.
        legend: methods that its legend names.
        variants: what can be chosen; a page each in the file, for as many as `printed_variants` says.
        variant_label: what is chosen, such as ``class``.
        narrow: whether charts are as small as they can be.
    """

    name: str
    caption: str
    charts: Sequence[Chart]
    legend: Sequence[str] = ()
    variants: Sequence[str] = ()
    variant_label: str = ""
    narrow: bool = False

    @property
    def printed_variants(self) -> list[str]:
        """The first variants, as many as the file can show without growing with methods times classes.

        Example:
            >>> names = [f"class {number}" for number in range(16)]
            >>> block = FigureBlock("reliability_by_method", "", [Chart("", "", "", "", [])] * 40, variants=names)
            >>> block.printed_variants
            ['class 0', 'class 1', 'class 2', 'class 3']
        """
        return list(self.variants[: max(1, MOST_PRINTED // max(1, len(self.charts)))])
