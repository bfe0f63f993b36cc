"""The one rule by which a probability belongs to a bin; it also compiles under ``torch.jit.script``."""

import torch
from torch import Tensor

__all__ = ["bin_boundaries", "bin_indices"]

# The last boundary lies a little above 1.
LAST = 1.0 + torch.finfo(torch.float32).eps


def bin_boundaries(num_bins: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the ``num_bins + 1`` boundaries in float32, the last a little above 1."""
    return torch.linspace(0.0, LAST, num_bins + 1, dtype=torch.float32, device=device)


def bin_indices(probs: Tensor, num_bins: int, right: bool = False, last: float = LAST) -> Tensor:
    """Bin of each probability among equal bins of [0, 1], as :func:`medcalib.functional.bin_statistics` chooses it.

    Args:
        probs: probabilities of any shape and floating-point dtype; they are compared in float32.
        num_bins: number of bins.
        right: give a probability on a boundary to the upper bin instead of the lower one.
        last: the last boundary, which lies a little above 1.

    Returns:
        Indices from 0 to ``num_bins - 1``, in the shape of ``probs``.

    Example:
        >>> import torch
        >>> bin_indices(torch.tensor([0.0, 0.5, 0.6, 1.0]), num_bins=2)
        tensor([0, 0, 1, 1])
    """
    boundaries = torch.linspace(0.0, last, num_bins + 1, dtype=torch.float32, device=probs.device)
    return torch.bucketize(probs.float().contiguous(), boundaries[1:], right=right).clamp(max=num_bins - 1)
