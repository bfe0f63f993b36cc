"""Leave voxels of unknown truth out of what a prediction is compared with."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.functional.unknown_truth import known_voxels, unsigned_labels
from medcalib.keys import IGNORED, CaseKeys
from medcalib.task import Task
from medcalib.transforms.regions import Regionsd
from medcalib.transforms.scores import WHOLE_SEGMENTATION

__all__ = ["LeaveOutIgnoredd"]

_SEGMENTATION, _MASK = "seg", "mask"


class LeaveOutIgnoredd(Regionsd):
    """`Regionsd`, after which the voxels of unknown truth of a case count nowhere.

    It is the last step before a prediction is compared with a label. In such voxels segmentation and label are of no
    class that counts: background, or `medcalib.keys.IGNORED` where the background counts, too. ``mask``, the voxels in
    which probabilities are compared, lacks them; so does ``known``. The segmentation as it was predicted stays under
    another key, since scores of uncertainty, which need no label, are of the whole image. A case whose truth is known
    everywhere has nothing of this.

    Args:
        keys: as of `Regionsd`, and so are the others.
        regions: classes of each region by its name.
        num_classes: number of classes.
        task: what counts.
        allow_missing_keys: whether a key that a case lacks is passed over.

    Example:
        >>> leave_out = LeaveOutIgnoredd(["seg", "label"], None, 2, Task(["background", "organ"]))
        >>> case = leave_out({"seg": torch.tensor([[1, 1, 0]]), "label": torch.tensor([[1, -1, 0]])})
        >>> case["seg"].tolist(), case["label"].tolist(), case["mask"].tolist()
        ([[1, 0, 0]], [[1, 0, 0]], [[True, False, True]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[int]] | None,
        num_classes: int,
        task: Task,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, regions, num_classes, allow_missing_keys)
        self._no_class = IGNORED if task.reports_exclusive and task.include_background else 0

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case of which nothing unknown counts."""
        case = super().__call__(data)
        label = case.get(CommonKeys.LABEL)
        if not isinstance(label, Tensor):
            return case
        known = known_voxels(label, channel_axis=0)
        if known is None:
            case[CommonKeys.LABEL] = unsigned_labels(label)
            return case
        if not known.any():
            warnings.warn(
                f"Case {case.get(CaseKeys.CASE, '?')}: the label of none of its voxels is known, so it has no metrics.",
                stacklevel=2,
            )
        case[CommonKeys.LABEL] = torch.where(known, label, self._no_class)
        if isinstance(segmentation := case.get(_SEGMENTATION), Tensor):
            case[WHOLE_SEGMENTATION] = segmentation
            signed = segmentation.to(torch.int16) if self._no_class and not segmentation.is_signed() else segmentation
            case[_SEGMENTATION] = torch.where(known.to(signed.device), signed, signed.new_tensor(self._no_class))
        mask = case.get(_MASK)
        case[_MASK] = known if mask is None else (mask.as_subclass(Tensor) != 0) & known.to(mask.device)
        case[CaseKeys.KNOWN] = known
        return case
