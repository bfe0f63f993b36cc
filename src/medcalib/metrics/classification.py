"""Scores of classified images: discrimination, calibration and proper scoring rules over a whole dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from monai.metrics import CumulativeIterationMetric, compute_roc_auc
from torch import Tensor

from medcalib.functional import (
    BinStatistics,
    bin_statistics,
    brier_score,
    categorical_brier_score,
    categorical_negative_log_likelihood,
    debiased_errors,
    every_calibration_error,
    negative_log_likelihood,
)

__all__ = [
    "ClassAUCMetric",
    "ClassificationScores",
    "class_auc",
    "class_calibration_errors",
    "classification_scores",
    "top_label_calibration_errors",
]


class ClassificationScores(NamedTuple):
    """What `classification_scores` finds.

    Attributes:
        overall: numbers by name. Of those that have values per class it is their mean without NaN.
        per_class: values (class,) by name, float64.
        statistics: bin statistics of each image and class, (image, class, bin).
        top_label: bin statistics of the predicted class, (image, 1, bin): its probability against whether it is right.

    Example:
        >>> probs, classes = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]), torch.tensor([[0], [1], [1]])
        >>> scores = classification_scores(probs, classes)
        >>> round(scores.overall["accuracy"], 4), scores.per_class["sensitivity"].tolist()
        (0.6667, [1.0, 0.5])
    """

    overall: Mapping[str, float]
    per_class: Mapping[str, Tensor]
    statistics: BinStatistics
    top_label: BinStatistics


def classification_scores(y_pred: Tensor, y: Tensor, num_bins: int = 20) -> ClassificationScores:
    """Score the classified images of a dataset.

    Per class, against all others: ``auc``; ``sensitivity`` and ``specificity`` of the predicted class, the one of the
    largest probability; ``nll`` and ``brier``, of the class as a binary problem; and ``micro_ece``, ``micro_ace``,
    ``micro_mce``, computed once from the bins of all images, since the one prediction of an image fills a single bin.
    Beside them, as of `medcalib.functional.debiased_errors` if images are independent, ``micro_ece_debiased``,
    ``micro_rmsce`` and ``micro_rmsce_debiased``. A class that no image has is NaN in all of them.

    Over all classes: ``accuracy``; ``nll_categorical`` (the usual log loss, in nats) and ``brier_categorical`` (in
    [0, 2]); ``top_label_ece``, ``top_label_ace``, ``top_label_mce`` and the debiased errors, likewise, of the
    probability of the predicted class.

    Args:
        y_pred: probabilities (N, C), C at least 2.
        y: class indices (N, 1).
        num_bins: number of equal bins on [0, 1].

    Returns:
        Numbers, values per class, and the bins.

    Raises:
        ValueError: If shapes do not fit, there is no image, or values or labels are out of range.

    Example:
        >>> y_pred = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
        >>> scores = classification_scores(y_pred, torch.tensor([[0], [1], [1], [1]]))
        >>> scores.overall["accuracy"], scores.overall["auc"], scores.per_class["sensitivity"].tolist()[0]
        (0.75, 1.0, 1.0)
    """
    if y_pred.ndim != 2 or y_pred.shape[1] < 2 or y.shape != (len(y_pred), 1) or not len(y_pred):
        raise ValueError(
            f"y_pred must have shape (N, C) with at least 2 classes and y (N, 1), N of at least 1, got "
            f"{tuple(y_pred.shape)} and {tuple(y.shape)}."
        )
    statistics = bin_statistics(y_pred, y, num_bins)
    probabilities, labels = y_pred.as_subclass(Tensor).detach(), y.as_subclass(Tensor)[:, 0].long()
    confidence, predicted = probabilities.max(1)
    right = predicted == labels
    top_label = bin_statistics(confidence[:, None], right[:, None].float(), num_bins)

    has = torch.nn.functional.one_hot(labels, y_pred.shape[1]).bool()
    given = torch.nn.functional.one_hot(predicted, y_pred.shape[1]).bool()
    number = has.sum(0, dtype=torch.float64)
    # one image with as many voxels as there are images: means over voxels are means over the dataset
    dataset = probabilities.T[None], labels[None, None]
    per_class = {
        "auc": class_auc(probabilities, labels[:, None]),
        "sensitivity": (given & has).sum(0) / number,
        "specificity": (~given & ~has).sum(0) / (len(labels) - number),
        "nll": negative_log_likelihood(*dataset)[0],
        "brier": brier_score(*dataset)[0],
    }
    per_class = {name: values.cpu().masked_fill(number.cpu() == 0, torch.nan) for name, values in per_class.items()}
    per_class |= {f"micro_{name}": errors for name, errors in class_calibration_errors(statistics).items()}
    overall = {
        "accuracy": right.double().mean().item(),
        **{name: values.nanmean().item() for name, values in per_class.items()},
        "nll_categorical": categorical_negative_log_likelihood(*dataset).item(),
        "brier_categorical": categorical_brier_score(*dataset).item(),
        **{f"top_label_{name}": error for name, error in top_label_calibration_errors(top_label).items()},
    }
    return ClassificationScores(overall, per_class, statistics.to("cpu"), top_label.to("cpu"))


def class_calibration_errors(statistics: BinStatistics) -> dict[str, Tensor]:
    """Calibration errors of each class against all others, plain and debiased, from the bins of all images.

    Args:
        statistics: bin statistics (image, class, bin).

    Returns:
        ``ece``, ``ace``, ``mce``, all in [0, 1], and what `medcalib.functional.debiased_errors` gives of independent
        images: (class,), float64, on the CPU, NaN of a class that no image has.

    Example:
        >>> statistics = bin_statistics(torch.tensor([[0.8, 0.2]] * 5), torch.tensor([[0]] * 4 + [[1]]), 10)
        >>> class_calibration_errors(statistics)["rmsce_debiased"]
        tensor([0., 0.], dtype=torch.float64)
    """
    errors = every_calibration_error(statistics.pool()) | debiased_errors(statistics, "voxel")
    absent = statistics.sum_true.sum((0, 2)) == 0
    return {name: values[0].masked_fill(absent, torch.nan).cpu() for name, values in errors.items()}


def top_label_calibration_errors(statistics: BinStatistics) -> dict[str, float]:
    """Calibration errors of the probability of the predicted class, plain and debiased, from the bins of all images.

    Args:
        statistics: bin statistics of the predicted class, (image, 1, bin).

    Returns:
        What `class_calibration_errors` gives of a class, but a number where no image is predicted rightly.

    Example:
        >>> right = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
        >>> errors = top_label_calibration_errors(bin_statistics(torch.full((4, 1), 0.75), right, 10))
        >>> errors["ece"], errors["rmsce_debiased"]
        (0.0, 0.0)
    """
    errors = every_calibration_error(statistics.pool(), ignore_empty=False) | debiased_errors(statistics, "voxel")
    return {name: error.item() for name, error in errors.items()}


def class_auc(y_pred: Tensor, y: Tensor) -> Tensor:
    """Area under the ROC curve of each class against all others, from probabilities.

    Args:
        y_pred: probabilities (N, C).
        y: class indices (N, 1).

    Returns:
        Areas (C,), float64, in [0, 1]; NaN where no image, or every image, has the class.

    Example:
        >>> class_auc(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]]), torch.tensor([[0], [0], [1]]))
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    areas = torch.full((y_pred.shape[1],), torch.nan, dtype=torch.float64)
    for index in range(y_pred.shape[1]):
        has = y[:, 0] == index
        # MONAI warns where there is nothing to compare
        if has.any() and not has.all():
            area = compute_roc_auc(y_pred[:, index].as_subclass(Tensor), has.as_subclass(Tensor).float())
            areas[index] = torch.as_tensor(area, dtype=torch.float64)
    return areas


class ClassAUCMetric(CumulativeIterationMetric):
    """`class_auc` over the images of an epoch, mean over classes without NaN.

    It is called with probabilities (B, C) and class indices (B, 1), or lists of (C,) and (1,).

    Example:
        >>> metric = ClassAUCMetric()
        >>> _ = metric(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]]), torch.tensor([[0], [0], [1]]))
        >>> metric.aggregate()
        tensor(0.5000, dtype=torch.float64)
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        return y_pred, y

    def aggregate(self) -> Tensor:
        """Return the mean area, (); NaN where it is not defined for any class.

        Raises:
            ValueError: If the metric has seen no image.
        """
        buffered = self.get_buffer()
        if buffered is None:
            raise ValueError("there is no image yet: call the metric with predictions first.")
        return class_auc(*buffered).nanmean()
