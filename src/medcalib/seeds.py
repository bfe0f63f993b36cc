"""Seeds derived from others."""

from __future__ import annotations

import hashlib

__all__ = ["derived_seed"]


def derived_seed(*parts: int) -> int:
    """A 32-bit seed that depends on every part, and not on their sum.

    Example:
        >>> derived_seed(1, 2) != derived_seed(2, 1)
        True
    """
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")
