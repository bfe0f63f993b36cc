"""Distances between surfaces over the cases of an epoch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric, compute_surface_dice
from monai.utils import MetricReduction
from torch import Tensor

from medcalib.metrics.region import case_name, reduce_metric
from medcalib.metrics.spacing import spacings
from medcalib.metrics.surface_distances import (
    Box,
    ClassMask,
    SurfaceDistances,
    class_boxes,
    class_masks,
    joint_box,
    surface_distances,
)

__all__ = ["HausdorffDistanceMetric", "ModifiedHausdorffDistanceMetric", "SurfaceDiceMetric", "SurfaceMetric"]

# A tolerance that is a multiple of the voxel size includes its end, whichever way float32 rounds the distances.
_SLACK = 1e-6


class SurfaceMetric(CumulativeIterationMetric):
    """A metric of the surfaces of the classes of a case; metrics of the same case share their distances.

    Subclasses implement :meth:`compute_case`. Call the metric with ``y_pred`` and ``y``: label maps (B, 1, ...) or
    binary channels (B, C, ...), each of its own kind, or lists without B; and optionally with ``spacing``, the voxel
    size in mm along each spatial axis, which is taken from ``y`` when it is a ``MetaTensor``. The result is (B, C),
    float64. A wrong value raises a ``ValueError`` that, for lists, begins with the file name of the case or its place.

    Args:
        include_background: whether the first class counts; a single class always does.
        num_classes: number of classes, the background included; needed only if ``y_pred`` and ``y`` are both label
            maps of more than one class. One channel without it is a binary mask.
        reduction: how ``aggregate`` combines cases and classes, as in MONAI, but NaN where there is no value.
        get_not_nans: whether ``aggregate`` also returns the number of values that were not NaN.

    Raises:
        ValueError: If ``num_classes`` is below 1.

    Example:
        >>> class LargestDistance(SurfaceMetric):
        ...     def compute_case(self, predicted, true, spacing):
        ...         return [found.there.max() for found in surface_distances(predicted, true, spacing)]
        >>> y_pred, y = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[0, 1, 0, 0]]])
        >>> LargestDistance()(y_pred, y, spacing=[2.0]).item()
        2.0
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

    @abstractmethod
    def compute_case(
        self, predicted: Sequence[ClassMask], true: Sequence[ClassMask], spacing: tuple[float, ...]
    ) -> list[float]:
        """The value of each class of a case, of those that count."""

    def _compute_tensor(  # type: ignore[override]  # MONAI's takes any further argument
        self, y_pred: Tensor, y: Tensor | None = None, spacing: Sequence[float] | None = None
    ) -> Tensor:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the ground truth y.")
        if y.ndim < 3 or y_pred.shape[:1] + y_pred.shape[2:] != y.shape[:1] + y.shape[2:]:
            raise ValueError(f"y_pred and y differ in shape: {tuple(y_pred.shape)} and {tuple(y.shape)}.")
        num_classes = self.num_classes or max(y_pred.shape[1], y.shape[1])
        first = 0 if self.include_background or num_classes == 1 else 1
        rows = [
            self.compute_case(class_masks(p, num_classes)[first:], class_masks(t, num_classes)[first:], voxel_size)
            for p, t, voxel_size in zip(y_pred, y, spacings(y, spacing), strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64, device=y_pred.device)

    def _compute_list(  # type: ignore[override]
        self, y_pred: Sequence[Tensor], y: Sequence[Tensor] | None = None, spacing: Sequence[float] | None = None
    ) -> Tensor:
        if y is None:
            raise ValueError(f"{type(self).__name__} needs the ground truth y.")
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
            raise ValueError(f"{type(self).__name__} has seen no case yet.")
        return reduce_metric(values, reduction or self.reduction, self.get_not_nans)


class ModifiedHausdorffDistanceMetric(SurfaceMetric):
    r"""Modified Hausdorff distance in mm: the larger of the two mean distances from one surface to the other.

    .. math::
        \max\left(\operatorname{mean}_{a \in A} \min_{b \in B} \lVert a - b \rVert,\
        \operatorname{mean}_{b \in B} \min_{a \in A} \lVert a - b \rVert\right)

    over the voxels of A and B that touch another label or the border of the volume
    (https://doi.org/10.1109/ICPR.1994.576361). A single far voxel moves it far less than it moves the maximum.

    Call it as a :class:`medcalib.metrics.SurfaceMetric`. It is NaN for a class that the prediction or the ground truth
    lacks.

    Args:
        include_background: as of :class:`medcalib.metrics.SurfaceMetric`.
        num_classes: likewise.
        reduction: likewise.
        get_not_nans: likewise.

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

    def compute_case(
        self, predicted: Sequence[ClassMask], true: Sequence[ClassMask], spacing: tuple[float, ...]
    ) -> list[float]:
        """The distance of each class."""
        return [
            max(float(np.mean(part, dtype=np.float64)) for part in found) if found.both else np.nan
            for found in surface_distances(predicted, true, spacing)
        ]


class HausdorffDistanceMetric(SurfaceMetric):
    """Hausdorff distance in mm: the largest distance from one surface to the other, or a percentile of them.

    With ``percentile=95`` it is the HD95 of segmentation challenges: of each direction the distance below which 95 % of
    the surface voxels lie, and of the two the larger one, as in ``monai.metrics.HausdorffDistanceMetric``. In addition
    it takes label maps, finds the distances once for all metrics of a case, and does not call a class that both lack
    a perfect one, nor one that only one of them has infinitely far.

    Call it as a :class:`medcalib.metrics.SurfaceMetric`. It is NaN for a class that the prediction or the ground truth
    lacks.

    Args:
        percentile: in [0, 100]; 100 for the largest distance.
        include_background: as of :class:`medcalib.metrics.SurfaceMetric`.
        num_classes: likewise.
        reduction: likewise.
        get_not_nans: likewise.

    Raises:
        ValueError: If ``percentile`` or ``num_classes`` is out of range.

    Example:
        >>> import torch
        >>> metric = HausdorffDistanceMetric(percentile=50)
        >>> y_pred, y = torch.zeros(1, 1, 30), torch.zeros(1, 1, 30)
        >>> y_pred[..., 0], y[..., [0, 20]] = 1, 1
        >>> metric(y_pred, y, spacing=[0.5]).item()
        5.0
    """

    def __init__(
        self,
        percentile: float = 95,
        include_background: bool = False,
        num_classes: int | None = None,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(include_background, num_classes, reduction, get_not_nans)
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must lie between 0 and 100, got {percentile}.")
        self.percentile = percentile

    def compute_case(
        self, predicted: Sequence[ClassMask], true: Sequence[ClassMask], spacing: tuple[float, ...]
    ) -> list[float]:
        """The distance of each class."""
        return [
            max(float(np.percentile(part.astype(np.float64), self.percentile)) for part in found)
            if found.both
            else np.nan
            for found in surface_distances(predicted, true, spacing)
        ]


class SurfaceDiceMetric(SurfaceMetric):
    r"""Normalised surface Dice: the part of both surfaces that lies within a tolerance of the other one, in [0, 1].

    .. math::
        \frac{|\{a \in A : d(a, B) \le \tau\}| + |\{b \in B : d(b, A) \le \tau\}|}{|A| + |B|}

    over the surface voxels of A and B, as in ``monai.metrics.SurfaceDiceMetric``; with ``use_subvoxels`` over the
    elements of area between voxels, as in the paper (https://arxiv.org/abs/1809.04430), which 2D and 3D have.

    Call it as a :class:`medcalib.metrics.SurfaceMetric`. It is 0 for a class that the prediction lacks, and NaN for one
    that the ground truth lacks, as Dice is.

    Args:
        tolerance: in mm, at least 0: one for all classes, one for each class that counts, or by its name.
        class_names: of the classes that count, if ``tolerance`` is by name.
        include_background: as of :class:`medcalib.metrics.SurfaceMetric`.
        num_classes: likewise.
        use_subvoxels: whether the areas of surface elements are summed instead of voxels.
        ignore_empty: whether a class that the ground truth lacks is NaN; if not, it is 0 where the prediction has it,
            as MONAI has it.
        reduction: as of :class:`medcalib.metrics.SurfaceMetric`.
        get_not_nans: likewise.

    Raises:
        ValueError: If a tolerance is missing, below 0 or not finite, or ``num_classes`` is below 1; when called, if
            there are more or fewer tolerances than classes.

    Example:
        >>> import torch
        >>> metric = SurfaceDiceMetric(tolerance=1.0)
        >>> y_pred, y = torch.zeros(1, 1, 9), torch.zeros(1, 1, 9)
        >>> y_pred[..., 2:4], y[..., 2:6] = 1, 1
        >>> metric(y_pred, y, spacing=[1.0]).item()
        0.75
    """

    def __init__(
        self,
        tolerance: float | Sequence[float] | Mapping[str, float],
        class_names: Sequence[str] = (),
        include_background: bool = False,
        num_classes: int | None = None,
        use_subvoxels: bool = False,
        ignore_empty: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(include_background, num_classes, reduction, get_not_nans)
        self.tolerance = _tolerances(tolerance, class_names)
        self.use_subvoxels = use_subvoxels
        self.ignore_empty = ignore_empty

    def compute_case(
        self, predicted: Sequence[ClassMask], true: Sequence[ClassMask], spacing: tuple[float, ...]
    ) -> list[float]:
        """The part of each class."""
        tolerances = self.tolerance if isinstance(self.tolerance, list) else [self.tolerance] * len(true)
        if len(tolerances) != len(true):
            raise ValueError(f"there are {len(tolerances)} tolerances, but {len(true)} classes.")
        limits = [tolerance * (1 + _SLACK) for tolerance in tolerances]
        if not self.use_subvoxels:
            distances = surface_distances(predicted, true, spacing)
            return [self._of_voxels(found, limit) for found, limit in zip(distances, limits, strict=True)]
        boxes = class_boxes(predicted), class_boxes(true)
        return [self._of_elements(*pair, spacing) for pair in zip(predicted, true, *boxes, limits, strict=True)]

    def _of_voxels(self, found: SurfaceDistances, limit: float) -> float:
        if found.both:
            return float(np.mean(np.concatenate(found) <= limit))
        return self._of_one(found.there.size > 0, found.back.size > 0)

    def _of_elements(
        self,
        predicted: ClassMask,
        true: ClassMask,
        near: Box | None,
        there: Box | None,
        limit: float,
        spacing: tuple[float, ...],
    ) -> float:
        if near is None or there is None:
            return self._of_one(near is not None, there is not None)
        box = joint_box(near, there)
        p, t = (torch.from_numpy(mask.crop(box))[None, None] for mask in (predicted, true))
        return compute_surface_dice(p, t, [limit], include_background=True, spacing=spacing, use_subvoxels=True).item()

    def _of_one(self, has_prediction: bool, has_truth: bool) -> float:
        """The value where one of the two is missing, or both are."""
        return 0.0 if has_truth or (has_prediction and not self.ignore_empty) else np.nan


def _tolerances(
    given: float | Sequence[float] | Mapping[str, float], class_names: Sequence[str]
) -> float | list[float]:
    if isinstance(given, Mapping):
        if missing := [name for name in class_names if name not in given]:
            raise ValueError(f"tolerance names {', '.join(map(str, given))}, but not {', '.join(missing)}.")
        given = [given[name] for name in class_names]
    values = [given] if isinstance(given, int | float) else list(given)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise ValueError(f"tolerance must hold numbers of mm from 0 on, got {value!r}.")
    return float(given) if isinstance(given, int | float) else [float(value) for value in values]
