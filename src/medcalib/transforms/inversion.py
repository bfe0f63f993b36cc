"""Bring probabilities back to the geometry of the input."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Invertd, InvertibleTransform, MapTransform, Transform
from monai.utils import CommonKeys

from medcalib.keys import Activation, CaseKeys, EvaluationSpace
from medcalib.transforms.loading import LoadCased

__all__ = ["InvertProbabilitiesd", "ToEvaluationSpaced"]


class InvertProbabilitiesd(MapTransform):
    """Undo the spatial preprocessing on class probabilities.

    Probabilities are interpolated linearly, which keeps them in [0, 1] and their sum at 1. Where preprocessing had
    cropped the input away there is no prediction: those voxels become background with certainty.

    Args:
        keys: keys of probabilities (C, ...), background first.
        transform: the preprocessing, as it was applied to ``orig_keys``.
        orig_keys: key of the preprocessed image.
        activation: ``softmax`` for exclusive classes, as above; ``sigmoid`` for independent ones, which are certainly
            absent where there is no prediction.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        orig_keys: str = "image",
        activation: Activation | str = Activation.SOFTMAX,
    ) -> None:
        super().__init__(keys)
        self.activation = Activation(activation)
        self._invert = Invertd(
            keys=self.keys, transform=transform, orig_keys=orig_keys, nearest_interp=False, to_tensor=True
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its probabilities in the geometry of the file."""
        inverted = dict(self._invert(dict(data)))
        for key in self.keys:
            probs = inverted[key].clamp(0, 1)
            if self.activation is Activation.SOFTMAX:
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

    Raises:
        ValueError: ``space`` is neither of the two.
    """

    def __init__(self, space: EvaluationSpace | str, invert: Callable, load: LoadCased) -> None:
        self.space = EvaluationSpace(space)
        self.invert = invert
        self.load = load

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with prediction and label on the chosen grid."""
        if self.space is EvaluationSpace.RESAMPLED:
            return dict(data)
        moved = self.invert(data)
        label = data[CommonKeys.LABEL]
        stored = self.load.read_label(
            str(data[CaseKeys.CASE]), label.meta["filename_or_obj"], data.get(CaseKeys.FRAME)
        )
        moved[CommonKeys.LABEL] = stored.to(device=label.device, dtype=label.dtype)
        return moved
