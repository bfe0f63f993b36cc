"""Folders of predictions that any program made, with their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.calibrators import CalibrationCase
from medcalib.errors import UserError, suggestion
from medcalib.keys import Activation
from medcalib.predictions.nnunet import (
    Plans,
    check_label,
    check_segmentation,
    find_plans,
    predicted_box,
    read_plans,
    read_probabilities,
)
from medcalib.predictions.prediction_paths import Layout, PredictionPaths, find_label, find_prediction
from medcalib.predictions.prediction_values import PredictionKind, label_targets, logits_of_values
from medcalib.predictions.volumes import Geometry, Volume, check_same_geometry, read_volume

__all__ = ["PredictedCase", "PredictionFolder", "most_probable"]

_Word = TypeVar("_Word", PredictionKind, Activation)


class PredictedCase(NamedTuple):
    """One case of a folder of predictions.

    Attributes:
        case: its id.
        logits: (1, C, X, Y, Z), float32; softmax or sigmoid gives the predicted probabilities.
        labels: label map (1, 1, X, Y, Z) of exclusive classes or targets (1, C, X, Y, Z) of independent ones, uint8;
            None where they were not asked for.
        geometry: the grid of the prediction.
        box: slices of the axes of space between which there is a prediction; nnU-Net crops images, and what it puts
            around is none. None if it is the whole volume.
        maps: of several members, what they say together: ``mutual_information`` and ``variance`` (1, 1, X, Y, Z), and
            ``agreement`` (1, C, member, member); else empty.
    """

    case: str
    logits: Tensor
    labels: Tensor | None
    geometry: Geometry
    box: tuple[slice, slice, slice] | None = None
    maps: Mapping[str, Tensor] = {}

    @property
    def region(self) -> tuple[slice | EllipsisType, ...]:
        """Index of the voxels (..., X, Y, Z) for which there is a prediction."""
        return (...,) if self.box is None else (..., *self.box)

    def calibration_case(self) -> CalibrationCase:
        """The part for which there is a prediction, as :func:`medcalib.calibrators.fit_calibrator` takes it.

        Raises:
            ValueError: it was read without its label.
        """
        if self.labels is None:
            raise ValueError(f"The case {self.case} was read without its label.")
        return CalibrationCase(self.logits[self.region], self.labels[self.region], name=self.case)


class PredictionFolder:
    """Probabilities or logits in files, one case at a time.

    A prediction is one NIfTI with classes on its last axis (``<case>_prob.nii.gz`` or ``<case>.nii.gz``), one NIfTI for
    each class (``<case>_0.nii.gz``, ...) or the archive that ``nnUNetv2_predict --save_probabilities`` writes
    (``<case>.npz``), there or in the folder of the case. Labels are ``<case>.nii.gz`` or ``<case>_seg.nii.gz``.

    An archive has no geometry; it takes that of the segmentation that nnU-Net writes beside it, or of the label.
    Whether nnU-Net's reader turned its axes is said in ``plans.json``, beside the predictions or up to two folders
    above, or in ``plans_file``; it is checked against the segmentation, or else against the label.

    Args:
        predictions_dir: folder of the predictions.
        labels_dir: folder of the labels; where it is None, cases have none.
        kind: ``"probabilities"`` or ``"logits"``; checked, never guessed.
        activation: ``"softmax"`` for classes that exclude each other, with the background first, or ``"sigmoid"`` for
            independent ones without background.
        regions: with the sigmoid, the labels that make up each channel by its name, such as
            ``{"whole": [1, 2], "core": [2]}``; by default channel c is label c + 1.
        plans_file: the ``plans.json`` of the training, for archives of nnU-Net beside which it does not lie.
        case_ids: ids of cases that may be in the folder: ``p1_0.nii.gz`` is the file of the case ``p1_0``, if there is
            one, and no class of the case ``p1``.

    Raises:
        UserError: a folder does not exist or both are one, ``kind`` or ``activation`` is unknown, ``regions`` do not
            fit, or ``plans_file`` is not nnU-Net's.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.full((4, 4, 2, 3), 1 / 3, np.float32), np.eye(4)), f"{folder}/a.nii.gz")
        ...     predicted = PredictionFolder(folder, None, "probabilities").read("a", with_label=False)
        >>> predicted.logits.shape
        torch.Size([1, 3, 4, 4, 2])
    """

    def __init__(
        self,
        predictions_dir: str | Path,
        labels_dir: str | Path | None,
        kind: PredictionKind | str,
        activation: Activation | str = Activation.SOFTMAX,
        regions: Mapping[str, Sequence[int]] | None = None,
        plans_file: str | Path | None = None,
        case_ids: Iterable[str] = (),
    ) -> None:
        self.kind = _member(PredictionKind, kind, "kind")
        self.activation = _member(Activation, activation, "activation")
        self.predictions_dir = _existing_folder(predictions_dir, "predictions_dir")
        self.labels_dir = None if labels_dir is None else _existing_folder(labels_dir, "labels_dir")
        if self.labels_dir is not None and self.labels_dir.samefile(self.predictions_dir):
            raise UserError(
                f"labels_dir {labels_dir} is the folder of the predictions, so that they would be compared with "
                f"themselves; give a folder that holds the labels alone."
            )
        self.regions = _checked_regions(regions, self.activation)
        self.plans = None if plans_file is None else read_plans(Path(plans_file).expanduser())
        self.case_ids = set(case_ids)
        self._first: tuple[str, int] | None = None

    def find(self, case: str, with_label: bool = True) -> list[Path]:
        """The files of a case.

        Raises:
            UserError: naming the case: a file is missing or ambiguous, or the label lies among the predictions.
        """
        found = self._find(case)
        return [*found.paths, self._label_path(case, found)] if with_label else list(found.paths)

    def known_plans(self) -> Plans:
        """What ``plans_file`` says.

        Raises:
            ValueError: the folder was made without it.
        """
        if self.plans is None:
            raise ValueError(f"{self.predictions_dir} was opened without plans_file.")
        return self.plans

    def read(self, case: str, with_label: bool = True) -> PredictedCase:
        """Read a case.

        Args:
            case: the case id.
            with_label: whether its label is read, too.

        Raises:
            UserError: naming case and file: a file is missing or damaged, shapes or affines differ, values are not what
                they are said to be, or the case has another number of classes than the one that was read first.
        """
        found = self._find(case)
        label_path = self._label_path(case, found) if with_label else None
        channels, geometry = self._channels(case, found, label_path)
        exclusive = self.activation is Activation.SOFTMAX
        box = predicted_box(channels.numpy(), exclusive) if found.layout is Layout.ARCHIVE else None
        what = f"Case {case}: {found.paths[0]}"
        logits = logits_of_values(channels, self.kind, self.activation, what)
        self._check_num_classes(case, len(logits), what)
        targets = None
        if label_path is not None:
            # after the prediction, whose reading takes most memory
            label = read_volume(label_path, case)
            check_same_geometry(geometry, label.geometry, case)
            on_disk = f"Case {case}: {label.geometry.path}"
            targets = label_targets(_channel_first(label), len(logits), self.activation, self.regions, on_disk)[None]
        return PredictedCase(case, logits[None], targets, geometry, box)

    def _check_num_classes(self, case: str, num_classes: int, what: str) -> None:
        if self.regions is not None and len(self.regions) != num_classes:
            raise UserError(
                f"{what} has {num_classes} channel(s), but regions names {len(self.regions)}; name one region for each."
            )
        first, expected = self._first = self._first or (case, num_classes)
        if num_classes != expected:
            raise UserError(
                f"{what} has {num_classes} classes, but case {first} has {expected}; leave one of them out."
            )

    def _channels(self, case: str, found: PredictionPaths, label_path: Path | None) -> tuple[Tensor, Geometry]:
        """What is predicted, (C, X, Y, Z), and on which grid."""
        if found.layout is Layout.ARCHIVE:
            return self._archive(case, found, label_path)
        volumes = [read_volume(path, case) for path in found.paths]
        if found.layout is Layout.CHANNELS:
            for volume in volumes:
                if volume.array.ndim != 3:
                    raise UserError(
                        f"Case {case}: {volume.geometry.path} is the file of a single class by its name, but has four "
                        f"axes; call a file of all classes {case}_prob.nii.gz."
                    )
                check_same_geometry(volumes[0].geometry, volume.geometry, case)
        return _joined(volumes), volumes[0].geometry

    def _archive(self, case: str, found: PredictionPaths, label_path: Path | None) -> tuple[Tensor, Geometry]:
        path = found.paths[0]
        if self.kind is PredictionKind.LOGITS:
            raise UserError(f"Case {case}: {path} is an archive of nnU-Net, which holds probabilities; give that kind.")
        beside = None if found.segmentation is None else read_volume(found.segmentation, case)
        reference = beside or (None if label_path is None else read_volume(label_path, case))
        if reference is None:
            try:
                reference = read_volume(self._label_path(case, found), case)
            except UserError as error:
                raise UserError(
                    f"Case {case}: {path} does not say where its voxels lie; keep nnU-Net's segmentation {case}.nii.gz "
                    f"beside it ({error})"
                ) from None
        plans = self.plans or find_plans([path.parent, self.predictions_dir])
        channels = torch.from_numpy(read_probabilities(path, reference.geometry, case, plans))
        grid = reference.geometry
        exclusive = self.activation is Activation.SOFTMAX
        if beside is not None:
            decided = most_probable(channels) if exclusive else (channels > 0.5).any(0)
            truth = beside.array if exclusive else beside.array > 0
            check_segmentation(decided.numpy(), truth, geometry=grid, path=path, case=case, plans=plans)
        else:
            on_disk = f"Case {case}: {reference.geometry.path}"
            truth = label_targets(_channel_first(reference), len(channels), self.activation, self.regions, on_disk)
            decided = most_probable(channels) if exclusive else channels > 0.5
            classes = (truth[0] if exclusive else truth).numpy()
            check_label(decided.numpy(), classes, geometry=grid, path=path, case=case, plans=plans)
        return channels, reference.geometry

    def _find(self, case: str) -> PredictionPaths:
        return find_prediction(self.predictions_dir, case, self.case_ids)

    def _label_path(self, case: str, found: PredictionPaths) -> Path:
        if self.labels_dir is None:
            raise UserError(f"Case {case} has no label, as no folder of labels was given; give labels_dir.")
        path = find_label(self.labels_dir, case, self.case_ids)
        for other in filter(None, (*found.paths, found.segmentation)):
            if path.samefile(other) or path.parent.samefile(other.parent):
                raise UserError(
                    f"Case {case}: {path} lies among the predictions, beside {other.name}, so that a prediction would "
                    f"be compared with itself; give a labels_dir that holds the labels alone."
                )
        return path


def most_probable(channels: Tensor) -> Tensor:
    """The most probable class of each voxel, (X, Y, Z), of (C, X, Y, Z)."""
    # slab by slab: the indices of a whole volume are eight bytes a voxel
    decided = torch.empty(channels.shape[1:], dtype=torch.int16, device=channels.device)
    for result, slab in zip(decided, channels.unbind(1), strict=True):
        result.copy_(slab.argmax(0))
    return decided


def _channel_first(volume: Volume) -> Tensor:
    return _joined([volume])


def _joined(volumes: Sequence[Volume]) -> Tensor:
    """The channels of all volumes in one tensor, (C, X, Y, Z), float32."""
    if len(volumes) == 1:
        array = volumes[0].array
        return torch.from_numpy(np.ascontiguousarray(array[None] if array.ndim == 3 else np.moveaxis(array, -1, 0)))
    parts = [array for volume in volumes for array in _channels_of(volume)]
    channels = torch.empty(len(parts), *parts[0].shape)
    for channel, part in zip(channels, parts, strict=True):
        channel.copy_(torch.from_numpy(part))
    return channels


def _channels_of(volume: Volume) -> list[NDArray[np.float32]]:
    """Views of the channels of a volume."""
    return [volume.array] if volume.array.ndim == 3 else list(np.moveaxis(volume.array, -1, 0))


def _member(enum: type[_Word], value: str, name: str) -> _Word:
    try:
        return enum(value)
    except ValueError:
        raise UserError(f"{name} is {value!r}, but must be {' or '.join(enum)}{suggestion(value, enum)}") from None


def _existing_folder(path: str | Path, name: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{name} {path} is not a folder; give one that exists.")
    return folder


def _checked_regions(
    regions: Mapping[str, Sequence[int]] | None, activation: Activation
) -> dict[str, list[int]] | None:
    if regions is None:
        return None
    if activation is Activation.SOFTMAX:
        raise UserError("regions are for activation sigmoid; with softmax every channel is one label.")
    if not isinstance(regions, Mapping) or not regions:
        raise UserError(f"regions must be labels by name, such as {{'whole': [1, 2], 'core': [2]}}, not {regions!r}.")
    checked = {}
    for name, labels in regions.items():
        listed = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
        if not listed or any(isinstance(label, bool) or not isinstance(label, int) or label < 1 for label in listed):
            raise UserError(f"The region {name} must list labels, whole numbers from 1 on, not {labels!r}.")
        checked[str(name)] = listed
    return checked
