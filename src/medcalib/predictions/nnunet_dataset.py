"""What the ``dataset.json`` of nnU-Net says of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcalib.errors import UserError
from medcalib.keys import Activation
from medcalib.predictions.prediction_folder import most_probable
from medcalib.predictions.prediction_paths import ENDINGS

__all__ = ["DATASET", "DatasetDescription", "read_dataset"]

DATASET = "dataset.json"


class DatasetDescription(NamedTuple):
    """The classes of a dataset of nnU-Net, version 2.

    Attributes:
        path: the file that says it.
        class_names: names of the channels of a prediction, in their order: the classes in that of their labels,
            background first; or the regions in that of the file.
        activation: softmax, or of regions sigmoid.
        regions: of networks trained on regions, the labels of each by its name; else None.
        region_order: the label that stands for each region in a segmentation, painted in this order, so that later
            ones lie on earlier ones; empty where there are no regions.
        ending: how the names of segmentations end.
    """

    path: Path
    class_names: list[str]
    activation: Activation
    regions: dict[str, list[int]] | None
    region_order: list[int]
    ending: str

    def segmentation(self, probabilities: Tensor) -> NDArray:
        """The label map of probabilities (C, X, Y, Z), as nnU-Net makes it, (X, Y, Z)."""
        if self.regions is None:
            labels = most_probable(probabilities)
        else:
            labels = torch.zeros(probabilities.shape[1:], dtype=torch.int16, device=probabilities.device)
            for channel, label in zip(probabilities, self.region_order, strict=True):
                labels[channel > 0.5] = label
        largest = max(len(self.class_names), *self.region_order) if self.region_order else len(self.class_names)
        return labels.cpu().numpy().astype(np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16)

    def check_same_classes(self, other: DatasetDescription) -> None:
        """Check that another dataset has the same classes in the same order.

        Raises:
            UserError: naming both files.
        """
        if self[1:5] != other[1:5]:
            raise UserError(
                f"{other.path} has the classes {', '.join(other.class_names)}, but {self.path} has "
                f"{', '.join(self.class_names)}, or their labels differ; give predictions of this dataset."
            )


def read_dataset(folder: Path) -> DatasetDescription:
    """Read the ``dataset.json`` that nnU-Net puts into the folder of its results and beside its predictions.

    Args:
        folder: the folder.

    Raises:
        UserError: there is none or it is damaged, is one of version 1, lacks the background or a label, has regions
            without a sound ``regions_class_order``, or files that are no NIfTI.

    Example:
        >>> import tempfile
        >>> labels = {"background": 0, "whole": [1, 2], "core": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = json.dumps({"labels": labels, "regions_class_order": [1, 2], "file_ending": ".nii.gz"})
        ...     _ = Path(folder, "dataset.json").write_text(text)
        ...     read_dataset(Path(folder)).regions
        {'whole': [1, 2], 'core': [2]}
    """
    path = folder / DATASET
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = content["labels"]
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; nnU-Net puts it there when it trains and predicts, so copy it from nnUNet_raw."
        ) from None
    except (ValueError, OSError, KeyError, TypeError):
        labels = None
    if not isinstance(labels, Mapping) or not labels:
        raise UserError(f"{path} is not the dataset.json of nnU-Net, whose labels are needed.")
    if any(isinstance(label, str) for label in labels.values()):
        raise UserError(
            f"{path} names labels as version 1 of nnU-Net did, numbers first; version 2 is needed, which writes names "
            f"first."
        )
    members = {str(name): _members(path, name, value) for name, value in labels.items() if name != "ignore"}
    if members.get("background") != [0]:
        raise UserError(f"{path} must have the label background: 0; add it.")
    ending = content.get("file_ending")
    if ending not in ENDINGS:
        raise UserError(f"{path} says that files end with {ending!r}, but only {' and '.join(ENDINGS)} can be read.")
    # as nnU-Net decides it: a list of a single label alone makes no regions
    if any(isinstance(labels[name], list) and len(labels[name]) > 1 for name in members):
        regions = {name: listed for name, listed in members.items() if set(listed) != {0}}
        order = _region_order(path, content, regions)
        return DatasetDescription(path, list(regions), Activation.SIGMOID, regions, order, ending)
    names = sorted(members, key=lambda name: members[name])
    if [members[name] for name in names] != [[number] for number in range(len(names))]:
        found = ", ".join(f"{name}: {members[name][0]}" for name in names)
        raise UserError(f"{path} has the labels {found}, which must be numbered from 0 without a gap; renumber them.")
    return DatasetDescription(path, names, Activation.SOFTMAX, None, [], ending)


def _members(path: Path, name: str, value: Any) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    if not listed or any(isinstance(label, bool) or not isinstance(label, int) or label < 0 for label in listed):
        raise UserError(f"{path} gives {name} the label {value!r}, which must be a whole number or a list of them.")
    return sorted(set(listed))


def _region_order(path: Path, content: Mapping[str, Any], regions: Mapping[str, list[int]]) -> list[int]:
    order = content.get("regions_class_order")
    if order is None:
        raise UserError(
            f"{path} has regions ({', '.join(regions)}), but no regions_class_order, which says what label stands for "
            f"each of them; add it, one label for each."
        )
    whole = isinstance(order, list) and all(isinstance(label, int) and not isinstance(label, bool) for label in order)
    if not whole or len(order) != len(regions) or min(order, default=0) < 0:
        raise UserError(
            f"{path} has the regions {', '.join(regions)}, so regions_class_order must list {len(regions)} labels, not "
            f"{order!r}."
        )
    return list(order)
