"""Figures as the bytes of a file: what another process can draw and hand back."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medcalib.visualize.histogram import draw_dataset_reliability_histograms
from medcalib.visualize.reliability import CaseReliabilityDrawer, draw_dataset_reliability_diagrams

__all__ = ["Backdrop", "render", "render_case", "render_dataset"]


class Backdrop:
    """A figure of which only some artists change from picture to picture: all else is drawn once and kept as pixels.

    Args:
        figure: what is drawn; its resolution is set to ``dpi``.
        changing: the artists that change. Those that are not in axes are drawn on top of everything.
        dpi: resolution of the pictures.

    Example:
        >>> figure = Figure(figsize=(2, 1))
        >>> title = figure.text(0, 0, "first")
        >>> backdrop = Backdrop(figure, [title], dpi=100)
        >>> first = backdrop.picture().copy()
        >>> title.set_text("second")
        >>> first.shape, bool((backdrop.picture() == first).all())
        ((100, 200, 4), False)
    """

    def __init__(self, figure: Figure, changing: Sequence[Artist], dpi: int) -> None:
        figure.set_dpi(dpi)
        self.figure = figure
        self.front = in_front(figure, changing)
        self.renderer = RendererAgg(*figure.canvas.get_width_height(), dpi)
        self.backgrounds: dict[Hashable, Any] = {}

    def picture(self, background: Hashable = None) -> NDArray[np.uint8]:
        """The figure as it is now.

        Args:
            background: a name for the state of all that does not change; what was drawn for that name is used again.

        Returns:
            Red, green, blue and opacity, ``(height, width, 4)``; valid until the next picture.
        """
        if background not in self.backgrounds:
            self.backgrounds[background] = self._draw_background()
        self.renderer.restore_region(self.backgrounds[background])
        for artist in self.front:
            artist.draw(self.renderer)
        return np.asarray(self.renderer.buffer_rgba())

    def _draw_background(self) -> Any:
        shown = [artist for artist in self.front if artist.get_visible()]
        for artist in shown:
            artist.set_visible(False)
        self.renderer.clear()
        self.figure.draw(self.renderer)
        for artist in shown:
            artist.set_visible(True)
        return self.renderer.copy_from_bbox(self.figure.bbox)


def in_front(figure: Figure, changing: Sequence[Artist]) -> list[Artist]:
    """The artists that change and all that lie above one in the same axes, from the lowest to the highest."""
    front: list[Artist] = []
    for axes in figure.axes:
        layers = sorted((child for child in axes.get_children() if child is not axes.patch), key=Artist.get_zorder)
        lowest = next((place for place, child in enumerate(layers) if child in changing), len(layers))
        front += layers[lowest:]
    return front + [artist for artist in changing if artist.axes is None]


def png(picture: NDArray[np.uint8], dpi: int) -> bytes:
    """The content of a PNG file.

    Every row is stored as its difference to the one above. Pillow tries five such filters on each row, which takes
    twice as long as the compression and gains nothing in a diagram.

    Args:
        picture: red, green, blue and opacity, ``(height, width, 4)``.
        dpi: resolution that the file states.

    Example:
        >>> from PIL import Image
        >>> picture = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        >>> np.array_equal(Image.open(io.BytesIO(png(picture, dpi=150))), picture)
        True
    """
    height, width, _ = picture.shape
    rows = picture.reshape(height, -1)
    filtered = np.full((height, 1 + 4 * width), 2, np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    dots_per_metre = round(dpi / 0.0254)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0),
        b"pHYs": struct.pack(">IIB", dots_per_metre, dots_per_metre, 1),
        b"IDAT": zlib.compress(filtered, 1),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@cache
def _case_drawer(class_names: tuple[str, ...], dpi: int) -> tuple[CaseReliabilityDrawer, Backdrop]:
    drawer = CaseReliabilityDrawer(class_names)
    return drawer, Backdrop(drawer.grid.figure, drawer.changing, dpi)


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
        if suffix == "png":
            own_dpi = figure.dpi
            files[suffix] = png(Backdrop(figure, [], dpi).picture(), dpi)
            figure.set_dpi(own_dpi)
        else:
            content = io.BytesIO()
            figure.savefig(content, format=suffix, dpi=dpi)
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
    drawer, backdrop = _case_drawer(class_names, dpi)
    figure = drawer.draw(*statistics, title=title)
    files = render(figure, [suffix for suffix in formats if suffix != "png"], dpi)
    return files | ({"png": png(backdrop.picture(drawer.counts.decade), dpi)} if "png" in formats else {})


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
