"""How compiled CPU kernels are built and spread over cores. Importing this imports numba."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import torch

__all__ = ["compiled", "map_parts", "split"]

# Below this many values starting threads costs more than it saves.
_SERIAL = 1 << 16
# Parts begin at multiples of this, so that only the last one ends within a kernel's tile.
_GRAIN = 1 << 10
# Sums may be reordered, which lets loops use vector instructions; NaN keeps its meaning, since kernels test for it.
_FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Return a decorator that compiles on first call without the global lock, and caches on disk where it can."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FASTMATH, **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # numba refuses cache=True where neither the package nor the user's cache folder can be written.
            return numba.njit(**options)(function)

    return decorate


def split(batch: int, voxels: int, values: int) -> list[tuple[int, int, int]]:
    """Return parts ``(batch element, start, stop)``, as many per element as torch may use threads."""
    threads = 1 if values < _SERIAL else torch.get_num_threads()
    step = max(-(-voxels // (threads * _GRAIN)), 1) * _GRAIN
    return [(b, start, min(start + step, voxels)) for b in range(batch) for start in range(0, voxels, step)]


def map_parts(function: Callable, parts: Iterable[tuple[int, int, int]], values: int) -> list:
    """Call ``function`` on each part, results in order, on threads of this call alone, so that forking stays safe."""
    threads = torch.get_num_threads()
    if values < _SERIAL or threads == 1:
        return [function(*part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda part: function(*part), parts))
