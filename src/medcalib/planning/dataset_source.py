"""What is known of a dataset before its voxels are read: its cases, channels, labels, and how a fragment lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medcalib.data.cases import Case
from medcalib.errors import UserError
from medcalib.keys import CaseKeys
from medcalib.planning.label_names import LabelPlan

__all__ = ["PICTURE_ENDINGS", "DatasetSource", "check_enough", "fragment_name", "holds_pictures"]

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""How names of pictures end, in lower case."""
# training, validation and test
_FEWEST_CASES = 3
_NUMBER_IN_FRONT = re.compile(r"^(dataset|task)_?\d+_", re.IGNORECASE)


@dataclass(frozen=True)
class DatasetSource:
    """A dataset whose files were found.

    Attributes:
        root: its folder.
        cases: all labelled cases.
        channel_names: one name for each channel; empty if nobody says.
        labels: what label values mean; None if the files have to tell.
        labels_from: what says so, for messages.
        listing: what the fragment has below ``data::cases`` beside ``dataset_dir``.
        listing_reason: why it is listed so.
        fold: which fold of a given division is taken; None without one.
        num_folds: how many it has.
        class_names: names of the classes by the user, or of whole images.
        classification: whether whole images are classified.
        ignore_label: the value of voxels whose truth is unknown, where `labels` do not say it.
        metadata: what is known of title, description, licence and the like.
        notes: what is left out, and other things that a user should know, one sentence each.
        training: ids of the training cases, where somebody has chosen them; else empty.
    """

    root: Path
    cases: Sequence[Case]
    channel_names: tuple[str, ...]
    labels: LabelPlan | None
    labels_from: str
    listing: dict[str, Any]
    listing_reason: str
    fold: int | None = None
    num_folds: int | None = None
    class_names: tuple[str, ...] = ()
    classification: bool = False
    ignore_label: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    training: frozenset[str] = frozenset()

    @property
    def ignored(self) -> int | None:
        """The value of voxels whose truth is unknown; None if there is none."""
        return self.ignore_label if self.labels is None else self.labels.ignored

    @property
    def has_pictures(self) -> bool:
        """Whether its images are PNG, JPG and the like."""
        return holds_pictures(self.cases)


def holds_pictures(cases: Sequence[Case]) -> bool:
    """Whether the images of cases are pictures, by the ending of the first.

    Example:
        >>> holds_pictures([{"case": "a", "image": "a.PNG"}]), holds_pictures([{"case": "a", "image": ["a.nii.gz"]}])
        (True, False)
    """
    image = cases[0][CaseKeys.IMAGE]
    return str(image if isinstance(image, str) else image[0]).lower().endswith(PICTURE_ENDINGS)


def check_enough(cases: Sequence[Case], root: Path) -> None:
    """Check that there are cases for training, validation and test.

    Raises:
        UserError: there are fewer than three.
    """
    if len(cases) < _FEWEST_CASES:
        raise UserError(
            f"'{root}' has {len(cases)} labelled case{'s' * (len(cases) != 1)}, but training, validation and test need "
            f"one each: add cases."
        )


def fragment_name(folder: Path) -> str:
    """A name for a fragment from that of a folder.

    Example:
        >>> fragment_name(Path("/data/Dataset004_Hippocampus")), fragment_name(Path("/data/My knees (2024)"))
        ('hippocampus', 'my_knees_2024')
    """
    name = _NUMBER_IN_FRONT.sub("", folder.resolve().name)
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_") or "dataset"
