"""String enums shared by every layer."""

from enum import StrEnum

__all__ = [
    "IGNORED",
    "MEMBER_MAPS",
    "NUM_CORRUPTION_LEVELS",
    "Activation",
    "CaseKeys",
    "CorruptionKeys",
    "EvaluationSpace",
    "SplitKeys",
    "UncertaintyKeys",
]

IGNORED = -1
"""Label of a voxel whose truth is unknown, in every channel of a label that has several. It is no class, so what does
not leave such voxels out fails; `medcalib.functional.known_voxels` finds the others."""


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
    """Path of the reference segmentation, or a list of paths, one per channel."""
    STRUCTURES = "structures"
    """Of a label that marks each structure in a file or a channel of its own, the class of each of them, a text such as
    ``1,3``; they make one label map, in which later ones win where they overlap, unless `NUM_STRUCTURES` is there."""
    NUM_STRUCTURES = "num_structures"
    """Number of channels of a label whose structures may overlap."""
    CROP = "crop"
    """Part of a picture that is the case: left, top, width and height in pixels."""
    OUTLINE = "outline"
    """Corners of the object in pixels of the picture, a text of ``x,y`` pairs."""
    REGION_OF_INTEREST = "region_of_interest"
    """Mask of the voxels in which results count, where a dataset has one."""
    KNOWN = "known"
    """Mask of the voxels whose label is known, of a case in which it is not known everywhere."""
    PROBABILITY = "probability"
    """Path of the true class probabilities, where they are known."""
    FRAME = "frame"
    """Which volume of 4D image and label files the case is, counted from 0; absent where the files are 3D."""
    SERIES = "series"
    """Of an image that is a folder of several DICOM series, SeriesInstanceUID of the one that is the case, or a list of
    them, one per channel, empty where a channel is a file; absent where each folder holds a single one."""
    GROUP = "group"
    """What it shares with other cases, such as its patient, so that they stay together in a cross-validation; absent
    where every case is on its own."""
    ATTRIBUTES = "attributes"
    """What else is known of the case, such as its vendor and centre: texts by name."""


class SplitKeys(StrEnum):
    """Keys of a split: the parts into which the cases of a dataset are divided."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"
    CALIBRATION = "calibration"
    """The cases on which calibrators are fitted; the validation cases unless a dataset says otherwise."""


class CorruptionKeys(StrEnum):
    """How images of test cases are made worse."""

    NOISE = "noise"
    """White noise."""
    BLUR = "blur"
    """A Gaussian filter."""
    BIAS_FIELD = "bias_field"
    """A brightness that changes smoothly over the image."""
    SPACING = "spacing"
    """The resolution of larger voxels."""
    CONTRAST = "contrast"
    """Dark parts lose contrast and bright ones gain it."""


NUM_CORRUPTION_LEVELS = 5
"""Levels of a corruption are 1 to this; 0 is the image as it is."""


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


MEMBER_MAPS = (UncertaintyKeys.MUTUAL_INFORMATION, UncertaintyKeys.VARIANCE)
"""Maps that only predictions with several members have."""
