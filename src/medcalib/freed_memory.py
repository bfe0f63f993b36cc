"""Give memory that nothing uses any more back to the system."""

from __future__ import annotations

import ctypes

__all__ = ["return_freed_memory"]


def return_freed_memory() -> None:
    """Let the C library return the pages that it keeps for later, where it can, which is in glibc.

    Volumes that come and go leave gaps between what stays, so a run over many cases would hold more and more.

    Example:
        >>> return_freed_memory()
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
