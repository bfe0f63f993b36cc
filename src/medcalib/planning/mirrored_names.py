"""Which axes may be flipped without turning one class into another, by the names of the classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["flip_axes"]

_SIDES = {"left", "right", "l", "r", "lt", "rt", "lh", "rh", "links", "rechts"}
_OPPOSITES = (
    # by axis of the orientation RAS
    (),
    (("anterior", "posterior"), ("ant", "post"), ("front", "back"), ("ventral", "dorsal"), ("frontal", "occipital")),
    (("superior", "inferior"), ("upper", "lower"), ("cranial", "caudal"), ("top", "bottom"), ("apical", "basal")),
)
_OPPOSITES_IN_PICTURES = (
    (),
    (("upper", "lower"), ("top", "bottom"), ("superior", "inferior"), ("above", "below")),
)


def flip_axes(class_names: Sequence[str], spatial_dims: int = 3) -> tuple[list[int], list[str]]:
    """Axes along which images may be flipped.

    A flip along the first axis makes a left organ look like a right one, so no class may be named after a side; one
    side is enough, since the other may be background. A flip along another axis swaps classes only where both of two
    opposite names are there, as ``anterior`` and ``posterior``: an ``inferior_vena_cava`` alone has no counterpart.

    Args:
        class_names: names of classes and regions.
        spatial_dims: 3 for volumes with the axes left-right, back-front, foot-head; 2 for pictures, x and y.

    Returns:
        The axes, and for each one that is left out a reason.

    Example:
        >>> flip_axes(["background", "left_kidney", "liver"])
        ([1, 2], ['not along axis 0, since left_kidney is named after a side'])
        >>> flip_axes(["background", "Anterior", "Posterior"])
        ([0, 2], ['not along axis 1, which would swap Anterior and Posterior'])
        >>> flip_axes(["background", "inferior_vena_cava", "lesion"])
        ([0, 1, 2], [])
    """
    words = {name: _words(name) for name in class_names}
    axes, reasons = [], []
    for axis, opposites in enumerate(_OPPOSITES if spatial_dims == 3 else _OPPOSITES_IN_PICTURES):
        sides = [name for name, of_name in words.items() if _SIDES & set(of_name)] if axis == 0 else []
        pairs = [pair for two in opposites if (pair := _swapped(words, *two))]
        if sides:
            reasons.append(f"not along axis 0, since {sides[0]} is named after a side")
        elif pairs:
            reasons.append(f"not along axis {axis}, which would swap {pairs[0][0]} and {pairs[0][1]}")
        else:
            axes.append(axis)
    return axes, reasons


def _words(name: str) -> list[str]:
    """The words of a name, also of one as ``LeftKidney``."""
    return [word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def _swapped(words: dict[str, list[str]], one: str, other: str) -> tuple[str, str] | None:
    """Two names that are the same but for a word and its opposite."""
    for name, of_name in words.items():
        if one not in of_name:
            continue
        opposite = [other if word == one else word for word in of_name]
        for candidate, of_candidate in words.items():
            if of_candidate == opposite:
                return name, candidate
    return None
