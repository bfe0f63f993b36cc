"""Masks or probabilities of another program, as guarantees see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nibabel.affines import voxel_sizes
from torch import Tensor

from medcalib.errors import UserError
from medcalib.guarantees import GuaranteeCase
from medcalib.image_files.label_values import no_class, value_text, whole_labels
from medcalib.keys import Activation
from medcalib.predictions.evaluating import activate_in_place, checked_class_names
from medcalib.predictions.prediction_folder import PredictedCase, PredictionFolder, most_probable
from medcalib.predictions.prediction_paths import find_label
from medcalib.predictions.volumes import Geometry, check_same_geometry, read_volume

__all__ = ["GuaranteeInputs", "MaskInputs", "ProbabilityInputs", "guarantee_case"]


class GuaranteeInputs(ABC):
    """Cases in files, one at a time.

    Attributes:
        class_names: names of the classes or regions, without the background.
    """

    class_names: list[str]

    @abstractmethod
    def check(self, case: str, with_label: bool) -> None:
        """Raise if a file of a case is not there.

        Raises:
            UserError: naming the case and where its files were looked for.
        """

    @abstractmethod
    def read(self, case: str, with_label: bool) -> tuple[GuaranteeCase, Geometry]:
        """The case, and the grid of its prediction.

        Raises:
            UserError: naming case and file: a file is missing or damaged, grids differ, or values are no labels.
        """


class MaskInputs(GuaranteeInputs):
    """Label maps that a program wrote, as ``<case>.nii.gz`` or ``<case>_seg.nii.gz``, there or in a folder of the case.

    Args:
        predictions_dir: folder of the masks.
        labels_dir: folder of the labels, which are called alike; None where no label is read.
        calibration_cases: cases whose masks and labels say how many classes there are, where ``class_names`` do not.
        class_names: names of the labels 0, 1, ..., background first.
        regions: labels of each region by its name, instead of classes.

    Raises:
        UserError: a folder does not exist or both are one; or what `read` raises of the calibration cases.
    """

    def __init__(
        self,
        predictions_dir: str | Path,
        labels_dir: str | Path | None,
        calibration_cases: Sequence[str] = (),
        class_names: Sequence[str] | None = None,
        regions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.predictions_dir = _folder(predictions_dir, "predictions_dir")
        self.labels_dir = None if labels_dir is None else _folder(labels_dir, "labels_dir")
        if self.labels_dir is not None and self.labels_dir.samefile(self.predictions_dir):
            raise UserError(
                f"labels_dir {labels_dir} is the folder of the masks, so that they would be compared with themselves; "
                f"give a folder that holds the labels alone."
            )
        self.regions: dict[str, list[int]] | None = None
        if regions is not None:
            self.regions = {str(name): list(labels) for name, labels in regions.items()}
            self.class_names, self.largest = list(self.regions), max(map(max, self.regions.values()))
        elif class_names is not None:
            self.class_names, self.largest = [str(name) for name in class_names[1:]], len(class_names) - 1
        else:
            self.largest = self._largest_label(calibration_cases)
            self.class_names = [f"class_{number}" for number in range(1, self.largest + 1)]
        if not self.class_names or len(set(self.class_names)) < len(self.class_names):
            raise UserError(
                f"class_names must name the background and at least one class, each once, not {class_names}."
            )

    def check(self, case: str, with_label: bool) -> None:
        """Raise if the mask or the label of a case is not there."""
        self._mask_path(case)
        if with_label:
            self._label_path(case)

    def read(self, case: str, with_label: bool) -> tuple[GuaranteeCase, Geometry]:
        """The case without probabilities, and the grid of its mask."""
        labels, geometry = self._labels(self._mask_path(case), case)
        target = None
        if with_label:
            true, other = self._labels(self._label_path(case), case)
            check_same_geometry(geometry, other, case)
            target = self._channels(true)
        sizes = tuple(float(size) for size in voxel_sizes(geometry.affine))
        return GuaranteeCase(case, segmentation=self._channels(labels), target=target, spacing=sizes), geometry

    def _mask_path(self, case: str) -> Path:
        try:
            return find_label(self.predictions_dir, case)
        except UserError as error:
            raise UserError(str(error).replace("no label of", "no mask of", 1)) from None

    def _label_path(self, case: str) -> Path:
        if self.labels_dir is None:
            raise UserError(f"labels_dir is missing, in which the label of case {case} lies.")
        return find_label(self.labels_dir, case)

    def _labels(self, path: Path, case: str, any_value: bool = False) -> tuple[Tensor, Geometry]:
        volume = read_volume(path, case)
        if volume.array.ndim != 3:
            raise UserError(f"Case {case}: {path} has channels, but a mask is one label map; give kind probabilities.")
        labels = whole_labels(torch.from_numpy(volume.array))
        wrong = no_class(labels, (1 << 15) if any_value else self.largest + 1)
        if wrong.any():
            values = ", ".join(map(value_text, labels[wrong].unique()[:3].tolist()))
            allowed = "whole numbers from 0 on" if any_value else f"0 to {self.largest}"
            raise UserError(
                f"Case {case}: {path} holds the value(s) {values}, but labels are {allowed}; give the class_names of "
                f"all labels, background first, or a mask instead of probabilities."
            )
        return labels.to(torch.int16), volume.geometry

    def _largest_label(self, cases: Sequence[str]) -> int:
        paths = [path for case in cases for path in (self._mask_path(case), self._label_path(case))]
        found = [
            self._labels(path, case, any_value=True)[0].max()
            for case, path in zip([case for case in cases for _ in range(2)], paths, strict=True)
        ]
        largest = int(max(found, default=torch.tensor(0)))
        if not largest:
            raise UserError(
                "All masks and labels of calibration_cases are empty; give cases that have something in them."
            )
        return largest

    def _channels(self, labels: Tensor) -> Tensor:
        values = list(self.regions.values()) if self.regions else [[n] for n in range(1, self.largest + 1)]
        return torch.stack([torch.isin(labels, torch.tensor(one, dtype=labels.dtype)) for one in values])


class ProbabilityInputs(GuaranteeInputs):
    """Probabilities or logits that a program wrote.

    Args:
        predictions: the folder.
        first_case: the case that says how many classes there are.
        class_names: one name for each predicted class, background first with the softmax.

    Raises:
        UserError: the number of names does not fit.
    """

    def __init__(
        self, predictions: PredictionFolder, first_case: str, class_names: Sequence[str] | None = None
    ) -> None:
        self.predictions = predictions
        names = checked_class_names(predictions, first_case, class_names)
        self.class_names = names[1:] if predictions.activation is Activation.SOFTMAX else names

    def check(self, case: str, with_label: bool) -> None:
        """Raise if the prediction or the label of a case is not there."""
        self.predictions.find(case, with_label)

    def read(self, case: str, with_label: bool) -> tuple[GuaranteeCase, Geometry]:
        """The case, and the grid of its prediction."""
        predicted = self.predictions.read(case, with_label)
        return guarantee_case(predicted, self.predictions.activation), predicted.geometry


def guarantee_case(predicted: PredictedCase, activation: Activation) -> GuaranteeCase:
    """A predicted case as guarantees see it; its logits become probabilities in place.

    Args:
        predicted: the case.
        activation: how its logits become probabilities.
    """
    probs = activate_in_place(predicted.logits, activation)[0]
    sizes = tuple(float(size) for size in voxel_sizes(predicted.geometry.affine))
    labels: Any = None if predicted.labels is None else predicted.labels[0]
    if activation is Activation.SOFTMAX:
        numbers = torch.arange(1, len(probs), device=probs.device).reshape(-1, 1, 1, 1)
        segmentation = most_probable(probs)[None] == numbers
        target = None if labels is None else labels.to(probs.device) == numbers
        probs = probs[1:]
    else:
        segmentation, target = probs >= 0.5, None if labels is None else labels != 0
    return GuaranteeCase(predicted.case, probs, segmentation, target, sizes)


def _folder(path: str | Path, name: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{name} {path} is not a folder; give one that exists.")
    return folder
