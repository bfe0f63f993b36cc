"""Handlers and metrics that a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

__all__ = ["switched_on"]

Part = TypeVar("Part")


def switched_on(parts: Mapping[str, Part | None]) -> dict[str, Part]:
    """Those handlers or metrics of a configuration that nobody switched off.

    Args:
        parts: handlers or metrics by name; None in the place of one that is switched off.

    Returns:
        The others, in their order.

    Example:
        >>> switched_on({"stats": len, "tensorboard": None})
        {'stats': <built-in function len>}
    """
    return {name: part for name, part in parts.items() if part is not None}
