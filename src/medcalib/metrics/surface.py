"""Distances between surfaces over the cases of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import get_mask_edges, get_surface_distance
from monai.utils import MetricReduction
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

from medcalib.metrics.region import case_name, reduce_metric
from medcalib.metrics.spacing import spacings

__all__ = ["ModifiedHausdorffDistanceMetric"]

Box = tuple[slice, ...]


class ModifiedHausdorffDistanceMetric(CumulativeIterationMetric):
    r"""Modified Hausdorff distance in mm: the larger of the two mean distances from one surface to the other.

    .. math::
        \max\left(\operatorname{mean}_{a \in A} \min_{b \in B} \lVert a - b \rVert,\
        \operatorname{mean}_{b \in B} \min_{a \in A} \lVert a - b \rVert\right)

    over the voxels of A and B that touch another label or the border of the volume
    (https://doi.org/10.1109/ICPR.1994.576361). A single far voxel moves it far less than it moves the maximum.

    Call the metric with ``y_pred`` and ``y``: label maps (B, 1, ...) or binary channels (B, C, ...), each of its own
    kind, or lists without B; and optionally with ``spacing``, the voxel size in mm along each spatial axis, which is
    taken from ``y`` when it is a ``MetaTensor``. The result is (B, C), float64; it is NaN for a class that the
    prediction or the ground truth lacks. A wrong value raises a ``ValueError`` that, for lists, begins with the file
    name of the case or its place.

    Args:
        include_background: whether the first class counts; a single class always does.
        num_classes: number of classes, the background included; needed only if ``y_pred`` and ``y`` are both label
            maps of more than one class. One channel without it is a binary mask.
        reduction: how ``aggregate`` combines cases and classes, as in MONAI, but NaN where there is no value.
        get_not_nans: whether ``aggregate`` also returns the number of values that were not NaN.

    Raises:
        ValueError: If ``num_classes`` is below 1.

    Example:
        >>> import torch
        >>> metric = ModifiedHausdorffDistanceMetric()
        >>> y_pred, y = torch.zeros(1, 1, 9), torch.zeros(1, 1, 9)
        >>> y_pred[..., 2], y[..., 5] = 1, 1
        >>> metric(y_pred, y, spacing=[0.5]).item()
        1.5
    """

    def __init__(
        self,
        include_background: bool = False,
        num_classes: int | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.include_background = include_background
        self.num_classes = num_classes
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def _compute_tensor(  # type: ignore[override]  # MONAI's takes any further argument
        self, y_pred: Tensor, y: Tensor | None = None, spacing: Sequence[float] | None = None
    ) -> Tensor:
        if y is None:
            raise ValueError("the modified Hausdorff distance needs the ground truth y.")
        if y.ndim < 3 or y_pred.shape[:1] + y_pred.shape[2:] != y.shape[:1] + y.shape[2:]:
            raise ValueError(f"y_pred and y differ in shape: {tuple(y_pred.shape)} and {tuple(y.shape)}.")
        num_classes = self.num_classes or max(y_pred.shape[1], y.shape[1])
        first = 0 if self.include_background or num_classes == 1 else 1
        rows = []
        for p, t, voxel_size in zip(y_pred, y, spacings(y, spacing), strict=True):
            pairs = zip(_class_masks(p, num_classes), _class_masks(t, num_classes), strict=True)
            rows.append([_modified_hausdorff_distance(*pair, voxel_size) for pair in list(pairs)[first:]])
        return torch.tensor(rows, dtype=torch.float64, device=y_pred.device)

    def _compute_list(  # type: ignore[override]
        self, y_pred: Sequence[Tensor], y: Sequence[Tensor] | None = None, spacing: Sequence[float] | None = None
    ) -> Tensor:
        if y is None:
            raise ValueError("the modified Hausdorff distance needs the ground truth y.")
        if len(y_pred) != len(y):
            raise ValueError(f"y_pred and y differ in length: {len(y_pred)} and {len(y)}.")
        rows = []
        for place, (p, t) in enumerate(zip(y_pred, y, strict=True)):
            try:
                rows.append(self._compute_tensor(p.detach().unsqueeze(0), t.detach().unsqueeze(0), spacing))
            except ValueError as error:
                raise ValueError(f"{case_name(p, t, place)}: {error}") from error
        return torch.cat(rows)

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Combine the cases seen so far, with ``reduction`` instead of that of the constructor if given.

        Raises:
            ValueError: If the metric has seen no case.
        """
        values = self.get_buffer()
        if values is None:
            raise ValueError("ModifiedHausdorffDistanceMetric has seen no case yet.")
        return reduce_metric(values, reduction or self.reduction, self.get_not_nans)


class _ClassMask(NamedTuple):
    """Where ``volume`` equals ``label``; ``box`` is the smallest that holds it, None where it never does."""

    volume: NDArray[np.int32]
    label: int
    box: Box | None


def _class_masks(y: Tensor, num_classes: int) -> list[_ClassMask]:
    """A mask for each class of a label map (1, ...) or of binary channels (C, ...)."""
    if y.shape[0] not in (1, num_classes):
        raise ValueError(f"expected a label map or {num_classes} channels, got {y.shape[0]} channels.")
    if y.shape[0] == 1:
        # One class in one channel is a binary mask, whose foreground has the label 1.
        first = 1 if num_classes == 1 else 0
        labels = _integers(y[0], first + num_classes)
        boxes = find_objects(labels + (1 - first), max_label=num_classes)
        return [_ClassMask(labels, first + index, box) for index, box in enumerate(boxes)]
    channels = [_integers(channel, 2) for channel in y]
    return [_ClassMask(channel, 1, find_objects(channel, max_label=1)[0]) for channel in channels]


def _integers(volume: Tensor, stop: int) -> NDArray[np.int32]:
    array = volume.as_subclass(torch.Tensor).cpu().numpy()
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.int32)
    if labels.size and not ((labels == array).all() and labels.min() >= 0 and labels.max() < stop):
        raise ValueError(
            f"segmentations must hold whole numbers from 0 to {stop - 1}; label maps of more classes need num_classes."
        )
    return labels


def _modified_hausdorff_distance(predicted: _ClassMask, true: _ClassMask, spacing: tuple[float, ...]) -> float:
    if predicted.box is None or true.box is None:
        return np.nan
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(predicted.box, true.box, strict=True))
    first, second = get_mask_edges(*(mask.volume[box] == mask.label for mask in (predicted, true)))
    there = get_surface_distance(first, second, spacing=spacing)
    back = get_surface_distance(second, first, spacing=spacing)
    return max(float(np.mean(there, dtype=np.float64)), float(np.mean(back, dtype=np.float64)))
