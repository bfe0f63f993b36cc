"""String enums shared by every layer."""

from enum import StrEnum

__all__ = [
    "MEMBER_MAPS",
    "Activation",
    "CaseKeys",
    "EvaluationSpace",
    "LabelType",
    "RaterKeys",
    "SplitKeys",
    "UncertaintyKeys",
]


class Activation(StrEnum):
    """How logits become probabilities."""

    SOFTMAX = "softmax"
    """Exclusive classes, one channel each."""
    SIGMOID = "sigmoid"
    """Every channel is a binary problem of its own."""


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
    """Path of the reference segmentation; of several raters a list of paths, see `RATERS`."""
    RATERS = "raters"
    """Names of the raters of a case, one for each path of its label; absent where nobody named them."""
    CROP = "crop"
    """Part of a picture that is the case: left, top, width and height in pixels."""
    OUTLINE = "outline"
    """Corners of the object in pixels of the picture, a text of ``x,y`` pairs."""
    REGION_OF_INTEREST = "region_of_interest"
    """Mask of the voxels in which results count, where a dataset has one."""
    PROBABILITY = "probability"
    """Path of the true class probabilities, where they are known."""
    FRAME = "frame"
    """Which volume of 4D image and label files the case is, counted from 0; absent where the files are 3D."""
    SERIES = "series"
    """Of an image that is a folder of several DICOM series, SeriesInstanceUID of the one that is the case, or a list of
    them, one per channel, empty where a channel is a file; absent where each folder holds a single one."""
    ATTRIBUTES = "attributes"
    """What else is known of the case, such as its vendor and centre: texts by name."""


class RaterKeys(StrEnum):
    """Keys of a loaded case with a soft label, beside that of its label."""

    RESPONSE = "response"
    """Mean human response (C, ...): the share of the raters that give a voxel each class; the label is the majority."""
    VOTES = "votes"
    """Label map of each rater, (rater, ...), or (rater x class, ...) of independent labels."""


class LabelType(StrEnum):
    """What the label of a case is."""

    CLASSES = "classes"
    """One label map, of one rater or a consensus."""
    RATERS = "raters"
    """Label maps of several raters, whose mean response is what networks and calibrators learn."""
    PROBABILITIES = "probabilities"
    """A soft label: the probability of each class, or of the foreground where there are two."""


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


class UncertaintyKeys(StrEnum):
    """Keys under which an engine holds what the members of a prediction say together."""

    ENTROPY = "entropy"
    """Entropy of the mean probabilities, (1, ...) in nats."""
    MUTUAL_INFORMATION = "mutual_information"
    """Entropy of the mean less the mean entropy, (1, ...) in nats."""
    VARIANCE = "variance"
    """Variance of the members' probabilities, mean over channels, (1, ...) in [0, 0.25]."""
    AGREEMENT = "agreement"
    """Voxels to which two members give the same class, (class, member, member)."""
    MEMBER_LABELS = "member_labels"
    """Segmentation of each member, (member, ...), or (member x class, ...) of independent labels."""


MEMBER_MAPS = (UncertaintyKeys.MUTUAL_INFORMATION, UncertaintyKeys.VARIANCE)
"""Maps that only predictions with several members have."""
