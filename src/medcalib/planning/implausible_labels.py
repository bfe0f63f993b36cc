"""Refuse label files whose values are no classes but grey levels."""

from __future__ import annotations

from medcalib.errors import UserError, listed
from medcalib.planning.dataset_measures import DatasetMeasures
from medcalib.planning.dataset_source import DatasetSource

__all__ = ["check_plausible"]

_LOSSY = (".jpg", ".jpeg")
_MOST_VALUES = 50


def check_plausible(source: DatasetSource, measures: DatasetMeasures) -> None:
    """Check that the values in label pictures can be classes.

    Args:
        source: the dataset.
        measures: of all its cases.

    Raises:
        UserError: masks were saved as JPG, which blurs their values, or hold more of them than anybody names.
    """
    if not source.has_pictures or source.labels is not None:
        return
    for case, found in zip(source.cases, measures.cases, strict=True):
        file, values = str(case["label"]), sorted(map(int, found["classes"]))
        told = listed([str(value) for value in values], 4)
        if file.lower().endswith(_LOSSY) and len(values) > max(2, len(source.class_names)):
            raise UserError(
                f"Case {found['case']}: {file} holds the values {told}, since JPG blurs what it stores: take the masks "
                f"from their source once more, and save them as PNG."
            )
    values = measures.label_values
    if len(values) > max(_MOST_VALUES, len(source.class_names)):
        raise UserError(
            f"The labels hold {len(values)} values ({listed([str(value) for value in values], 4)}), as grey pictures "
            f"do and masks do not: check --labels, or name all of them with --class_names."
        )
