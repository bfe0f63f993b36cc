"""Classes of labels that mark each structure in a file or a channel of its own, and what overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medcalib.data.file_patterns import CLASS, checked_pattern, matching_files
from medcalib.errors import UserError, suggestion
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.image_files.volumes_in_files import VOLUME_ENDINGS, open_volume
from medcalib.keys import CaseKeys
from medcalib.planning.dataset_measures import DatasetMeasures
from medcalib.planning.dataset_source import DatasetSource
from medcalib.planning.label_names import LabelPlan

__all__ = ["channels_of_label", "structure_names", "with_overlap"]

_BACKGROUND = "background"
# borders that were drawn one by one share a few voxels
_MOST_SHARED = 0.05


def structure_names(root: Path, patterns: Sequence[str], given: Sequence[str]) -> tuple[tuple[str, ...], Sequence[str]]:
    """Names of the classes by the files of structures.

    Args:
        root: folder of the dataset.
        patterns: of the image and of the label, which has ``{class}``.
        given: those that are wanted, in their order; all in that of the alphabet if empty.

    Returns:
        The names, background first, and those that are left out.

    Raises:
        UserError: no file matches, or a name has none.
    """
    image, label = (checked_pattern(root, text) for text in patterns)
    found = {values[CLASS] for one, _, values in matching_files(root, [image, label]) if one == label}
    structures = sorted(found - {_BACKGROUND})
    if not structures:
        raise UserError(f"No file in '{root}' matches '{label}', the pattern of the structures: correct --labels.")
    wanted = [name for place, name in enumerate(given) if place or name in found or name.casefold() != _BACKGROUND]
    for name in wanted:
        if name not in found:
            raise UserError(
                f"--class_names lists {name!r}, but no file matches '{label}'{suggestion(name, structures)}"
            )
    names = wanted or structures
    return (_BACKGROUND, *names), [name for name in structures if name not in names]


def channels_of_label(
    root: Path, image: str, label: str, given: Sequence[str]
) -> tuple[tuple[str, ...], list[str]] | None:
    """Names of the classes and of the channels, if the label files have one channel for each.

    Args:
        root: folder of the dataset.
        image: pattern of the image.
        label: pattern of the label.
        given: names of the classes or of the channels; made up if empty.

    Returns:
        None if the first label file has one channel.

    Raises:
        UserError: names and channels differ in number, or the file cannot be read.
    """
    patterns = [checked_pattern(root, text) for text in (image, label)]
    first = next((path for one, path, _ in matching_files(root, patterns) if one == patterns[1]), None)
    if first is None or not (first.is_dir() or first.name.lower().endswith(VOLUME_ENDINGS)):
        return None
    try:
        file = open_volume(first)
        number = file.num_channels
        if number < 2:
            return None
        channels = file.read() != 0
    except UnreadableFileError as error:
        raise UserError(f"{first} {error}.") from None
    has_background = bool(np.array_equal(channels[0], ~channels[1:].any(0)))
    structures = number - has_background
    names = [name for place, name in enumerate(given) if place or name.casefold() != _BACKGROUND]
    names = names or [f"class_{index + 1}" for index in range(structures)]
    if len(names) != structures:
        raise UserError(
            f"--class_names lists {len(names)} names beside the background, but the label {first} has {structures} "
            f"channels{' beside that of the background' * has_background}: give each its name."
        )
    return (_BACKGROUND, *names), [*([_BACKGROUND] if has_background else []), *names]


def with_overlap(source: DatasetSource, measures: DatasetMeasures) -> DatasetSource:
    """Decide what becomes of structures that overlap, by how much they do.

    Where one shares over 5 % of its voxels with others, they are no classes that exclude each other, and each becomes
    an output of its own. Where less is shared, borders were drawn twice, and the structure that is later in the list
    wins.

    Args:
        source: the dataset.
        measures: of all its cases.

    Returns:
        The source with classes, listing and reason that fit; itself, if its labels are label maps.
    """
    if not source.cases or CaseKeys.STRUCTURES not in source.cases[0] or source.labels is None:
        return source
    shares = {}
    for name, value in zip(source.labels.class_names, source.labels.values, strict=True):
        found = [case["classes"][str(value)] for case in measures.cases if str(value) in case["classes"]]
        total = sum(one["voxels"] for one in found)
        shares[name] = sum(one.get("shared", 0) for one in found) / total if total else 0.0
    name, share = max(shares.items(), key=lambda item: item[1])
    if share == 0:
        return replace(
            source, listing_reason=f"structures do not overlap, so they are classes; {source.listing_reason}"
        )
    told = f"{name} shares {100 * share:.{1 if share < 0.1 else 0}f} % of its voxels with other structures"
    if share <= _MOST_SHARED or _BACKGROUND in source.listing.get("label_channels", ()):
        told += ", and where structures overlap, the later one in class_names wins"
        return replace(source, listing_reason=f"{told}; {source.listing_reason}", notes=[*source.notes, f"{told}."])
    told += ", so each is an output of its own, 0 or 1 (activation: sigmoid)"
    names = source.labels.class_names[1:]
    return replace(
        source,
        class_names=names,
        labels=LabelPlan(names, source.labels.values[1:], independent=True),
        listing={**source.listing, "overlap": "channels"},
        listing_reason=f"{told}; {source.listing_reason}",
        notes=[*source.notes, f"{told}."],
    )
