"""Calibration errors less what they would be by chance alone, and how far frequencies stray by chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medcalib.functional.binning import BinStatistics

__all__ = ["INDEPENDENT_UNITS", "consistency_band", "debiased_calibration_error", "debiased_errors"]

INDEPENDENT_UNITS = ("voxel", "case")
"""What is taken to be independent of each other: all voxels, or only the cases, whatever the voxels of a case do.

A classified image has one prediction and counts as a voxel; those of one patient or slide may not be independent."""


def debiased_calibration_error(statistics: BinStatistics, norm: str = "l1", unit: str = "voxel") -> Tensor:
    r"""Calibration error less the part that finite counts add to it (Kumar et al., https://arxiv.org/abs/1909.10155).

    The gap of a bin is never 0, even for perfect probabilities, since the observed frequency strays; so plain errors
    are too high, the more the fewer voxels there are. With gaps :math:`g_k`, weights :math:`w_k = n_k / N`, the
    observed frequency :math:`\bar y_k` and its variance :math:`s_k^2`, the squared error (``"l2"``) is

    .. math::
        \sum_k w_k \left(g_k^2 - s_k^2\right)

    which is right in the mean, and the expected error (``"l1"``)

    .. math::
        2\,\mathrm{ECE} - \sum_k w_k \operatorname{E}\lvert g_k + s_k Z\rvert, \quad Z \sim N(0, 1)

    which takes the observed frequencies for those from which others stray. So a part of the chance stays in it: of
    right probabilities :math:`2 - \sqrt 2`, 59 %, of the plain error is left in the mean; of the squared error none is.
    The published code draws Z; here the mean is that of the folded normal distribution.

    With ``unit="voxel"``, :math:`s_k^2 = \bar y_k (1 - \bar y_k) / (n_k - 1)`, for ``"l1"`` with :math:`n_k` instead,
    as published: voxels are independent. Voxels of a segmentation are not, since a border that is drawn too wide is so
    in many of them, and this takes away too little. With ``unit="case"`` the cases are pooled, and :math:`s_k^2` is
    estimated from how their gaps differ, whatever the voxels within a case do; a bin that a single case fills says
    nothing of that and is treated as with voxels.

    Args:
        statistics: bin statistics (batch, class, bin) of hard bins and a binary target.
        norm: ``"l1"``, beside ECE; or ``"l2"``, of which the root is the error of root mean squares.
        unit: ``"voxel"`` or ``"case"``.

    Returns:
        Errors (batch, class), or (1, class) of cases, float64, at most 1; below 0 where the gaps are smaller than
        those to be expected by chance; NaN where no bin is filled, and of ``"l2"`` where each holds a single voxel.

    Raises:
        ValueError: If ``norm`` or ``unit`` is none of these.

    Example:
        >>> statistics = BinStatistics(*(torch.tensor([[[n]]]) for n in (10, 5.0, 7.0)))
        >>> round(debiased_calibration_error(statistics).item(), 4)
        0.1889
        >>> round(debiased_calibration_error(statistics, "l2").item(), 4)
        0.0167
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f'norm must be "l1" or "l2", got {norm!r}.')
    _check_unit(unit)
    pooled = statistics.pool() if unit == "case" else statistics
    counts = pooled.counts.double()
    gap = (pooled.sum_pred - pooled.sum_true) / counts
    frequency = pooled.sum_true / counts
    variance = (frequency * (1 - frequency)).clamp(min=0) / (counts if norm == "l1" else counts - 1)
    if unit == "case":
        variance = _variance_over_cases(statistics, gap).where(_cases_of_bins(statistics) > 1, variance)
    if norm == "l1":
        of_bins = 2 * gap.abs() - _folded_mean(gap, variance.sqrt())
    else:
        # as in the published code, a bin of a single voxel says nothing, and counts as one without a gap
        few = counts < 2
        of_bins = (gap.square() - variance).masked_fill(few, 0).masked_fill(few.all(-1, keepdim=True), torch.nan)
    weights = counts / counts.sum(-1, keepdim=True)
    return (weights * of_bins.masked_fill(counts == 0, 0)).sum(-1)


def debiased_errors(statistics: BinStatistics, unit: str) -> dict[str, Tensor]:
    """What is reported beside the pooled ECE: the debiased one, and the root mean square error with and without chance.

    Args:
        statistics: bin statistics (batch, class, bin) of hard bins and a binary target; they are pooled.
        unit: what is independent, as of `debiased_calibration_error`.

    Returns:
        Errors (1, class), float64, NaN where no bin is filled: ``ece_debiased``, at most 1, which may be negative;
        ``rmsce``, the root of the mean squared gap, in [0, 1]; and ``rmsce_debiased``, in [0, 1], 0 where the gaps are
        smaller than those of chance, NaN where every bin holds a single voxel. The debiased squared error of right
        probabilities is 0 in the mean, so its root is above 0 about every other time.

    Raises:
        ValueError: If ``unit`` is none of these.

    Example:
        >>> statistics = BinStatistics(*(torch.tensor([[[n]]]) for n in (10, 5.0, 7.0)))
        >>> {name: round(error.item(), 4) for name, error in debiased_errors(statistics, "voxel").items()}
        {'ece_debiased': 0.1889, 'rmsce': 0.2, 'rmsce_debiased': 0.1291}
    """
    pooled = statistics.pool()
    counts = pooled.counts.double()
    share, gap = counts / counts.sum(-1, keepdim=True), (pooled.sum_pred - pooled.sum_true) / counts
    of_units = pooled if unit == "voxel" else statistics
    return {
        "ece_debiased": debiased_calibration_error(of_units, "l1", unit),
        "rmsce": (share * gap.nan_to_num(0).square()).sum(-1).sqrt(),
        "rmsce_debiased": debiased_calibration_error(of_units, "l2", unit).clamp(min=0).sqrt(),
    }


