"""Labels of several raters, and soft labels: what networks learn from them, and what segmentations are scored with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional.raters import majority, mean_response
from medcalib.image_files.label_values import label_dtype, no_class, value_text, whole_labels
from medcalib.keys import Activation, CaseKeys, LabelType, RaterKeys
from medcalib.transforms.checks import CheckLabeld

__all__ = ["CloseResponsed", "MajorityLabeld", "ToResponsed"]

# how far the probabilities of a voxel may be from a sum of 1, as those of files in half precision or percent are
SUM_TOLERANCE = 0.01


class ToResponsed(CheckLabeld):
    """Turn the labels of several raters, or a soft label, into the mean human response (C, ...), float32.

    Label maps come with one channel for each rater, as `LoadCased` reads a list of files; independent labels with the
    channels of the first rater, then those of the second, and so on. So nothing but label maps is resampled, and the
    response is what is kept in memory. A soft label has one channel for each class; where there are two exclusive
    classes, it may have one, the probability of the foreground. What padding and resampling took from the sum of
    exclusive classes goes to the background.

    Args:
        keys: keys of labels; one that a case lacks is passed over.
        class_names: one name per output channel of the network.
        activation: ``softmax`` for classes that exclude each other, ``sigmoid`` for independent labels.
        label_type: ``raters`` or ``probabilities``.
        keep_votes: whether the raters' own labels are kept, too, as ``votes``, uint8 or int32.

    Raises:
        UserError: ``label_type`` is neither; on call, naming the case and the rater: a value is no class, a probability
            is outside [0, 1], or channels are missing.

    Example:
        >>> respond = ToResponsed("label", class_names=["background", "organ"])
        >>> respond({"case": "a", "label": torch.tensor([[0, 1], [1, 1]])})["label"].tolist()
        [[0.5, 0.0], [0.5, 1.0]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        class_names: Sequence[str],
        activation: Activation | str = Activation.SOFTMAX,
        label_type: LabelType | str = LabelType.RATERS,
        keep_votes: bool = False,
    ) -> None:
        super().__init__(keys, class_names, activation)
        if label_type not in (LabelType.RATERS, LabelType.PROBABILITIES):
            raise UserError(f"data::label_type is {label_type!r}: it must be raters or probabilities here.")
        self.label_type = LabelType(label_type)
        self.keep_votes = keep_votes
        self.exclusive = Activation(activation) is Activation.SOFTMAX
        self.num_classes = len(class_names)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with its response in place of its labels."""
        result = dict(data)
        for key in self.key_iterator(result):
            label, case = result[key], str(result.get(CaseKeys.CASE, "?"))
            if self.label_type is LabelType.PROBABILITIES:
                response = self._soft(case, str(key), label)
            else:
                votes = self._votes(case, str(key), label)
                if self.keep_votes:
                    result[RaterKeys.VOTES.value] = _like(votes, label)
                raters = len(votes) // self.num_channels
                if not self.exclusive:
                    votes = votes.reshape(raters, self.num_channels, *votes.shape[1:]).bool()
                response = mean_response(votes, self.num_classes)
            result[key] = _like(response, label)
        return result

    def _votes(self, case: str, key: str, label: Tensor) -> Tensor:
        if not len(label) or len(label) % self.num_channels:
            raise UserError(
                f"Case {case}: its {key} has {len(label)} channel(s), but each rater must give {self.num_channels} to "
                f"fit data::class_names and the activation."
            )
        label = whole_labels(label).as_subclass(Tensor)
        for channel, values in enumerate(label):
            wrong = no_class(values, self.num_values)
            if wrong.any():
                rater = channel // self.num_channels + 1
                hint = " (data::label_type is raters; of a soft label it is probabilities)" * bool(
                    values[wrong][0] != values[wrong][0].round()
                )
                raise UserError(
                    f"Case {case}: its {key} of rater {rater} of {len(label) // self.num_channels} holds the value "
                    f"{value_text(values[wrong][0])}, but {self._values}; correct the label, or map its values in "
                    f"data::label_map{hint}."
                )
        return label.to(label_dtype(self.num_values))

    def _soft(self, case: str, key: str, label: Tensor) -> Tensor:
        values = label.as_subclass(Tensor).to(torch.float32)
        low, high = (float(value) for value in values.aminmax())
        if low < -1e-3 or high > 1 + 1e-3:
            raise UserError(
                f"Case {case}: its {key} ranges from {low:g} to {high:g}, but data::label_type is probabilities, which "
                f"lie in [0, 1]; divide those in percent by 100, and set data::label_type to raters for label maps."
            )
        values = values.clamp(0, 1)
        if self.exclusive and self.num_classes == 2 and len(values) == 1:
            values = torch.cat([1 - values, values])
        if len(values) != self.num_classes:
            single = ", or 1, the probability of the foreground," if self.exclusive and self.num_classes == 2 else ""
            raise UserError(
                f"Case {case}: its {key} has {len(values)} channel(s), but a soft label has {self.num_classes}{single} "
                f"one for each of data::class_names."
            )
        if self.exclusive:
            total = values.sum(0)
            # what padding or resampling beyond the border added has no probability at all
            off = ((total - 1).abs() > SUM_TOLERANCE) & (total > SUM_TOLERANCE)
            if off.any():
                raise UserError(
                    f"Case {case}: its {key} does not sum to 1 over the classes in {int(off.sum())} voxels (there are "
                    f"{float(total[off][0]):g}); correct it, or use activation: sigmoid if the labels may overlap."
                )
            values = _closed(values)
        return values


class CloseResponsed(MapTransform):
    """Give to the background what padding and interpolation took from the sum of a response of exclusive classes.

    Args:
        keys: keys of responses (C, ...); one that a case lacks is passed over.
        activation: nothing is done with ``sigmoid``.

    Example:
        >>> CloseResponsed("label")({"label": torch.tensor([[0.0, 0.5], [0.0, 0.25]])})["label"].tolist()
        [[1.0, 0.75], [0.0, 0.25]]
    """

    def __init__(self, keys: KeysCollection, activation: Activation | str = Activation.SOFTMAX) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.exclusive = Activation(activation) is Activation.SOFTMAX

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with closed responses."""
        result = dict(data)
        for key in self.key_iterator(result):
            if self.exclusive:
                result[key] = _like(_closed(result[key].as_subclass(Tensor)), result[key])
        return result


