"""Where patches may be centred, of labels that are unknown in places."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import ClassesToIndicesd
from torch import Tensor

__all__ = ["KnownClassesToIndicesd"]

# as many as are enough to centre a patch anywhere
_PLACES = 5000


class KnownClassesToIndicesd(ClassesToIndicesd):
    """`monai.transforms.ClassesToIndicesd` for labels with voxels to be ignored, which are of no class.

    Of a label in which nothing is known, some evenly spaced voxels stand for the first class, so that
    `monai.transforms.RandCropByLabelClassesd`, which fails without any place for a patch, has one.

    Example:
        >>> find = KnownClassesToIndicesd("label", num_classes=2)
        >>> [places.tolist() for places in find({"label": torch.tensor([[0, -1, 1]])})["label_cls_indices"]]
        [[0], [2]]
        >>> [places.tolist() for places in find({"label": torch.tensor([[-1, -1, -1]])})["label_cls_indices"]]
        [[0, 1, 2], []]
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with the indices of the voxels of each class."""
        found = dict(super().__call__(data))
        for key in self.key_iterator(found):
            name = f"{key!s}{self.indices_postfix}"
            first, *others = found[name]
            if not len(first) and not any(map(len, others)):
                voxels = math.prod(found[key].shape[1:])
                places = torch.linspace(0, voxels - 1, min(voxels, _PLACES), dtype=torch.float64).long()
                found[name] = [places if isinstance(first, Tensor) else places.numpy(), *others]
        return found
