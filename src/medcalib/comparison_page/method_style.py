"""One look a method, the same in all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

__all__ = ["DARK", "LIGHT", "MethodStyle", "method_styles"]

# Hues of Okabe and Ito (https://jfly.uni-koeln.de/color/), as dark as a white page and as light as a dark page needs
# them; the first is for the reference.
LIGHT = ("#3d4450", "#0072b2", "#d55e00", "#00835c", "#b0478a", "#97700a", "#2a8fcf")
DARK = ("#d5dae2", "#4fa8e8", "#ff8d4d", "#35c99b", "#ea94cd", "#e8b93a", "#a5d8ff")
# names of plotly
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "hexagon")


class MethodStyle(NamedTuple):
    """How a method is drawn; no two methods of a page share all of it.

    Attributes:
        number: place of its colour in `LIGHT` and `DARK`.
        dash: of lines, as plotly calls it.
        symbol: of points, as plotly calls it.
    """

    number: int
    dash: str
    symbol: str

    @property
    def color(self) -> str:
        """The colour on white."""
        return LIGHT[self.number]


def method_styles(
    methods: Sequence[str], reference: str, groups: Mapping[str, str] | None = None
) -> dict[str, MethodStyle]:
    """A look for every method: by default a colour of its own as long as there are colours, then another dash as well.

    Args:
        methods: names, in order.
        reference: the one that is drawn in grey.
        groups: group of a method; with several, the colour says the group, and dash and symbol the method in it.

    Returns:
        Looks by method, in the order given.

    Example:
        >>> looks = method_styles(["plain", "tempered"], "plain")
        >>> looks["plain"].number, looks["tempered"].number, looks["tempered"].dash
        (0, 1, 'solid')
    """
    colors = dict(zip(dict.fromkeys((groups or {}).get(name, "") for name in methods), count()))
    if len(colors) == 1:
        groups = None
    looks: dict[str, MethodStyle] = {}
    place = 0
    for name in methods:
        if groups:
            color, turn = 1 + colors[groups.get(name, "")] % (len(LIGHT) - 1), 0
        elif name == reference:
            color, turn = 0, 0
        else:
            turn, color = divmod(place, len(LIGHT) - 1)
            color += 1
            place += 1
        taken = set(looks.values())
        looks[name] = next(
            look
            for step in count(turn)
            if (look := MethodStyle(color, DASHES[step % len(DASHES)], SYMBOLS[step % len(SYMBOLS)])) not in taken
            or step > turn + len(DASHES) * len(SYMBOLS)
        )
    return looks
