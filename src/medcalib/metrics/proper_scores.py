"""Proper scoring rules over the cases of an epoch."""

from __future__ import annotations

from typing import cast

import torch
from monai.utils import MetricReduction
from torch import Tensor

from medcalib.functional import (
    bin_statistics,
    brier_decomposition,
    brier_score,
    categorical_negative_log_likelihood,
    negative_log_likelihood,
)
from medcalib.metrics.region import RegionMetric, classes_present, reduce_metric

__all__ = ["BrierScoreMetric", "NegativeLogLikelihoodMetric"]


class NegativeLogLikelihoodMetric(RegionMetric):
    """Mean negative log-likelihood in nats a voxel, of each class against the others or of all classes together.

    Equations: :func:`medcalib.functional.negative_log_likelihood` and
    :func:`medcalib.functional.categorical_negative_log_likelihood`. How to call it is said in
    :class:`medcalib.metrics.RegionMetric`.

    Args:
        include_background: whether the first class counts; without effect if ``categorical``.
        categorical: one value a case, (B, 1), over classes that exclude each other, instead of one a class.
        metric_reduction: how ``aggregate`` combines cases and classes, as in MONAI.
        get_not_nans: whether ``aggregate`` also returns the number of values that were not NaN.
        ignore_empty: whether a class that the ground truth of a case lacks is NaN there; without effect if
            ``categorical``.
        boundary_width: keep only the voxels within this many mm of a voxel with another label.

    Raises:
        ValueError: If ``boundary_width`` is not above 0.

    Example:
        >>> import torch
        >>> metric = NegativeLogLikelihoodMetric(categorical=True)
        >>> _ = metric(torch.full((1, 4, 8), 0.25), torch.zeros(1, 1, 8))
        >>> round(metric.aggregate().item(), 4)
        1.3863
    """

    def __init__(
        self,
        include_background: bool = True,
        categorical: bool = False,
        metric_reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        ignore_empty: bool = True,
        boundary_width: float | None = None,
    ) -> None:
        # A single value over all classes has no background to leave out.
        super().__init__(include_background or categorical, ignore_empty, boundary_width)
        self.categorical = categorical
        self.metric_reduction = metric_reduction
        self.get_not_nans = get_not_nans

    def compute_region(self, y_pred: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """Values (B, C), or (B, 1) if categorical, float64; NaN where no voxel counts."""
        if self.categorical:
            return categorical_negative_log_likelihood(y_pred, y, mask)[:, None]
        values = negative_log_likelihood(y_pred, y, mask)
        if self.ignore_empty:
            values = values.where(classes_present(y, y_pred.shape[1], mask), torch.nan)
        return values

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Combine the cases seen so far, with ``reduction`` instead of ``metric_reduction`` if given.

        Raises:
            ValueError: If the metric has seen no case.
        """
        values = cast(Tensor, self.buffered())
        return reduce_metric(values, reduction or self.metric_reduction, self.get_not_nans)


class BrierScoreMetric(RegionMetric):
    r"""Brier score of each class, with its reliability, resolution and uncertainty if wanted.

    .. math::
        \frac{1}{N} \sum_i (p_i - y_i)^2 \approx \text{reliability} - \text{resolution} + \text{uncertainty}

    up to the spread of the probabilities inside the bins (https://doi.org/10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2,
    see :func:`medcalib.functional.brier_decomposition`). How to call it is said in
    :class:`medcalib.metrics.RegionMetric`.

    Args:
        include_background: whether the first class counts.
        decompose: whether the three terms are computed as well, and ``aggregate`` returns a dictionary.
        num_bins: number of equal bins of the decomposition.
        metric_reduction: how ``aggregate`` combines cases and classes, as in MONAI.
        get_not_nans: whether ``aggregate`` also returns the number of values that were not NaN.
        ignore_empty: whether a class that the ground truth of a case lacks is NaN there.
        boundary_width: keep only the voxels within this many mm of a voxel with another label.

    Raises:
        ValueError: If ``num_bins`` or ``boundary_width`` is too small.

    Example:
        >>> import torch
        >>> metric = BrierScoreMetric(decompose=True, num_bins=2)
        >>> _ = metric(torch.tensor([[[0.25, 0.25, 0.75, 0.75]]]), torch.tensor([[[0, 1, 1, 1]]]))
        >>> {name: round(value.item(), 4) for name, value in metric.aggregate().items()}
        {'brier': 0.1875, 'reliability': 0.0625, 'resolution': 0.0625, 'uncertainty': 0.1875}
    """

    def __init__(
        self,
        include_background: bool = True,
        decompose: bool = False,
        num_bins: int = 20,
        metric_reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
        ignore_empty: bool = True,
        boundary_width: float | None = None,
    ) -> None:
        super().__init__(include_background, ignore_empty, boundary_width)
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
        self.decompose = decompose
        self.num_bins = num_bins
        self.metric_reduction = metric_reduction
        self.get_not_nans = get_not_nans

    def compute_region(self, y_pred: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | list[Tensor]:
        """Scores (B, C), float64; with their three terms, each (B, C), if decomposed; NaN where no voxel counts."""
        values = [brier_score(y_pred, y, mask)]
        if self.decompose:
            values += brier_decomposition(bin_statistics(y_pred, y, num_bins=self.num_bins, mask=mask))
        if self.ignore_empty:
            present = classes_present(y, y_pred.shape[1], mask)
            values = [value.where(present, torch.nan) for value in values]
        return values if self.decompose else values[0]

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> Tensor | tuple[Tensor, Tensor] | dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Combine the cases seen so far, with ``reduction`` instead of ``metric_reduction`` if given.

        Returns:
            The score, or, if decomposed, a dictionary of ``brier``, ``reliability``, ``resolution`` and
            ``uncertainty``.

        Raises:
            ValueError: If the metric has seen no case.
        """
        values, reduction = self.buffered(), reduction or self.metric_reduction
        if isinstance(values, Tensor):
            return reduce_metric(values, reduction, self.get_not_nans)
        names = ("brier", "reliability", "resolution", "uncertainty")
        return {
            name: reduce_metric(value, reduction, self.get_not_nans) for name, value in zip(names, values, strict=True)
        }
