"""Labels that mark each structure in a file or a channel of its own: one label map, or one channel for each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from medcalib.errors import UserError
from medcalib.image_files.label_values import value_text
from medcalib.keys import CaseKeys

__all__ = ["PATHS_BETWEEN", "masks_of_structures", "united_structures"]

PATHS_BETWEEN = "\n"
"""Stands between the paths of a label of several files, where a text holds all of them."""


def masks_of_structures(
    data: Mapping[Hashable, Any], files: Sequence[Any], read: Callable[[str, Any, None], MetaTensor]
) -> Iterator[tuple[int, Tensor, MetaTensor]]:
    """Where each structure of a label is, one after another.

    Args:
        data: a case with the key `medcalib.keys.CaseKeys.STRUCTURES`.
        files: of its label, of which headers were read, such as `medcalib.image_files.nifti.NiftiFile`.
        read: makes of the id of the case and a file the values (C, ...).

    Yields:
        The class, a mask (...) of truth values, and the label from which it comes.

    Raises:
        UserError: a file is missing or damaged or holds several values beside 0, or there are other numbers of channels
            and classes; names case and file.
    """
    case = str(data.get(CaseKeys.CASE, "?"))
    classes = [int(index) for index in str(data[CaseKeys.STRUCTURES]).split(",")]
    number = 0
    for file in files:
        label = read(case, file, None)
        for channel in label.as_tensor():
            mask = channel != 0
            if (channel[mask] != channel.max()).any():
                found = sorted(value_text(value) for value in torch.unique(channel[mask])[:3].tolist())
                instead = "; name label maps by a pattern without {class}" if len(label) == 1 else ""
                raise UserError(
                    f"Case {case}: {file.grid.path} holds the values {', '.join(found)}, but what marks one structure "
                    f"has one value beside 0: correct the file{instead}."
                )
            if number < len(classes):
                yield classes[number], mask, label
            number += 1
    if number != len(classes):
        raise UserError(
            f"Case {case}: {files[0].grid.path} has {number} channel(s), but data::cases gives {len(classes)} classes "
            f"to them; correct label_channels, or the file."
        )


def united_structures(
    data: Mapping[Hashable, Any], files: Sequence[Any], read: Callable[[str, Any, None], MetaTensor]
) -> MetaTensor:
    """One label map (1, ...) of all structures, in which later ones win, or one channel for each, (C, ...).

    Args:
        data: as of `masks_of_structures`; with `medcalib.keys.CaseKeys.NUM_STRUCTURES`, each becomes a channel.
        files: as of `masks_of_structures`.
        read: as of `masks_of_structures`.

    Raises:
        UserError: as of `masks_of_structures`.
    """
    number = int(data.get(CaseKeys.NUM_STRUCTURES, 0))
    united, like = torch.zeros(number or 1, *files[0].grid.shape), None
    for index, mask, label in masks_of_structures(data, files, read):
        like = like if like is not None else label[:1]
        if number:
            united[index] = mask
        elif index:
            united[0][mask] = index
    made = MetaTensor(united).copy_meta_from(like)
    # where the label is read once more, all of its files are
    made.meta = {**made.meta, "filename_or_obj": PATHS_BETWEEN.join(str(file.grid.path) for file in files)}
    return made
