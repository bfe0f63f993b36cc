"""Bring probabilities back to the geometry of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform, MapTransform, Transform
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional.slabs import can_overwrite, slabs
from medcalib.keys import CaseKeys, EvaluationSpace, RaterKeys
from medcalib.task import Task
from medcalib.transforms.loading import LoadCased
from medcalib.transforms.structures import PATHS_BETWEEN

__all__ = ["InvertProbabilitiesd", "ToEvaluationSpaced"]

# about how many values are brought back at a time
CHANNEL_VALUES = 1 << 24
# what says beside its files which label is meant
_OF_LABEL = (
    *(CaseKeys.CASE, CaseKeys.FRAME, CaseKeys.CROP, CaseKeys.OUTLINE),
    *(CaseKeys.STRUCTURES, CaseKeys.NUM_STRUCTURES),
)


class InvertProbabilitiesd(MapTransform):
    """Undo the spatial preprocessing on class probabilities.

    Probabilities are interpolated linearly, which keeps them in [0, 1] and their sum at 1. Where preprocessing had
    cropped the input away there is no prediction: those voxels become background with certainty.

    Big volumes are brought back few channels at a time. They take over the memory of what is brought back, or the
    probabilities are taken out of the case that is given, so that nobody keeps them while the others come to be.

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
        self._invert = {
            key: Invertd(key, transform=transform, orig_keys=orig_keys, nearest_interp=False, to_tensor=True)
            for key in self.keys
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its probabilities in the geometry of the file."""
        inverted: dict[Hashable, Any] = {}
        for key in self.key_iterator(data):
            inverted[key] = self._inverted(data, key)
            if self.task.exclusive:
                values = inverted[key].as_subclass(Tensor)
                for part in slabs(values):
                    probs = values[part]
                    probs[0] += (1 - probs.sum(0)).clamp_(min=0)
                    probs /= probs.sum(0, keepdim=True)
            inverted[key] = _in_order(inverted[key])
        return {**data, **inverted}

    def _inverted(self, data: Mapping[Hashable, Any], key: Hashable) -> MetaTensor:
        """Probabilities in the geometry of the file, between 0 and 1."""
        num_channels, voxels = data[key].shape[0], data[key].shape[1:].numel()
        step = max(CHANNEL_VALUES // max(voxels, 1), 1)
        if step >= num_channels:
            return self._invert[key](data)[key].clamp(0, 1)
        starts = range(0, num_channels, step)

        def invert(channels: Tensor) -> MetaTensor:
            return self._invert[key]({**data, key: MetaTensor(channels)})[key].clamp_(0, 1)

        source = data[key].as_subclass(Tensor)
        # a copy, since what is only turned would be a view of it
        first = invert(source[:step].clone())
        shape = (num_channels, *first.shape[1:])
        if source.is_contiguous() and can_overwrite(source) and first.shape[1:].numel() == voxels:
            probs = _laid_out(source.view(-1), shape, first)
            probs[:step] = first
            for start in starts[1:]:
                probs[start : start + step] = invert(source[start : start + step].clone())
        else:
            waiting = [source[start : start + step].clone() for start in starts[1:]]
            del source
            if isinstance(data, MutableMapping):
                del data[key]
            memory = torch.empty(math.prod(shape), dtype=first.dtype, device=first.device)
            probs = _laid_out(memory, shape, first)
            probs[:step] = first
            for start in starts[1:]:
                probs[start : start + step] = invert(waiting.pop(0))
        return MetaTensor(probs).copy_meta_from(first)


def _laid_out(memory: Tensor, shape: Sequence[int], first: Tensor) -> Tensor:
    """Memory as channels each of which lies there as the first ones do, since the last bits of sums depend on that."""
    order = _axes_in_memory(first)
    return memory.view([shape[axis] for axis in order]).permute([order.index(axis) for axis in range(first.ndim)])


def _in_order(probs: MetaTensor) -> MetaTensor:
    """Channel by channel in the order of the axes, since what follows would copy all of them for it."""
    ordered = probs.as_subclass(Tensor).permute(_axes_in_memory(probs))
    if probs.is_contiguous() or not ordered.is_contiguous() or not can_overwrite(probs):
        return probs
    memory = ordered.view(probs.shape)
    for place, channel in zip(memory, probs.as_subclass(Tensor), strict=True):
        place.copy_(channel.clone())
    return MetaTensor(memory).copy_meta_from(probs)


def _axes_in_memory(values: Tensor) -> list[int]:
    return [0, *sorted(range(1, values.ndim), key=values.stride, reverse=True)]


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
        kept = {key: data[key] for key in _OF_LABEL if key in data}
        files = str(label.meta["filename_or_obj"]).split(PATHS_BETWEEN)
        stored = self.load(kept | {CommonKeys.LABEL: files if len(files) > 1 else files[0]})[CommonKeys.LABEL]
        for transform in self.label_transforms:
            found = transform({CaseKeys.CASE: case, CommonKeys.LABEL: stored})
            stored = found[CommonKeys.LABEL]
            if RaterKeys.VOTES in found:
                moved[RaterKeys.VOTES] = found[RaterKeys.VOTES].to(label.device)
        if stored.shape[0] != label.shape[0]:
            raise UserError(
                f"Case {case}: its label has {label.shape[0]} channel(s) after data::preprocessing, but "
                f"{stored.shape[0]} in {label.meta['filename_or_obj']}; evaluate it with "
                f"--evaluation::space=resampled, or make its channels with medcalib.transforms.Regionsd."
            )
        moved[CommonKeys.LABEL] = stored.to(device=label.device, dtype=label.dtype)
        return moved
