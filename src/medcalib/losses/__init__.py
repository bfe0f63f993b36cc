"""Losses on logits: calibration errors, alone and beside Dice and cross entropy."""

from medcalib.losses.cross_entropy import CrossEntropyLoss
from medcalib.losses.dice import DiceLoss
from medcalib.losses.known_voxels_loss import KnownVoxelsLoss
from medcalib.losses.l1ace import HardL1ACELoss, SoftL1ACELoss
from medcalib.losses.l1ace_combined import (
    HardL1ACEandCELoss,
    HardL1ACEandDiceCELoss,
    HardL1ACEandDiceLoss,
    SoftL1ACEandCELoss,
    SoftL1ACEandDiceCELoss,
    SoftL1ACEandDiceLoss,
)
from medcalib.losses.margin_label_smoothing import MarginLabelSmoothingLoss
from medcalib.losses.multi_head_loss import MultiHeadLoss
from medcalib.losses.nacl import NACLLoss
from medcalib.losses.spatial_label_smoothing import SpatiallyVaryingLabelSmoothingLoss
from medcalib.losses.weighted_sum import WeightedSumLoss
from medcalib.losses.whole_images import WholeImageLoss

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "HardL1ACELoss",
    "HardL1ACEandCELoss",
    "HardL1ACEandDiceCELoss",
    "HardL1ACEandDiceLoss",
    "KnownVoxelsLoss",
    "MarginLabelSmoothingLoss",
    "MultiHeadLoss",
    "NACLLoss",
    "SoftL1ACELoss",
    "SoftL1ACEandCELoss",
    "SoftL1ACEandDiceCELoss",
    "SoftL1ACEandDiceLoss",
    "SpatiallyVaryingLabelSmoothingLoss",
    "WeightedSumLoss",
    "WholeImageLoss",
]
