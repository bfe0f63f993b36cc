"""Sizes, colours and words of the figures."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from matplotlib import rc_context

__all__ = ["ReliabilityStyle", "legend_label", "plain_text"]

P = ParamSpec("P")
R = TypeVar("R")


def plain_text(draw: Callable[P, R]) -> Callable[P, R]:
    """Let all texts that a function makes be shown letter by letter: ids and names of classes are no mathematics.

    Example:
        >>> from matplotlib.figure import Figure
        >>> @plain_text
        ... def draw(case):
        ...     return Figure().text(0, 0, case)
        >>> draw("$x_{").get_parse_math()
        False
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with rc_context({"text.parse_math": False, "text.usetex": False}):
            return draw(*args, **kwargs)

    return drawn


def legend_label(name: str) -> str:
    """A name as the label of a legend's entry; Matplotlib leaves those out that begin with ``_``.

    Example:
        >>> legend_label("liver"), legend_label("_liver")
        ('liver', ' _liver')
    """
    return f" {name}" if name.startswith("_") else name


@dataclass(frozen=True, kw_only=True)
class ReliabilityStyle:
    """Sizes, colours and words of the reliability figures, made for printing at 100 %.

    The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart by the common forms of colour
    blindness; over- and under-confidence differ in hatching and in place as well.

    Args:
        width: largest width of a figure in inches; 7 in is the text width of a two-column page.
        panel_size: largest side of one square panel in inches.
        font_size: of every text but the titles, in points.
        title_size: of the titles, in points.
        confidence_label: name of the horizontal axis.
        frequency_label: name of the vertical axis.
        count_label: what is counted in the strip below or above a panel, such as ``"voxels"`` or ``"images"``.
        overconfident_label: name of a gap where the mean confidence exceeds the observed frequency.
        underconfident_label: name of a gap where it falls short.
        diagonal_label: name of the diagonal.
        band_label: name of the band around perfect calibration; its level stands before it.
        pooled_label: name of the curve over a histogram.
        case_label: what the first axis of data set statistics counts, in the plural.
        average_label: title of the panel averaged over classes.
        absent_label: said in a panel whose class does not occur in the reference.
        empty_label: said in a panel without any voxel.
        frequency_color: bars of the observed frequency.
        overconfident_color: gaps of over-confidence.
        underconfident_color: gaps of under-confidence.
        band_color: band around perfect calibration.
        curve_color: pooled reliability curve over a histogram.
        count_color: bars of the count strips.
        cmap: name of the colour map of the histogram; cells without a case stay white.

    Example:
        >>> ReliabilityStyle(count_label="images", panel_size=2.0).count_label
        'images'
    """

    width: float = 7.0
    panel_size: float = 2.4
    font_size: float = 7.0
    title_size: float = 8.0
    confidence_label: str = "mean confidence"
    frequency_label: str = "observed frequency"
    count_label: str = "voxels"
    overconfident_label: str = "over-confident"
    underconfident_label: str = "under-confident"
    diagonal_label: str = "perfect calibration"
    band_label: str = "band if calibrated"
    pooled_label: str = "all voxels pooled"
    case_label: str = "cases"
    average_label: str = "mean over classes"
    absent_label: str = "class absent"
    empty_label: str = "no voxels"
    frequency_color: str = "#b9cfe4"
    overconfident_color: str = "#d55e00"
    underconfident_color: str = "#009e73"
    band_color: str = "#6a3d9a"
    curve_color: str = "#d55e00"
    count_color: str = "#8c8c8c"
    cmap: str = "YlGnBu"

    def __post_init__(self) -> None:
        for name in ("width", "panel_size", "font_size", "title_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
