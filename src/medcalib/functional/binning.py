"""Bin statistics: the one place that bins, and the sums from which every calibration number follows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medcalib.functional._bins import bin_indices
from medcalib.functional.backends import bin_volume
from medcalib.functional.inputs import is_label_map, plain, prepare_labels, prepare_mask, prepare_target

__all__ = ["BinStatistics", "bin_indices", "bin_statistics"]


class BinStatistics(NamedTuple):
    """Counts and sums per batch element, class and bin.

    They add up: the statistics of a whole are the sum of those of its parts, so batches, ranks and cases combine
    exactly, whatever their sizes.

    Attributes:
        counts: number of voxels, (batch, class, bin); int64 for hard bins, float64 weights for soft ones.
        sum_pred: sum of the predicted probabilities, (batch, class, bin), float64.
        sum_true: sum of the target values, (batch, class, bin), float64.

    Example:
        >>> import torch
        >>> parts = [BinStatistics(*torch.ones(3, 1, 1, 4, dtype=torch.float64)) for _ in range(2)]
        >>> parts[0].merge(parts[1]).counts
        tensor([[[2., 2., 2., 2.]]], dtype=torch.float64)
    """

    counts: Tensor
    sum_pred: Tensor
    sum_true: Tensor

    @property
    def num_bins(self) -> int:
        """Number of bins."""
        return self.counts.shape[-1]

    @property
    def mean_pred(self) -> Tensor:
        """Mean predicted probability per bin, (batch, class, bin), float64; NaN in empty bins."""
        return self.sum_pred / self.counts

    @property
    def mean_true(self) -> Tensor:
        """Mean target per bin (the observed frequency), (batch, class, bin), float64; NaN in empty bins."""
        return self.sum_true / self.counts

    def merge(self, other: BinStatistics) -> BinStatistics:
        """Return the statistics of both sets of voxels together.

        Raises:
            ValueError: If the shapes differ.
        """
        if self.counts.shape != other.counts.shape:
            raise ValueError(
                f"only statistics of one shape (batch, class, bin) merge, got {tuple(self.counts.shape)} and "
                f"{tuple(other.counts.shape)}."
            )
        return BinStatistics(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def pool(self) -> BinStatistics:
        """Return the statistics of all batch elements together; the batch axis stays, with size 1."""
        return BinStatistics(*(part.sum(0, keepdim=True) for part in self))

    def to(self, device: torch.device | str) -> BinStatistics:
        """Return the statistics on ``device``."""
        return BinStatistics(*(part.to(device) for part in self))


def bin_statistics(
    y_pred: Tensor, y: Tensor, num_bins: int = 20, soft: bool = False, mask: Tensor | None = None
) -> BinStatistics:
    r"""Sum voxels, predicted probabilities and targets over equal bins of the predicted probability.

    .. math::
        n_k = \sum_i w_k(p_i), \quad P_k = \sum_i w_k(p_i)\, p_i, \quad Y_k = \sum_i w_k(p_i)\, y_i

    for each batch element and class. A hard bin takes the probabilities of :math:`(l_k, l_{k+1}]` whole, the first one
    with 0 included (a probability on a boundary belongs to the lower bin, the convention of
    ``monai.metrics.calibration_binning``; bins are chosen in float32). A soft bin shares each probability linearly
    between the two nearest bin centres; beyond the outer centres it goes to the outer bin whole
    (https://arxiv.org/abs/2506.03942).

    Args:
        y_pred: probabilities (B, C, ...) of any spatial rank, any floating-point dtype; each class is its own binary
            problem, so channels need not sum to 1.
        y: integer label map (B, 1, ...), in any dtype that holds whole numbers; or a one-hot, soft or multi-label
            target (B, C, ...). With C = 1 it is a target.
        num_bins: number of bins.
        soft: soft instead of hard bins.
        mask: optional (B, 1, ...); voxels where it is zero do not count and are not checked.

    Returns:
        Statistics of shape (B, C, num_bins) on the device of ``y_pred``. Nothing is differentiable.

    Raises:
        ValueError: If shapes do not fit, if ``num_bins < 1``, if a probability is NaN or outside [0, 1] (by more than
            rounding, 1e-6), if a label is outside the classes, or if a target is outside [0, 1].

    Example:
        >>> import torch
        >>> y_pred = torch.tensor([[[0.9, 0.8, 0.3], [0.1, 0.2, 0.7]]])
        >>> y = torch.tensor([[[0, 0, 1]]])
        >>> bin_statistics(y_pred, y, num_bins=2).counts
        tensor([[[1, 2],
                 [2, 1]]])
    """
    return _bin_statistics(y_pred, y, num_bins, soft, mask)


def _bin_statistics(
    y_pred: Tensor,
    y: Tensor,
    num_bins: int,
    soft: bool,
    mask: Tensor | None,
    *,
    right: bool = False,
    backend: str | None = None,
) -> BinStatistics:
    labels = is_label_map(y_pred, y, num_bins)
    voxel_mask = prepare_mask(y_pred, mask)
    probs = plain(y_pred).reshape(*y_pred.shape[:2], -1)
    truth = prepare_labels(y, probs.shape[1], voxel_mask) if labels else prepare_target(y, voxel_mask)
    sums = bin_volume(
        probs, truth, num_bins, voxel_mask, use_labels=labels, soft=soft, right=right, check=True, backend=backend
    )
    counts = sums[..., 0] if soft else sums[..., 0].round().long()
    return BinStatistics(counts.contiguous(), sums[..., 1].contiguous(), sums[..., 2].contiguous())
