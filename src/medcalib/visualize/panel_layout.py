"""Where the panels of a figure lie: fixed places in inches, as a layout engine takes longer than drawing."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from medcalib.visualize.style import ReliabilityStyle

__all__ = ["Panel", "PanelGrid", "panel_grid"]

# Inches.
LEFT, RIGHT, BOTTOM, TOP = 0.44, 0.10, 0.36, 0.06
COLUMN_GAP, ROW_GAP, STRIP, STRIP_GAP = 0.30, 0.24, 0.34, 0.10
SIDE_STRIP = 0.24
COLOR_BAR = 0.50
LINE_SPACING = 1.25 / 72


class Panel(NamedTuple):
    """The axes of one class: the diagram, and the strips of counts beside it where there are any."""

    main: Axes
    count_strip: Axes | None
    side_strip: Axes | None
    leftmost: bool


class PanelGrid(NamedTuple):
    """A figure, its panels in the order of their titles, its title, and the axes of its colour bar."""

    figure: Figure
    panels: list[Panel]
    title: Text | None
    color_bar: Axes | None


def panel_grid(
    titles: Sequence[str],
    style: ReliabilityStyle,
    *,
    columns: int | None = None,
    title: str | None = None,
    legend_entries: Sequence[Artist] = (),
    strip: str | None = None,
    side_strip: bool = False,
    color_bar: bool = False,
) -> PanelGrid:
    """A figure with one square panel for each title, unit axes, and labels only at its left and lower border.

    Args:
        titles: title of each panel.
        style: sizes and words.
        columns: panels in a row; by default up to 3, and 4 from ten panels on.
        title: title of the whole figure.
        legend_entries: handles of the legend along the lower border.
        strip: ``"above"``, ``"below"`` or None: where a strip of counts shares the horizontal axis of its panel.
        side_strip: whether a strip at the right shares the vertical axis of its panel.
        color_bar: whether axes for a colour bar are added at the right border.

    Returns:
        The figure and its parts.

    Raises:
        ValueError: when ``columns`` is below 1.

    Example:
        >>> grid = panel_grid(["liver", "spleen"], ReliabilityStyle())
        >>> len(grid.panels), len(grid.figure.axes)
        (2, 2)
    """
    if columns is None:
        columns = 2 if len(titles) == 4 else 3 if len(titles) < 10 else 4
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)

    line = style.font_size * LINE_SPACING
    title_line = style.title_size * LINE_SPACING
    side = (SIDE_STRIP + STRIP_GAP) if side_strip else 0.0
    bar = COLOR_BAR if color_bar else 0.0
    left_margin = LEFT
    free = style.width - LEFT - RIGHT - bar - (columns - 1) * COLUMN_GAP
    size = min(style.panel_size, free / columns - side)
    frequency_label = style.frequency_label
    if len(frequency_label) * 0.58 * style.font_size / 72 > size:
        frequency_label = textwrap.fill(frequency_label, max(1, len(frequency_label) // 2 + 1))
        left_margin += frequency_label.count("\n") * line
        size -= (left_margin - LEFT) / columns
    if size < 0.3:
        raise ValueError(f"columns={columns} leaves no room for panels in a figure {style.width:g} inches wide.")

    # A bold letter is about 0.62 of the font size wide.
    letters = max(8, int((size + side) * 72 / (0.62 * style.title_size)))
    wrapped = [textwrap.fill(name, letters, max_lines=2, placeholder=" …") for name in titles]
    title_lines = max(name.count("\n") for name in wrapped) + 1
    strip_height = (STRIP + STRIP_GAP) if strip else 0.0
    row_height = title_lines * title_line + 0.03 + strip_height + size
    head = 1.5 * title_line if title else 0.0
    width = left_margin + columns * (size + side) + (columns - 1) * COLUMN_GAP + bar + RIGHT
    legend_letters = max((len(str(entry.get_label())) for entry in legend_entries), default=0)
    legend_columns = max(1, int(width / ((legend_letters * 0.55 + 3.8) * style.font_size / 72)))
    legend_rows = -(-len(legend_entries) // legend_columns)
    foot = BOTTOM + legend_rows * 1.3 * line
    height = TOP + head + rows * row_height + (rows - 1) * ROW_GAP + foot
    figure = Figure(figsize=(width, height), facecolor="white")

    def place(left: float, bottom: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, high / height))

    panels = []
    for number, name in enumerate(wrapped):
        row, column = divmod(number, columns)
        left = left_margin + column * (size + side + COLUMN_GAP)
        bottom = height - TOP - head - row * (row_height + ROW_GAP) - row_height
        main_bottom = bottom + (strip_height if strip == "below" else 0.0)
        main = place(left, main_bottom, size, size)
        count_strip = None
        if strip:
            strip_bottom = bottom if strip == "below" else main_bottom + size + STRIP_GAP
            count_strip = place(left, strip_bottom, size, STRIP)
        beside = place(left + size + STRIP_GAP, main_bottom, SIDE_STRIP, size) if side_strip else None
        figure.text(
            (left + size / 2) / width,
            (bottom + strip_height + size + 0.03) / height,
            name,
            ha="center",
            va="bottom",
            fontsize=style.title_size,
            fontweight="bold",
        )
        panel = Panel(main, count_strip, beside, leftmost=column == 0)
        dress_panel(
            panel,
            style,
            frequency_label,
            last_row=number + columns >= len(titles),
            below=strip == "below",
        )
        panels.append(panel)
    heading = None
    if title:
        heading = figure.text(0.5, 1 - TOP / height, title, ha="center", va="top", fontsize=style.title_size + 1)
    if legend_entries:
        add_legend(figure, legend_entries, -(-len(legend_entries) // legend_rows), style)
    bar_axes = None
    if color_bar:
        high = min(size, 2.0)
        bar_axes = place(width - RIGHT - bar + 0.12, height - TOP - head - row_height + (size - high) / 2, 0.09, high)
    return PanelGrid(figure, panels, heading, bar_axes)


def dress_panel(
    panel: Panel,
    style: ReliabilityStyle,
    frequency_label: str,
    *,
    last_row: bool,
    below: bool,
) -> None:
    """Limits, ticks and labels of the axes of one panel."""
    main, count_strip, side_strip, leftmost = panel
    for axes in (main, count_strip, side_strip):
        if axes is None:
            continue
        # Ticks lie below the marks, so that new marks can be drawn over a kept picture of them.
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_linewidth(0.6)
        axes.tick_params(labelsize=style.font_size, length=2.5, width=0.6, pad=1.5)
    lowest = count_strip if below and count_strip is not None else main
    ticks, names = [0.0, 0.5, 1.0], ["0", "0.5", "1"]
    main.set(xlim=(0, 1), ylim=(0, 1))
    # A tick costs a millisecond, so only the axes at the border of the figure have any.
    if leftmost:
        main.set_yticks(ticks, names)
        main.set_ylabel(frequency_label, fontsize=style.font_size, labelpad=2)
    else:
        main.yaxis.set_ticks([])
    lowest = count_strip if below and count_strip is not None else main
    if lowest is not main:
        main.xaxis.set_ticks([])
    lowest.set_xticks(ticks, names)
    if last_row:
        lowest.set_xlabel(style.confidence_label, fontsize=style.font_size, labelpad=2)
    if count_strip is not None:
        count_strip.set_xlim(0, 1)
        if not below:
            count_strip.xaxis.set_ticks([])
        if leftmost:
            count_strip.set_ylabel(style.count_label, fontsize=style.font_size, labelpad=2)
    if side_strip is not None:
        side_strip.set_ylim(0, 1)
        side_strip.yaxis.set_ticks([])
        if last_row:
            side_strip.set_xlabel(style.case_label, fontsize=style.font_size, labelpad=2)


def add_legend(figure: Figure, entries: Sequence[Artist], columns: int, style: ReliabilityStyle) -> None:
    """The legend along the lower border."""
    figure.legend(
        handles=list(entries),
        loc="lower center",
        ncols=columns,
        fontsize=style.font_size,
        frameon=False,
        borderpad=0.1,
        borderaxespad=0.1,
        handlelength=1.8,
        handletextpad=0.5,
        columnspacing=1.0,
        labelspacing=0.25,
    )
