"""Calibration errors: arithmetic on bin statistics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medcalib.functional.binning import BinStatistics

__all__ = [
    "CALIBRATION_ERRORS",
    "BrierDecomposition",
    "brier_decomposition",
    "calibration_error",
    "calibration_gap",
    "every_calibration_error",
    "mean_calibration_gap",
]

CALIBRATION_ERRORS = {"ece": "expected", "ace": "average", "mce": "maximum"}
"""How each calibration error reduces the gaps of the bins, by the name under which it stands in results."""


class BrierDecomposition(NamedTuple):
    """The three terms of the binned Brier score, each (batch, class), float64.

    Attributes:
        reliability: count-weighted mean squared gap, in [0, 1]; 0 is perfect calibration.
        resolution: count-weighted variance of the bins' observed frequencies, in [0, 0.25]; more is better.
        uncertainty: variance of the target at its base rate, in [0, 0.25]; a property of the data alone.

    Example:
        >>> import torch
        >>> from medcalib.functional import bin_statistics
        >>> statistics = bin_statistics(torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[0, 1]]]), num_bins=2)
        >>> brier_decomposition(statistics).reliability
        tensor([[0.0625]], dtype=torch.float64)
    """

    reliability: Tensor
    resolution: Tensor
    uncertainty: Tensor


# Bins of less weight are empty, as in the soft losses; a voxel in a hard bin weighs 1.
EMPTY_WEIGHT = 0.01


def calibration_gap(statistics: BinStatistics, empty_weight: float = EMPTY_WEIGHT) -> Tensor:
    r"""Signed gap per bin, :math:`g_k = (P_k - Y_k) / n_k`: positive where the prediction is over-confident.

    Args:
        statistics: bin statistics (batch, class, bin).
        empty_weight: soft bins of less weight are empty, as in :class:`medcalib.losses.SoftL1ACELoss`; in [0, 1], so
            that it does not matter to hard bins.

    Returns:
        Gaps (batch, class, bin), float64, in [-1, 1]; NaN in empty bins.

    Raises:
        ValueError: If ``empty_weight`` is out of range.

    Example:
        >>> import torch
        >>> from medcalib.functional import bin_statistics
        >>> p, y = torch.tensor([[[0.2, 0.2, 0.9, 0.9]]]), torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])
        >>> calibration_gap(bin_statistics(p, y, num_bins=2))
        tensor([[[0.2000, 0.4000]]], dtype=torch.float64)
    """
    if not 0 <= empty_weight <= 1:
        raise ValueError(f"empty_weight must be in [0, 1], got {empty_weight}.")
    gap = (statistics.sum_pred - statistics.sum_true) / statistics.counts
    return gap.masked_fill(statistics.counts < empty_weight, torch.nan)


def mean_calibration_gap(statistics: BinStatistics) -> Tensor:
    r"""Count-weighted mean of the signed gaps, :math:`\sum_k (P_k - Y_k) / \sum_k n_k`.

    Args:
        statistics: bin statistics (batch, class, bin).

    Returns:
        Mean gaps (batch, class), float64, in [-1, 1]: positive means too much probability on the class over all;
        NaN where no bin is filled.

    Example:
        >>> import torch
        >>> from medcalib.functional import bin_statistics
        >>> p, y = torch.tensor([[[0.2, 0.2, 0.9, 0.9]]]), torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])
        >>> mean_calibration_gap(bin_statistics(p, y, num_bins=2))
        tensor([[0.3000]], dtype=torch.float64)
    """
    return (statistics.sum_pred - statistics.sum_true).sum(-1) / statistics.counts.sum(-1)


def calibration_error(
    statistics: BinStatistics, reduction: str = "expected", empty_weight: float = EMPTY_WEIGHT
) -> Tensor:
    r"""Calibration error of each class from its bin gaps :math:`g_k`.

    ``"expected"`` (ECE) is :math:`\sum_k n_k |g_k| / \sum_k n_k`, ``"average"`` (ACE) the plain mean of :math:`|g_k|`
    over filled bins, ``"maximum"`` (MCE) their largest (Guo et al. 2017, https://arxiv.org/abs/1706.04599; average
    and maximum per class as in https://arxiv.org/abs/2506.03942).

    Args:
        statistics: bin statistics (batch, class, bin). Pool them first for a value over all cases (micro).
        reduction: ``"expected"``, ``"average"`` or ``"maximum"``.
        empty_weight: soft bins of less weight are not filled, as in :func:`calibration_gap`; to the expected error
            they count with their weight.

    Returns:
        Errors (batch, class), float64, in [0, 1]; NaN where no bin is filled.

    Raises:
        ValueError: If ``reduction`` is none of the three, or ``empty_weight`` is out of range.

    Example:
        >>> import torch
        >>> from medcalib.functional import bin_statistics
        >>> p, y = torch.tensor([[[0.2, 0.2, 0.2, 0.9]]]), torch.tensor([[[0.0, 0.0, 0.0, 0.0]]])
        >>> statistics = bin_statistics(p, y, num_bins=2)
        >>> [round(calibration_error(statistics, name).item(), 3) for name in ("expected", "average", "maximum")]
        [0.375, 0.55, 0.9]
    """
    gap = calibration_gap(statistics, empty_weight).abs()
    if reduction == "expected":
        return (statistics.sum_pred - statistics.sum_true).abs().sum(-1) / statistics.counts.sum(-1)
    if reduction == "average":
        return gap.nanmean(-1)
    if reduction == "maximum":
        largest = gap.nan_to_num(-1.0).amax(-1)
        return largest.masked_fill(largest < 0, torch.nan)
    raise ValueError(f'reduction must be "expected", "average" or "maximum", got {reduction!r}.')


def every_calibration_error(statistics: BinStatistics, ignore_empty: bool = True) -> dict[str, Tensor]:
    """Every :func:`calibration_error`, by the name under which it stands in results.

    Args:
        statistics: bin statistics (batch, class, bin).
        ignore_empty: whether a class that the target lacks is NaN.

    Returns:
        ``ece``, ``ace`` and ``mce``, each (batch, class), float64, in [0, 1]; NaN also where no bin is filled.

    Example:
        >>> from medcalib.functional import bin_statistics
        >>> p, y = torch.tensor([[[0.2, 0.2, 0.2, 0.9]]]), torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
        >>> errors = every_calibration_error(bin_statistics(p, y, num_bins=2))
        >>> {name: round(value.item(), 3) for name, value in errors.items()}
        {'ece': 0.175, 'ace': 0.15, 'mce': 0.2}
    """
    errors = {name: calibration_error(statistics, reduction) for name, reduction in CALIBRATION_ERRORS.items()}
    absent = statistics.sum_true.sum(-1) == 0
    return {name: error.masked_fill(absent & ignore_empty, torch.nan) for name, error in errors.items()}


def brier_decomposition(statistics: BinStatistics) -> BrierDecomposition:
    r"""Split the Brier score of each class into reliability, resolution and uncertainty.

    .. math::
        \frac{1}{N} \sum_k n_k (\bar p_k - \bar y_k)^2, \quad \frac{1}{N} \sum_k n_k (\bar y_k - \bar y)^2, \quad
        \bar y (1 - \bar y)

    The Brier score is reliability - resolution + uncertainty up to the spread of the probabilities inside each bin,
    which no binned sum keeps (Murphy 1973, https://doi.org/10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).

    Args:
        statistics: bin statistics (batch, class, bin) of hard bins and a binary target.

    Returns:
        The three terms, each (batch, class), float64; NaN where no bin is filled.

    Example:
        >>> import torch
        >>> from medcalib.functional import bin_statistics
        >>> p, y = torch.tensor([[[0.25, 0.25, 0.75, 0.75]]]), torch.tensor([[[0.0, 1.0, 1.0, 1.0]]])
        >>> [round(term.item(), 4) for term in brier_decomposition(bin_statistics(p, y, num_bins=2))]
        [0.0625, 0.0625, 0.1875]
    """
    total = statistics.counts.sum(-1)
    base_rate = statistics.sum_true.sum(-1) / total
    share = statistics.counts / total[..., None]
    reliability = (share * calibration_gap(statistics, empty_weight=0).square()).nansum(-1)
    resolution = (share * (statistics.mean_true - base_rate[..., None]).square()).nansum(-1)
    return BrierDecomposition(
        reliability.where(total > 0, torch.nan), resolution.where(total > 0, torch.nan), base_rate * (1 - base_rate)
    )
