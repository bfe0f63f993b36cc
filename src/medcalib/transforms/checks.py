"""Check labels and predictions, naming the case."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from medcalib.errors import UserError
from medcalib.functional.slabs import slabs
from medcalib.image_files.label_values import label_dtype, no_class, value_text, whole_labels
from medcalib.keys import Activation, CaseKeys

__all__ = ["CheckForegroundd", "CheckLabeld", "CheckPredictiond"]


class CheckLabeld(MapTransform):
    """Check that a label holds what is predicted, and make it uint8, or int32 where there are more than 256 classes.

    Values that are whole numbers but for a rounding are rounded.

    Args:
        keys: keys of labels; one that a case lacks is passed over.
        class_names: one name per output channel of the network.
        activation: ``softmax`` for label maps (1, ...) of class indices, from 0 to the number of names less one;
            ``sigmoid`` for one channel of 0 and 1 for each name, (C, ...).
        ignored: whether voxels may be `medcalib.keys.IGNORED`; the label becomes a type with a sign then.

    Raises:
        UserError: on call, naming the case: a value is none of these, or channels are missing.

    Example:
        >>> check = CheckLabeld("label", class_names=["background", "organ"])
        >>> check({"case": "a", "label": torch.tensor([[0.0, 1.0]])})["label"].dtype
        torch.uint8
        >>> check({"case": "a", "label": torch.tensor([[0.0, 2.0]])})
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: Case a: its label holds the value 2, but data::class_names lists 2 classes, 0 to 1; \
correct the label, or map its values in data::label_map.
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        activation: Activation | str = Activation.SOFTMAX,
        ignored: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.ignored = ignored
        independent = Activation(activation) is Activation.SIGMOID
        self.num_channels = len(class_names) if independent else 1
        self.num_values = 2 if independent else len(class_names)
        self._values = (
            "a channel of an independent label holds 0 and 1"
            if independent
            else f"data::class_names lists {self.num_values} classes, 0 to {self.num_values - 1}"
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with checked labels."""
        checked = dict(data)
        for key in self.key_iterator(checked):
            label = checked[key]
            case = checked.get(CaseKeys.CASE, "?")
            if label.shape[0] != self.num_channels:
                raise UserError(
                    f"Case {case}: its {key} has {label.shape[0]} channel(s), but must have {self.num_channels} to fit "
                    f"data::class_names and the activation; the last transform of data::preprocessing can be a "
                    f"medcalib.transforms.Regionsd that makes one for each of several labels."
                )
            label = whole_labels(label)
            wrong = no_class(label, self.num_values, self.ignored)
            if wrong.any():
                raise UserError(
                    f"Case {case}: its {key} holds the value {value_text(label[wrong][0])}, but {self._values}; "
                    f"correct the label, or map its values in data::label_map."
                )
            checked[key] = label.to(label_dtype(self.num_values, self.ignored))
        return checked


class CheckForegroundd(MapTransform):
    """Check that an image has voxels above 0; put it before `monai.transforms.CropForegroundd`, which keeps only those.

    Args:
        keys: keys of images (C, ...).

    Raises:
        UserError: on call, naming the case: no voxel is above 0.

    Example:
        >>> CheckForegroundd("image")({"case": "a", "image": torch.tensor([[-1.0, 0.0]])})
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: Case a: its image is nowhere above 0, so nothing is left when it is cropped to its \
foreground; the file may be empty or its intensities in another unit.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case as it is."""
        for key in self.key_iterator(data):
            if not (data[key] > 0).any():
                raise UserError(
                    f"Case {data.get(CaseKeys.CASE, '?')}: its {key} is nowhere above 0, so nothing is left when it is "
                    f"cropped to its foreground; the file may be empty or its intensities in another unit."
                )
        return dict(data)


class CheckPredictiond(MapTransform):
    """Check that the network predicted numbers.

    Args:
        keys: keys of logits (C, ...).

    Raises:
        UserError: on call, naming the case: there is NaN or Inf.

    Example:
        >>> CheckPredictiond("pred")({"case": "a", "pred": torch.tensor([torch.nan])})
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: Case a: the network predicts 1 NaN or Inf value(s), so its training diverged; \
train again with a lower train::optimizer::lr.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case as it is."""
        for key in self.key_iterator(data):
            logits = data[key]
            wrong = sum(int((~torch.isfinite(logits[part])).sum()) for part in slabs(logits))
            if wrong:
                raise UserError(
                    f"Case {data.get(CaseKeys.CASE, '?')}: the network predicts {wrong} NaN or Inf value(s), so its "
                    f"training diverged; train again with a lower train::optimizer::lr."
                )
        return dict(data)
