"""Divide a volume, so that what is computed from it on the way exists for a few voxels at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

from torch import Tensor

__all__ = ["can_overwrite", "slabs"]

# float32 values of a slab: 16 MB
SLAB = 1 << 22
# A vector of a CPU holds up to 16 float32, and torch adds up to 4 of them at a time. The last bits of an exponential or
# a sum can depend on whether a value is computed in such a vector, so slabs end where vectors do.
_VECTORS = 64


def slabs(values: Tensor, size: int = SLAB) -> Iterator[tuple[slice, ...]]:
    """Divide a case (C, X, ...) along its first spatial axis.

    What torch computes of the classes of each voxel, such as a softmax or a sum over classes, is bit for bit the same
    slab by slab as of the whole.

    Args:
        values: values of a case (C, X, ...), or of an image (C,).
        size: about how many values a slab is to have.

    Returns:
        Indices of the slabs, each with all channels; a single one where the case is small.

    Example:
        >>> import torch
        >>> [part[1] for part in slabs(torch.zeros(2, 5, 8, 8), size=256)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    if values.ndim == 1:
        yield (slice(None),)
        return
    planes = values.shape[1]
    voxels_of_plane = values.shape[2:].numel()
    multiple = _VECTORS // gcd(voxels_of_plane, _VECTORS)
    step = max(size // max(values.shape[0] * voxels_of_plane, 1) // multiple, 1) * multiple
    for start in range(0, planes, step):
        yield slice(None), slice(start, start + step)


def can_overwrite(values: Tensor) -> bool:
    """Whether results of the same size may be written over these values.

    Not where each of them has no place of its own, or where torch remembers them.

    Example:
        >>> import torch
        >>> can_overwrite(torch.zeros(2, 4)), can_overwrite(torch.zeros(2, 1).expand(2, 4))
        (True, False)
    """
    return (
        not values.requires_grad
        and not values.is_inference()
        and all(stride > 0 or size == 1 for stride, size in zip(values.stride(), values.shape, strict=True))
    )
