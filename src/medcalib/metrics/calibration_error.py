"""Calibration errors and bin statistics over the cases of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import MetricReduction
from torch import Tensor

from medcalib.functional import (
    CALIBRATION_ERRORS,
    BinStatistics,
    bin_statistics,
    calibration_error,
    mean_calibration_gap,
)
from medcalib.metrics.region import RegionMetric, reduce_metric

__all__ = ["BinStatisticsMetric", "CalibrationErrorMetric"]

SIGNED = "signed"
_NAMES = {reduction: name for name, reduction in CALIBRATION_ERRORS.items()} | {SIGNED: "gap"}


class CalibrationErrorMetric(RegionMetric):
    r"""Calibration error of every class and case from one binning; several kinds of it at once if wanted.

    With the count :math:`n_k`, mean probability :math:`\bar p_k` and observed frequency :math:`\bar y_k` of bin k and
    :math:`g_k = \bar p_k - \bar y_k`:

    .. math::
        \mathrm{ECE} = \sum_k \frac{n_k}{N} |g_k|, \quad \mathrm{ACE} = \operatorname{mean}_{n_k > 0} |g_k|, \quad
        \mathrm{MCE} = \max_k |g_k|, \quad \mathrm{gap} = \sum_k \frac{n_k}{N} g_k

    Agrees with ``monai.metrics.CalibrationErrorMetric`` where that one is exact. In addition it takes integer label
    maps and masks, counts beyond 2^24 voxels, refuses NaN and values outside [0, 1], and leaves out classes that the
    ground truth lacks. How to call it is said in :class:`medcalib.metrics.RegionMetric`. References:
    https://arxiv.org/abs/1706.04599, https://arxiv.org/abs/2506.03942.

    Args:
        num_bins: number of equal bins on [0, 1].
        include_background: whether the first class counts.
        calibration_reduction: ``"expected"``, ``"average"``, ``"maximum"`` or ``"signed"`` (positive where too much
            probability is given), or several of them.
        metric_reduction: how ``aggregate`` combines cases and classes, as in MONAI.
        get_not_nans: whether ``aggregate`` also returns the number of values that were not NaN.
        ignore_empty: whether a class that the ground truth of a case lacks is NaN there.
        boundary_width: keep only the voxels within this many mm of a voxel with another label.
        soft: soft instead of hard bins.

    Raises:
        ValueError: If ``num_bins``, ``boundary_width`` or a reduction is not as above.

    Example:
        >>> import torch
        >>> metric = CalibrationErrorMetric(2, include_background=False, calibration_reduction=["expected", "signed"])
        >>> y_pred = torch.tensor([[[0.9, 0.9, 0.4], [0.1, 0.1, 0.6]]])
        >>> ece, gap = metric(y_pred, torch.tensor([[[0, 1, 1]]]))
        >>> {name: round(value.item(), 4) for name, value in metric.aggregate().items()}
        {'ece': 0.4, 'gap': -0.4}
    """

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = True,
        calibration_reduction: str | Sequence[str] = "expected",
        metric_reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        ignore_empty: bool = True,
        boundary_width: float | None = None,
        soft: bool = False,
    ) -> None:
        super().__init__(include_background, ignore_empty, boundary_width)
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
        self.single = isinstance(calibration_reduction, str)
        self.calibration_reductions = (
            [calibration_reduction] if isinstance(calibration_reduction, str) else list(calibration_reduction)
        )
        unknown = [name for name in self.calibration_reductions if name not in _NAMES]
        if unknown or not self.calibration_reductions:
            raise ValueError(
                f"calibration_reduction must be one or more of {', '.join(_NAMES)}, got {calibration_reduction!r}."
            )
        self.num_bins = num_bins
        self.metric_reduction = metric_reduction
        self.get_not_nans = get_not_nans
        self.soft = soft

    def compute_region(self, y_pred: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | list[Tensor]:
        """Errors (B, C), float64, in [0, 1] or, signed, [-1, 1]; a list of them for several reductions."""
        statistics = bin_statistics(y_pred, y, num_bins=self.num_bins, soft=self.soft, mask=mask)
        errors = [
            mean_calibration_gap(statistics) if name == SIGNED else calibration_error(statistics, name)
            for name in self.calibration_reductions
        ]
        if self.ignore_empty:
            absent = statistics.sum_true.sum(-1) == 0
            errors = [error.masked_fill(absent, torch.nan) for error in errors]
        return errors[0] if self.single else errors

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> Tensor | tuple[Tensor, Tensor] | dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Combine the cases seen so far.

        Args:
            reduction: replaces ``metric_reduction``.

        Returns:
            The error, or a dictionary of ``ece``, ``ace``, ``mce`` and ``gap`` for several reductions; each with the
            number of values that were not NaN if ``get_not_nans``.

        Raises:
            ValueError: If the metric has seen no case.
        """
        values, reduction = self.buffered(), reduction or self.metric_reduction
        if isinstance(values, Tensor):
            values = [values]
        reduced = [reduce_metric(value, reduction, self.get_not_nans) for value in values]
        if self.single:
            return reduced[0]
        names = [_NAMES[name] for name in self.calibration_reductions]
        return dict(zip(names, reduced, strict=True))


class BinStatisticsMetric(RegionMetric):
    """Bin statistics of every case: the data of reliability diagrams, and of every calibration error to be had later.

    How to call it is said in :class:`medcalib.metrics.RegionMetric`.

    Args:
        num_bins: number of equal bins on [0, 1].
        include_background: whether the first class is kept.
        boundary_width: keep only the voxels within this many mm of a voxel with another label.
        soft: soft instead of hard bins.

    Raises:
        ValueError: If ``num_bins`` or ``boundary_width`` is too small.

    Example:
        >>> import torch
        >>> metric = BinStatisticsMetric(num_bins=2)
        >>> for _ in range(3):
        ...     _ = metric(torch.tensor([[[0.9, 0.6, 0.2]]]), torch.tensor([[[1, 0, 0]]]))
        >>> metric.aggregate().counts.shape, metric.aggregate(pooled=True).counts
        (torch.Size([3, 1, 2]), tensor([[[3, 6]]]))
    """

    def __init__(
        self,
        num_bins: int = 20,
        include_background: bool = True,
        boundary_width: float | None = None,
        soft: bool = False,
    ) -> None:
        super().__init__(include_background, ignore_empty=False, boundary_width=boundary_width)
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
        self.num_bins = num_bins
        self.soft = soft

    def compute_region(self, y_pred: Tensor, y: Tensor, mask: Tensor | None) -> BinStatistics:
        """Bin statistics (B, C, bin)."""
        return bin_statistics(y_pred, y, num_bins=self.num_bins, soft=self.soft, mask=mask)

    def aggregate(self, pooled: bool = False) -> BinStatistics:
        """The statistics of all cases of all ranks.

        Args:
            pooled: whether they are summed over the cases, for micro errors and the diagram of a data set.

        Returns:
            Statistics of shape (case, class, bin), or (1, class, bin) if pooled.

        Raises:
            ValueError: If the metric has seen no case.
        """
        statistics = BinStatistics(*self.buffered())
        return statistics.pool() if pooled else statistics
