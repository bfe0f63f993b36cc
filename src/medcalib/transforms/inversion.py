"""Bring probabilities back to the geometry of the input."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Invertd, InvertibleTransform, MapTransform, Transform
from monai.utils import CommonKeys

from medcalib.errors import UserError
from medcalib.keys import CaseKeys, EvaluationSpace
from medcalib.task import Task
from medcalib.transforms.loading import LoadCased

__all__ = ["InvertProbabilitiesd", "ToEvaluationSpaced"]


class InvertProbabilitiesd(MapTransform):
    """Undo the spatial preprocessing on class probabilities.

    Probabilities are interpolated linearly, which keeps them in [0, 1] and their sum at 1. Where preprocessing had
    cropped the input away there is no prediction: those voxels become background with certainty.

    Args:
        keys: keys of probabilities (C, ...).
        transform: the preprocessing, as it was applied to ``orig_keys``.
        task: what is predicted; independent labels are certainly absent where there is no prediction.
        orig_keys: key of the preprocessed image.
    """

    def __init__(
        self, keys: KeysCollection, transform: InvertibleTransform, task: Task, orig_keys: str = "image"
    ) -> None:
        super().__init__(keys)
        self.task = task
        self._invert = Invertd(
            keys=self.keys, transform=transform, orig_keys=orig_keys, nearest_interp=False, to_tensor=True
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its probabilities in the geometry of the file."""
        inverted = dict(self._invert(dict(data)))
        for key in self.keys:
            probs = inverted[key].clamp(0, 1)
            if self.task.exclusive:
                probs[0] += (1 - probs.sum(0)).clamp(min=0)
                probs = probs / probs.sum(0, keepdim=True)
            inverted[key] = probs
        return inverted


class ToEvaluationSpaced(Transform):
    """Bring prediction and label to the grid on which they are compared.

    Args:
        space: ``resampled`` leaves both on the grid of the network; ``original`` brings the probabilities back to the
            grid of the file and reads the label as it is stored there.
        invert: brings the probabilities and other maps back.
        load: reads the label.
        label_transforms: what makes of a label as it is stored the one that is predicted, such as one channel for each
            of several labels that overlap; see `medcalib.transforms.label_regions`.

    Raises:
        ValueError: ``space`` is neither of the two.
        UserError: on call, naming the case: the stored label has another number of channels than the preprocessed one.
    """

    def __init__(
        self,
        space: EvaluationSpace | str,
        invert: Callable,
        load: LoadCased,
        label_transforms: Sequence[Callable[[dict], Mapping]] = (),
    ) -> None:
        self.space = EvaluationSpace(space)
        self.invert = invert
        self.load = load
        self.label_transforms = tuple(label_transforms)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with prediction and label on the chosen grid."""
        if self.space is EvaluationSpace.RESAMPLED:
            return dict(data)
        moved = self.invert(data)
        label = data[CommonKeys.LABEL]
        case = str(data[CaseKeys.CASE])
        where = (CaseKeys.CASE, CaseKeys.FRAME, CaseKeys.CROP, CaseKeys.OUTLINE)
        kept = {key: data[key] for key in where if key in data}
        stored = self.load(kept | {CommonKeys.LABEL: label.meta["filename_or_obj"]})[CommonKeys.LABEL]
        for transform in self.label_transforms:
            stored = transform({CaseKeys.CASE: case, CommonKeys.LABEL: stored})[CommonKeys.LABEL]
        if stored.shape[0] != label.shape[0]:
            raise UserError(
                f"Case {case}: its label has {label.shape[0]} channel(s) after data::preprocessing, but "
                f"{stored.shape[0]} in {label.meta['filename_or_obj']}; evaluate it with "
                f"--evaluation::space=resampled, or make its channels with medcalib.transforms.Regionsd."
            )
        moved[CommonKeys.LABEL] = stored.to(device=label.device, dtype=label.dtype)
        return moved
