"""Overlapping regions of classes, and the part of an image in which results count."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from monai.utils import CommonKeys, ensure_tuple
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional.slabs import slabs
from medcalib.functional.unknown_truth import known_voxels
from medcalib.keys import IGNORED, CaseKeys

__all__ = ["RegionOfInterestd", "Regionsd", "label_regions"]


class Regionsd(MapTransform):
    """Turn exclusive classes into regions that may overlap, such as kidney and masses.

    The probability of a region is the sum of those of its classes, and a voxel belongs to it if its label is one of
    them; where its truth is unknown, `medcalib.keys.IGNORED`, it is so for all regions. What has one channel is taken
    as a label map (1, ...), the rest as probabilities (C, ...).

    Args:
        keys: keys of probabilities and label maps.
        regions: classes of each region by its name, as indices; nothing is changed when None.
        num_classes: number of classes, background included.
        allow_missing_keys: whether a key that a case lacks is passed over.

    Raises:
        UserError: a region has no class, or one that does not exist; on call, naming the case: a label is no class.

    Example:
        >>> regions = Regionsd("pred", {"any": [1, 2], "core": [2]}, num_classes=3)
        >>> regions({"pred": torch.tensor([0.5, 0.25, 0.25])[:, None]})["pred"].tolist()
        [[0.5], [0.25]]
        >>> regions({"pred": torch.tensor([[0, 1, 2]])})["pred"].tolist()
        [[0, 1, 1], [0, 0, 1]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Mapping[str, Sequence[int]] | None,
        num_classes: int,
        allow_missing_keys: bool = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = None if regions is None else {name: _classes(name, of) for name, of in regions.items()}
        self.num_classes = num_classes
        for name, classes in (self.regions or {}).items():
            if not classes or any(isinstance(i, bool) or i not in range(num_classes) for i in classes):
                raise UserError(
                    f"data::regions::{name} must list classes from 0 to {num_classes - 1}, not {list(classes)}."
                )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with one channel for each region, of the same dtype."""
        result = dict(data)
        if self.regions is None:
            return result
        for key in self.key_iterator(result):
            values = result[key]
            if values.shape[0] == 1:
                known = None if known_voxels(values, channel_axis=0) is None else values != IGNORED
                self._check(result, key, values if known is None else values.where(known, 0))
                parts = [
                    torch.isin(values[0], values.new_tensor(classes)).to(values.dtype)
                    for classes in self.regions.values()
                ]
            else:
                result[key] = self._united(values)
                continue
            united = torch.stack(parts)
            result[key] = united if known is None else united.where(known, IGNORED)
        return result

    def _united(self, probs: Tensor) -> Tensor:
        regions = list((self.regions or {}).values())
        plain = probs.as_subclass(Tensor)
        united = plain.new_empty((len(regions), *plain.shape[1:]))
        for part in slabs(plain):
            for row, classes in zip(united, regions, strict=True):
                row[part[1:]] = plain[part][list(classes)].sum(0)
        return MetaTensor(united).copy_meta_from(probs) if isinstance(probs, MetaTensor) else united

    def _check(self, case: Mapping[Hashable, Any], key: Hashable, labels: Tensor) -> None:
        known = torch.isin(labels, labels.new_tensor(range(self.num_classes)))
        if not known.all():
            raise UserError(
                f"Case {case.get(CaseKeys.CASE, '?')}: its {key} holds the value {float(labels[~known][0]):g}, but its "
                f"regions are made of {self.num_classes} classes, 0 to {self.num_classes - 1}; correct the label, or "
                f"map its values in data::label_map."
            )


def _classes(name: str, classes: Any) -> tuple:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise UserError(f"data::regions::{name} must be a list of classes, such as [1, 3], not {classes!r}.")
    return tuple(classes)


def label_regions(transform: Compose, key: str = CommonKeys.LABEL) -> list[Regionsd]:
    """Find what a preprocessing does to the values of labels, without what it does to their place.

    Args:
        transform: the preprocessing.
        key: key of the labels.

    Returns:
        Its transforms that turn label maps into regions, in order; none where labels stay as they are stored.

    Example:
        >>> regions = Regionsd("label", {"any": [1, 2]}, num_classes=3)
        >>> label_regions(Compose([regions])) == [regions]
        True
    """
    return [part for part in transform.flatten().transforms if isinstance(part, Regionsd) and key in part.keys]


class RegionOfInterestd(MapTransform):
    """Mark where a channel of an image is above a value, such as the brain; put it before intensities are changed.

    Args:
        keys: keys of images (C, ...).
        names: keys under which the masks (1, ...) are added.
        channel: index of the channel.
        above: value above which a voxel counts.

    Raises:
        UserError: on call, naming the case: no voxel counts.

    Example:
        >>> mark = RegionOfInterestd("image", "region_of_interest", channel=0, above=0.0)
        >>> mark({"case": "a", "image": torch.tensor([[0.0, 2.0]])})["region_of_interest"].tolist()
        [[0.0, 1.0]]
    """

    def __init__(self, keys: KeysCollection, names: KeysCollection, channel: int = 0, above: float = 0.0) -> None:
        super().__init__(keys)
        self.names = ensure_tuple(names)
        self.channel = channel
        self.above = above

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with the masks added."""
        result = dict(data)
        for key, name in self.key_iterator(result, self.names):
            mask = (result[key][self.channel : self.channel + 1] > self.above).float()
            if not mask.any():
                raise UserError(
                    f"Case {result.get('case', '?')}: channel {self.channel} of its {key} is nowhere above "
                    f"{self.above:g}, so its region of interest is empty; check the order and unit of its channels."
                )
            result[name] = mask
        return result
