"""What the metrics share: which voxels and classes count, and whose values are wrong."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction
from torch import Tensor

from medcalib.metrics.boundary import boundary_band

__all__ = ["RegionMetric", "case_name", "classes_present", "reduce_metric"]


class RegionMetric(CumulativeIterationMetric):
    """A metric over a region of interest, given by a mask, by the surroundings of label boundaries, or by both.

    Subclasses implement :meth:`compute_region`. Call the metric with ``y_pred`` and ``y`` and, optionally, ``mask`` and
    ``spacing``:

    - ``y_pred``: probabilities (B, C, ...), or a list of (C, ...);
    - ``y``: integer label map (B, 1, ...) or target (B, C, ...), or a list without B;
    - ``mask``: (B, 1, ...), or a list of (1, ...); voxels where it is zero do not count;
    - ``spacing``: voxel size in mm along each spatial axis, used with ``boundary_width``; taken from ``y`` when it is a
      ``MetaTensor``.

    A wrong value raises a ``ValueError`` that, for lists, begins with the file name of the case or its place.

    Args:
        include_background: whether the first class counts; a single class always does.
        ignore_empty: whether a class that the ground truth lacks within the region becomes NaN.
        boundary_width: keep only the voxels within this many mm of a voxel with another label.

    Example:
        >>> class Accuracy(RegionMetric):
        ...     def compute_region(self, y_pred, y, mask):
        ...         return ((y_pred > 0.5) == (y > 0.5)).double().flatten(2).mean(-1)
        ...
        ...     def aggregate(self):
        ...         return self.buffered().nanmean(0)
        >>> metric = Accuracy()
        >>> _ = metric(torch.tensor([[[0.1, 0.9, 0.9, 0.9]]]), torch.tensor([[[0, 0, 1, 1]]]))
        >>> metric.aggregate()
        tensor([0.7500], dtype=torch.float64)
    """

    def __init__(
        self, include_background: bool = True, ignore_empty: bool = True, boundary_width: float | None = None
    ) -> None:
        super().__init__()
        if boundary_width is not None and not boundary_width > 0:
            raise ValueError(f"boundary_width must be above 0 mm, got {boundary_width}.")
        self.include_background = include_background
        self.ignore_empty = ignore_empty
        self.boundary_width = boundary_width

    @abstractmethod
    def compute_region(self, y_pred: Tensor, y: Tensor, mask: Tensor | None) -> Tensor | Sequence[Tensor]:
        """Values (B, C, ...) of every class, the background included, or a sequence of them."""

    def _compute_tensor(  # type: ignore[override]  # MONAI's takes any further argument
        self,
        y_pred: Tensor,
        y: Tensor | None = None,
        mask: Tensor | None = None,
        spacing: Sequence[float] | None = None,
    ) -> Tensor | list[Tensor]:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the ground truth y.")
        if self.boundary_width is not None:
            band = boundary_band(y, self.boundary_width, spacing)
            mask = band if mask is None else band & (mask != 0)
        values = self.compute_region(y_pred, y, mask)
        first = 0 if self.include_background or y_pred.shape[1] == 1 else 1
        if isinstance(values, Tensor):
            return values[:, first:]
        return [value[:, first:] for value in values]

    def _compute_list(  # type: ignore[override]
        self,
        y_pred: Sequence[Tensor] | Tensor,
        y: Sequence[Tensor] | Tensor | None = None,
        mask: Sequence[Tensor] | Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor | list[Tensor]:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the ground truth y.")
        masks = [None] * len(y_pred) if mask is None else mask
        if not len(y_pred) == len(y) == len(masks):
            raise ValueError(f"y_pred, y and mask differ in length: {len(y_pred)}, {len(y)} and {len(masks)}.")
        parts: list[Any] = []
        for place, (p, t, m) in enumerate(zip(y_pred, y, masks, strict=True)):
            try:
                part = self._compute_tensor(
                    p.detach().unsqueeze(0), t.detach().unsqueeze(0), None if m is None else m.unsqueeze(0), **kwargs
                )
            except ValueError as error:
                raise ValueError(f"{case_name(p, t, place)}: {error}") from error
            parts.append(part)
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def buffered(self) -> Tensor | list[Tensor]:
        """The values of all cases of all ranks.

        Raises:
            ValueError: If the metric has seen no case.
        """
        buffer = self.get_buffer()
        if buffer is None:
            raise ValueError(f"{type(self).__name__} has seen no case yet.")
        return buffer


def reduce_metric(
    values: Tensor, reduction: MetricReduction | str, get_not_nans: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """MONAI's reduction of values (case, class), with the number of values that were not NaN if wanted.

    Where no value is left the result is NaN; MONAI's is 0 there, which is the best error, score or distance there is.
    """
    reduced, not_nans = do_metric_reduction(values, reduction)
    reduced = reduced.where(not_nans > 0, torch.nan)
    return (reduced, not_nans) if get_not_nans else reduced


def classes_present(y: Tensor, num_classes: int, mask: Tensor | None) -> Tensor:
    """Whether each class occurs in ``y``, (B, C), counting only voxels where ``mask`` (B, 1, ...) is not zero."""
    y = y.as_subclass(torch.Tensor)
    if mask is not None:
        mask = mask.as_subclass(torch.Tensor) != 0
    if y.shape[1] == num_classes:
        return (y if mask is None else y.where(mask, y.new_zeros(()))).flatten(2).amax(-1) > 0
    labels = [y[case].flatten() if mask is None else y[case][mask[case]] for case in range(y.shape[0])]
    return torch.stack([torch.bincount(case.long(), minlength=num_classes) > 0 for case in labels])


def case_name(y_pred: Tensor, y: Tensor, place: int) -> str:
    """The file name of a case, or its place in the batch where neither tensor has one."""
    for tensor in (y_pred, y):
        name = tensor.meta.get("filename_or_obj") if isinstance(tensor, MetaTensor) else None
        if isinstance(name, str) and name:
            return name
    return f"case {place} of the batch"
