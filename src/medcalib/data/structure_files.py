"""Labels that mark each structure in a file or a channel of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from medcalib.data.dataset_folders import packed_otherwise
from medcalib.data.file_patterns import CLASS, filled
from medcalib.errors import UserError, suggestion

__all__ = ["OVERLAPS", "StructureLabels", "is_there", "structure_labels"]

OVERLAPS = ("later", "channels")
"""What becomes of structures that overlap: the class that is later in the list wins, or each is a channel."""
_ABSENT, _REFUSED = "absent", "refused"


class StructureLabels(NamedTuple):
    """Where the structures of a label lie.

    Attributes:
        patterns: of the label files, in the order of ``classes``; a single one if all are channels of one file.
        classes: index of the class of each file or channel.
        num_channels: number of channels of the label, if each structure has its own; None if they make one label map.
        may_lack: whether a structure without a file is absent in the case; otherwise it is unknown, and refused.
    """

    patterns: tuple[str, ...]
    classes: tuple[int, ...]
    num_channels: int | None
    may_lack: bool

    def files(self, root: Path, values: Mapping[str, str]) -> tuple[list[Path], list[int]]:
        """Files of a case with the class of each; without those that are absent.

        Args:
            root: the folder of the dataset.
            values: what stands for each mark.
        """
        paths = [root / filled(pattern, values) for pattern in self.patterns]
        if len(paths) != len(self.classes):
            return paths, list(self.classes)
        kept = [
            (path, index)
            for path, index in zip(paths, self.classes, strict=True)
            if not self.may_lack or is_there(path)
        ]
        return [path for path, _ in kept], [index for _, index in kept]


def structure_labels(
    label: str | Mapping[str, str] | None,
    class_names: Sequence[str],
    overlap: str,
    missing_structures: str,
    label_channels: Sequence[str] | None,
) -> StructureLabels | None:
    """Read what ``data::cases`` says of structures.

    Args:
        label: pattern with ``{class}``, or a pattern by the name of each structure, or of files with several channels.
        class_names: names of the classes; unless ``overlap`` is ``channels``, the background first.
        overlap: one of `OVERLAPS`.
        missing_structures: ``refused`` or ``absent``.
        label_channels: the class of each channel of a label file.

    Returns:
        None if the label is a label map.

    Raises:
        UserError: names do not fit each other, or an option is none of its values.

    Example:
        >>> names = ["background", "liver", "spleen"]
        >>> found = structure_labels("{case}/{class}.nii.gz", names, "later", "refused", None)
        >>> found.patterns, found.classes
        (('{case}/liver.nii.gz', '{case}/spleen.nii.gz'), (1, 2))
    """
    for name, value, known in (
        ("overlap", overlap, OVERLAPS),
        ("missing_structures", missing_structures, (_REFUSED, _ABSENT)),
    ):
        if value not in known:
            raise UserError(f"data::cases has {name}: {value!r}, but it must be one of {', '.join(known)}.")
    if label is None or (isinstance(label, str) and CLASS not in label and label_channels is None):
        return None
    names = [str(name) for name in class_names]
    own_channels = overlap == "channels"
    structures = names if own_channels else names[1:]
    if isinstance(label, Mapping):
        given = {str(name): pattern for name, pattern in label.items()}
    else:
        if not names:
            raise UserError('data::cases lists structures by their names: give it class_names: "@data::class_names".')
        given = {name: filled(label, {CLASS: name}) for name in structures}
    structures = structures or list(given)
    names = names or ["background"] * (not own_channels) + structures
    number = len(structures) if own_channels else None
    if label_channels is not None:
        channels = [str(name) for name in label_channels]
        _check_names(channels, names, "label_channels")
        if isinstance(label, Mapping) or CLASS in label:
            raise UserError("data::cases has label_channels beside one file for each structure: keep one of them.")
        return StructureLabels((label,), tuple(names.index(name) for name in channels), number, False)
    _check_names(given, structures, "label")
    return StructureLabels(
        tuple(given[name] for name in structures),
        tuple(names.index(name) for name in structures),
        number,
        missing_structures == _ABSENT,
    )


def is_there(path: Path) -> bool:
    """Whether a file or folder exists, a NIfTI file maybe packed otherwise."""
    other = packed_otherwise(str(path))
    return path.exists() or bool(other and Path(other).exists())


def _check_names(given: Sequence[str] | Mapping[str, str], names: Sequence[str], key: str) -> None:
    if unknown := [name for name in given if name not in names]:
        raise UserError(
            f"data::cases::{key} names {unknown[0]!r}, which is no structure of data::class_names"
            f"{suggestion(unknown[0], names)}"
        )
    if key == "label" and (lacking := [name for name in names if name not in given]):
        raise UserError(f"data::cases::label has no pattern for {lacking[0]!r} of data::class_names: add it.")
