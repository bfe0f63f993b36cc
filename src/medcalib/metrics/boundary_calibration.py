"""Bin statistics of the voxels close to the true boundary of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medcalib.functional import BinStatistics, bin_statistics
from medcalib.metrics.boundary import mask_band
from medcalib.metrics.calibration_error import BinStatisticsMetric
from medcalib.metrics.spacing import spacings

__all__ = ["BoundaryStatisticsMetric"]


class BoundaryStatisticsMetric(BinStatisticsMetric):
    """Bin statistics of every case, for each class of the voxels within some mm of its own true boundary.

    Far from a boundary nearly every probability is right, and the more of that there is in the field of view, the
    smaller are calibration errors of all voxels. The band of a class has voxels on both sides of its boundary: those
    whose distance to the nearest voxel on the other side is at most ``band_mm``, from centre to centre, as of
    :func:`medcalib.metrics.boundary_band`, which unites the bands of all classes. A class that the truth lacks, or that
    fills the volume, has no boundary and no voxels, so its errors are NaN. The band is found in slabs, inside of the
    box that holds it.

    How to call it is said in :class:`medcalib.metrics.RegionMetric`; ``spacing`` is needed, or ``y`` as a
    ``MetaTensor``.

    Args:
        band_mm: largest distance in mm, above 0; infinite for all voxels.
        num_bins: number of equal bins on [0, 1].
        include_background: whether the first class is kept.

    Raises:
        ValueError: If ``band_mm`` is not above 0, or ``num_bins`` is below 1.

    Example:
        >>> metric = BoundaryStatisticsMetric(band_mm=1.0, num_bins=2)
        >>> y_pred, y = torch.full((1, 1, 8), 0.25), torch.tensor([[[0, 0, 0, 0, 1, 1, 1, 1]]])
        >>> metric(y_pred, y, spacing=[1.0])[0], metric.aggregate().sum_true
        (tensor([[[2, 0]]]), tensor([[[1., 0.]]], dtype=torch.float64))
    """

    def __init__(self, band_mm: float, num_bins: int = 20, include_background: bool = True) -> None:
        super().__init__(num_bins, include_background)
        if not band_mm > 0:
            raise ValueError(f"band_mm must be above 0 mm, got {band_mm}.")
        self.band_mm = band_mm

    def _compute_tensor(  # type: ignore[override]  # MONAI's takes any further argument
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        spacing: Sequence[float] | None = None,
    ) -> BinStatistics:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the ground truth y.")
        num_classes = y_pred.shape[1]
        first = 0 if self.include_background or num_classes == 1 else 1
        rows = []
        for case, voxel_size in enumerate(spacings(y, spacing)):
            truth = y[case].as_subclass(torch.Tensor)
            of_classes = [
                self._of_class(
                    y_pred[case, label].as_subclass(torch.Tensor),
                    truth[0] == label if len(truth) == 1 < num_classes else truth[label],
                    None if mask is None else mask[case, 0].as_subclass(torch.Tensor) != 0,
                    voxel_size,
                )
                for label in range(first, num_classes)
            ]
            rows.append([torch.cat(parts, 1) for parts in zip(*of_classes, strict=True)])
        return BinStatistics(*(torch.cat(parts) for parts in zip(*rows, strict=True)))

    def _of_class(self, probs: Tensor, truth: Tensor, mask: Tensor | None, spacing: tuple[float, ...]) -> BinStatistics:
        found = mask_band((truth >= 0.5).cpu().numpy(), self.band_mm, spacing)
        box = (slice(0, 1),) * probs.ndim if found is None else found[0]
        counted = torch.zeros(probs[box].shape, dtype=torch.bool) if found is None else torch.from_numpy(found[1])
        counted = counted.to(probs.device)
        if mask is not None:
            counted &= mask[box]
        return bin_statistics(
            probs[box][None, None],
            truth[box][None, None].to(probs.dtype),
            num_bins=self.num_bins,
            mask=counted[None, None],
        )