class MajorityLabeld(MapTransform):
    """Keep the response of a case as ``response``, and put the majority vote in the place of its label.

    Calibration errors, NLL and Brier score compare probabilities with the response, Dice and distances a segmentation
    with the majority; see `medcalib.functional.majority` for ties. What is no soft label is left as it is.

    Args:
        keys: key of the label; one that a case lacks is passed over.
        activation: ``softmax`` or ``sigmoid``.

    Example:
        >>> case = MajorityLabeld("label")({"label": torch.tensor([[0.4, 0.5], [0.6, 0.5]])})
        >>> case["label"].tolist(), sorted(case)
        ([[1, 0]], ['label', 'response'])
    """

    def __init__(self, keys: KeysCollection, activation: Activation | str = Activation.SOFTMAX) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.sigmoid = Activation(activation) is Activation.SIGMOID

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with majority and response."""
        result = dict(data)
        for key in self.key_iterator(result):
            # of an image without label an engine makes None
            if isinstance(result[key], Tensor) and torch.is_floating_point(result[key]):
                result[RaterKeys.RESPONSE.value] = result[key]
                result[key] = _like(majority(result[key], self.sigmoid), result[key])
        return result


def _closed(response: Tensor) -> Tensor:
    missing = (1 - response.sum(0)).clamp(min=0)
    # a rounding is no loss: what is exact stays so
    missing = torch.where(missing > 1e-5, missing, torch.zeros_like(missing))
    closed = response.clone()
    closed[0] += missing
    return closed


def _like(values: Tensor, source: Tensor) -> Tensor:
    return MetaTensor(values).copy_meta_from(source) if isinstance(source, MetaTensor) else values
