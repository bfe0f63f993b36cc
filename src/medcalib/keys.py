"""String enums shared by every layer."""

from enum import StrEnum

__all__ = ["CaseKeys", "EvaluationSpace", "SplitKeys"]


class CaseKeys(StrEnum):
    """Keys of a case: one subject's files.

    Example:
        >>> {CaseKeys.CASE: "patient_1"}["case"]
        'patient_1'
    """

    CASE = "case"
    """The identifier under which the case appears in every result."""
    IMAGE = "image"
    """Path of the image, or a list of paths, one per channel."""
    LABEL = "label"
    """Path of the reference segmentation."""
    PROBABILITY = "probability"
    """Path of the true class probabilities, where they are known."""


class SplitKeys(StrEnum):
    """Keys of a split: the parts into which the cases of a dataset are divided."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"
    CALIBRATION = "calibration"
    """The cases on which calibrators are fitted; the validation cases unless a dataset says otherwise."""


class EvaluationSpace(StrEnum):
    """Grids on which predictions are compared with labels."""

    RESAMPLED = "resampled"
    ORIGINAL = "original"
