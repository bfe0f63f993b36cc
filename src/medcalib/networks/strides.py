"""By how much a network makes images smaller from level to level."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["suited_strides"]

# an axis that would become shorter than this is not halved again
_SHORTEST = 4


def suited_strides(patch_size: Sequence[int], num_levels: int) -> list[list[int]]:
    """Halve each axis from level to level as long as it is even and stays at least 4 long, as nnU-Net does.

    Args:
        patch_size: voxels per axis of a training patch.
        num_levels: levels of the network.

    Returns:
        Strides of every level, one per axis; those of the first are 1.

    Example:
        >>> suited_strides([64, 64, 12], 4)
        [[1, 1, 1], [2, 2, 2], [2, 2, 1], [2, 2, 1]]
    """
    sizes, strides = list(patch_size), [[1] * len(patch_size)]
    for _ in range(num_levels - 1):
        strides.append([2 if size % 2 == 0 and size // 2 >= _SHORTEST else 1 for size in sizes])
        sizes = [size // stride for size, stride in zip(sizes, strides[-1], strict=True)]
    return strides
