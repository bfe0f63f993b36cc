"""Draw a chart for printing, with Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from medcalib.comparison_page.chart import Bars, Chart, FigureBlock, Heat, Series
from medcalib.comparison_page.method_style import MethodStyle
from medcalib.comparison_page.metric_words import MINUS, name_lines, words
from medcalib.visualize.style import plain_text

__all__ = ["print_figure", "printed_figure"]

# Inches: the text of a two-column page, and of one column.
WIDTH, COLUMN_WIDTH = 7.0, 3.4
LARGEST_HEIGHT = 9.5
# of a line of text
LINE = 0.11
# names that a legend below a figure of one column holds
MOST_BELOW = 8
FONT_SIZE, TITLE_SIZE = 7.0, 8.0
LETTERS = 46
GUIDE = "#707070"
DASHES = {
    "solid": "-",
    "dash": (0, (4, 1.2)),
    "dot": (0, (1.2, 1.2)),
    "dashdot": (0, (5, 1.2, 1.2, 1.2)),
    "longdash": (0, (8, 1.5)),
}
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "x": "X",
    "triangle-down": "v",
    "star": "*",
    "hexagon": "h",
}


def print_figure(block: FigureBlock, styles: Mapping[str, MethodStyle], path: Path) -> None:
    """Write a figure as PDF, a page for each of its `printed_variants`.

    Args:
        block: what is drawn.
        styles: looks by method.
        path: of the file.
    """
    # without a date, so that equal results give equal files
    with PdfPages(path, metadata={"CreationDate": None}) as pages:
        for variant in block.printed_variants or ("",):
            for page in _pages(block):
                pages.savefig(printed_figure(page, styles, variant))


def _pages(block: FigureBlock) -> list[FigureBlock]:
    """Parts of a figure that fit on a page each."""
    most = 24 if block.narrow else 12
    if ticks := block.charts[0].y_ticks:
        most = min(most, 2 * max(1, int(LARGEST_HEIGHT / _row_height(ticks))))
    return [
        FigureBlock(block.name, block.caption, block.charts[start : start + most], block.legend, narrow=block.narrow)
        for start in range(0, len(block.charts), most)
    ]


@plain_text
def printed_figure(block: FigureBlock, styles: Mapping[str, MethodStyle], variant: str = "") -> Figure:
    """A figure for printing at 100 %.

    Args:
        block: what is drawn.
        styles: looks by method.
        variant: the one that is drawn, where there are several.

    Returns:
        A figure that belongs to no window and needs no closing.
    """
    charts = block.charts
    columns = min(len(charts), 4 if block.narrow else 2)
    rows = math.ceil(len(charts) / columns)
    legend = [name for name in block.legend if name in styles]
    beside = columns == 1 and len(legend) > MOST_BELOW
    width = COLUMN_WIDTH if columns == 1 and not beside else WIDTH
    panel = COLUMN_WIDTH if columns == 1 else width / columns
    shared = len({str(chart.y_ticks) for chart in charts}) == 1 and charts[0].y_ticks is not None
    if ticks := charts[0].y_ticks:
        height = rows * _row_height(ticks)
    else:
        height = rows * ((0.95 if block.narrow else 0.78) * panel + 0.15) + (0.15 if block.narrow else 0)
    letters = max((len(name) for name in legend), default=1)
    per_row = 1 if beside else max(1, int(width * 72 / (0.56 * FONT_SIZE * letters + 30)))
    lines = math.ceil(len(legend) / per_row) if legend else 0
    height += (0.25 if variant else 0) + (0 if beside else 1.5 * LINE * lines)
    height = max(height, 1.35 * LINE * lines) if beside else height
    figure = Figure(figsize=(width, min(height, LARGEST_HEIGHT)), layout=None if block.narrow else "constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=shared)
    for axes, chart in zip(grid.flat, charts, strict=False):
        _draw(axes, chart, styles, variant, block.narrow)
    for axes in grid.flat[len(charts) :]:
        axes.remove()
    if block.narrow or shared:
        for axes in grid[:, 1:].flat:
            axes.set_ylabel("")
    if block.narrow:
        # all panels are alike, so their places need no search, which takes long for many of them
        _place(figure, grid, len(charts), bool(variant))
    if legend:
        figure.legend(
            handles=[_handle(name, styles[name]) for name in legend],
            loc="outside right upper" if beside else "outside lower center",
            ncols=min(per_row, len(legend)),
            fontsize=FONT_SIZE,
            frameon=False,
            handlelength=2.6,
            columnspacing=1.0,
            labelspacing=0.3,
        )
    if variant:
        # a legend beside the charts begins as high
        place = {"x": 0.02, "ha": "left"} if beside else {}
        figure.suptitle(words(variant), fontsize=TITLE_SIZE, fontweight="bold", **place)
    return figure


def _row_height(ticks: Sequence[tuple[float, str]]) -> float:
    """Inches of a chart whose lines have names."""
    return LINE * sum(_broken(text).count("\n") + 1.5 for _, text in ticks) + 0.7


def _place(figure: Figure, grid: NDArray, count: int, titled: bool) -> None:
    """Leave room for the labels of the outer panels and the titles of all of them."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.42 / width,
        right=1 - 0.08 / width,
        bottom=0.4 / height,
        top=1 - (0.56 if titled else 0.34) / height,
        wspace=0.14,
        hspace=0.36,
    )
    columns = grid.shape[1]
    for place, axes in enumerate(grid.flat[:count]):
        last = place + columns >= count
        axes.tick_params(labelbottom=last, labelleft=place % columns == 0)
        if not last:
            axes.set_xlabel("")