def consistency_band(
    statistics: BinStatistics, level: float = 0.95, unit: str = "voxel", num_draws: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Where the observed frequency of each bin would lie if the probabilities were right, with probability ``level``.

    With ``unit="voxel"`` this is consistency resampling (Broecker & Smith 2007, https://doi.org/10.1175/WAF993.1):
    voxels are drawn anew, with labels drawn from their probabilities, all independent. Summed over a bin, that is a
    binomial number of voxels, and a binomial number of labels with the mean probability of the bin. The band is far
    too narrow where voxels stray together, as they do in segmentations.

    With ``unit="case"`` the cases are pooled and their gaps, :math:`d_i = \sum p - \sum y` in the bin, change sign by
    chance: if the probabilities are right, a case strays up as easily as down, however its voxels depend on each other.
    So the band shows what the differences between cases explain. With very few cases it is wide: a single one cannot
    contradict.

    Args:
        statistics: bin statistics (batch, class, bin) of hard bins and a binary target.
        level: probability, for each bin on its own, in (0, 1).
        unit: ``"voxel"``, for each element of the batch on its own, or ``"case"``, for all of them together.
        num_draws: number of draws.
        seed: of the draws; equal seeds give equal bands.

    Returns:
        Lower and upper ends, frequencies in [0, 1], each (batch, class, bin), or (1, class, bin) of cases, float64, on
        the CPU; NaN in empty bins.

    Raises:
        ValueError: If ``level`` or ``num_draws`` is out of range, or ``unit`` is neither of the two.

    Example:
        >>> statistics = BinStatistics(*(torch.tensor([[[n]]]) for n in (100, 50.0, 62.0)))
        >>> low, high = consistency_band(statistics)
        >>> 0.38 < low.item() < 0.42, 0.58 < high.item() < 0.62
        (True, True)
    """
    _check_unit(unit)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}.")
    statistics = statistics.to("cpu")
    generator = torch.Generator().manual_seed(seed)
    if unit == "case":
        pooled = statistics.pool()
        gaps = (statistics.sum_pred - statistics.sum_true).double()
        signs = torch.randint(2, (num_draws, len(gaps)), generator=generator).double() * 2 - 1
        strayed = (signs @ gaps.flatten(1)).abs().reshape(num_draws, *gaps.shape[1:]) / pooled.counts
        width = _quantile(strayed, level)[None]
        low, high = pooled.mean_pred - width, pooled.mean_pred + width
        return low.clamp(0, 1), high.clamp(0, 1)
    counts = statistics.counts.double()
    total = counts.sum(-1, keepdim=True).clamp(min=1)
    shape = (num_draws, *counts.shape)
    number = torch.binomial(total.expand(shape).contiguous(), (counts / total).expand(shape).contiguous(), generator)
    chance = statistics.mean_pred.double().nan_to_num(0).clamp(0, 1)
    strayed = torch.binomial(number, chance.expand(shape).contiguous(), generator) / number
    empty = counts == 0
    ends = (_quantile(strayed, tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    low, high = (end.masked_fill(empty, torch.nan) for end in ends)
    return low, high


def _check_unit(unit: str) -> None:
    if unit not in INDEPENDENT_UNITS:
        raise ValueError(f'unit must be "voxel" or "case", got {unit!r}.')


def _cases_of_bins(statistics: BinStatistics) -> Tensor:
    """How many cases fill each bin, (1, class, bin)."""
    return (statistics.counts > 0).sum(0, keepdim=True)


def _variance_over_cases(statistics: BinStatistics, gap: Tensor) -> Tensor:
    """Variance of the pooled gap as a ratio of sums over cases, (1, class, bin)."""
    number = _cases_of_bins(statistics).double()
    of_cases = statistics.sum_pred - statistics.sum_true - statistics.counts * gap.nan_to_num(0)
    spread = of_cases.square().sum(0, keepdim=True) / statistics.counts.sum(0, keepdim=True).double().square()
    return spread * number / (number - 1)


def _folded_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """Mean of the absolute value of a normal variable."""
    ratio = (mean / deviation).nan_to_num(0, posinf=torch.inf, neginf=-torch.inf)
    bell = math.sqrt(2 / math.pi) * deviation * torch.exp(-ratio.square() / 2)
    return bell + mean * torch.erf(ratio / math.sqrt(2))


def _quantile(values: Tensor, level: float) -> Tensor:
    """Quantile over the first axis without NaN, in slices that torch can sort."""
    flat = values.flatten(1)
    parts = [torch.nanquantile(part, level, dim=0) for part in flat.split(max(1, (1 << 24) // len(flat)) // 2 + 1, 1)]
    return torch.cat(parts).reshape(values.shape[1:])