def _draw(axes: Axes, chart: Chart, styles: Mapping[str, MethodStyle], variant: str, small: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(0.6)
    axes.tick_params(labelsize=FONT_SIZE, length=2.5, width=0.6, pad=1.5)
    title = _broken(chart.title, 28 if small else LETTERS)
    axes.set_title(title, fontsize=FONT_SIZE - (1 if small else 0), loc="left", pad=3)
    axes.set_xlabel(chart.x_label, fontsize=FONT_SIZE)
    axes.set_ylabel(chart.y_label, fontsize=FONT_SIZE)
    if chart.zero:
        axes.axvline(0, color=GUIDE, linewidth=0.8, zorder=1)
    for part in chart.parts:
        if part.variant not in ("", variant):
            continue
        if isinstance(part, Heat):
            axes.imshow(
                np.where(part.counts > 0, part.counts, np.nan),
                origin="lower",
                extent=(0, 1, 0, 1),
                cmap=colormaps["viridis"],
                norm=PowerNorm(0.5, 0, part.largest),
                aspect="auto",
                interpolation="none",
            )
        elif isinstance(part, Bars):
            # one shape instead of a patch for every bar, which takes long where there are many panels
            edges = np.append(np.asarray(part.x) - part.width / 2, part.x[-1] + part.width / 2)
            axes.stairs(np.nan_to_num(part.height), edges, fill=True, color=styles[part.method].color, alpha=0.4)
        else:
            _draw_series(axes, part, styles.get(part.method))
    axes.margins(0.06)
    for ticks, set_ticks in ((chart.x_ticks, axes.set_xticks), (chart.y_ticks, axes.set_yticks)):
        if ticks is not None:
            set_ticks([at for at, _ in ticks], [_broken(text) for _, text in ticks])
    if small:
        axes.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    elif chart.x_ticks is None:
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", MINUS)))
    if chart.x_range:
        axes.set_xlim(*chart.x_range)
    if chart.y_range:
        axes.set_ylim(*chart.y_range)


def _draw_series(axes: Axes, part: Series, style: MethodStyle | None) -> None:
    color = style.color if style else GUIDE
    x, y = np.asarray(part.x, dtype=float), np.asarray(part.y, dtype=float)
    if part.lines:
        if part.y_ends is not None:
            low, high = (np.asarray(ends, dtype=float) for ends in part.y_ends)
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            x,
            y,
            color=color,
            linewidth=1.2 if style else 0.8,
            linestyle=DASHES[style.dash] if style else (0, (4, 2)),
            marker=MARKERS[style.symbol] if style and part.markers else None,
            markersize=3.2,
            zorder=2.5 if style else 1.5,
        )
        return
    arms = [
        None
        if ends is None
        else np.nan_to_num([np.maximum(values - ends[0], 0), np.maximum(np.asarray(ends[1]) - values, 0)])
        for values, ends in ((x, part.x_ends), (y, part.y_ends))
    ]
    axes.errorbar(
        x,
        y,
        xerr=arms[0],
        yerr=arms[1],
        color=color,
        linestyle="none",
        marker=MARKERS[style.symbol] if style else "o",
        markersize=4,
        markerfacecolor=color if part.filled else "white",
        markeredgewidth=0.8,
        ecolor=(color, 0.55),
        elinewidth=0.8,
        capsize=1.5,
    )


def _broken(text: str, letters: int = LETTERS) -> str:
    """A long name on several lines."""
    return "\n".join(line for part in text.split("\n") for line in name_lines(part, letters))


def _handle(name: str, style: MethodStyle) -> Line2D:
    return Line2D(
        [],
        [],
        color=style.color,
        linestyle=DASHES[style.dash],
        marker=MARKERS[style.symbol],
        markersize=3.5,
        linewidth=1.2,
        label=f" {name}" if name.startswith("_") else name,
    )
