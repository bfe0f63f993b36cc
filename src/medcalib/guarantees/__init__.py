"""Guarantees: promises on new cases, fitted on calibration cases, that hold for any network and any finite number.

A guarantee is a promise on the average new case, which must come from where the calibration cases came from: then they
are exchangeable, and nothing else is assumed.
"""

from medcalib.guarantees.guarantee import Guarantee, GuaranteeCase
from medcalib.guarantees.guarantee_storage import (
    guarantee_origin,
    load_guarantees,
    read_guarantees,
    save_guarantees,
)
from medcalib.guarantees.joint_guarantees import AppliedGuarantees, JointGuarantees
from medcalib.guarantees.kinds import GUARANTEES, guarantee_from_state
from medcalib.guarantees.margin_control import MarginControl
from medcalib.guarantees.margins import grown, margin_losses
from medcalib.guarantees.precision_control import PrecisionControl
from medcalib.guarantees.prediction_sets import PredictionSets
from medcalib.guarantees.recall_control import RecallControl
from medcalib.guarantees.selective_accuracy import SelectiveAccuracy
from medcalib.guarantees.selective_control import PassingRule, SelectiveControl, passing_rule
from medcalib.guarantees.volume_interval import PredictedVolumes, VolumeInterval, predicted_volumes

__all__ = [
    "GUARANTEES",
    "AppliedGuarantees",
    "Guarantee",
    "GuaranteeCase",
    "JointGuarantees",
    "MarginControl",
    "PassingRule",
    "PrecisionControl",
    "PredictedVolumes",
    "PredictionSets",
    "RecallControl",
    "SelectiveAccuracy",
    "SelectiveControl",
    "VolumeInterval",
    "grown",
    "guarantee_from_state",
    "guarantee_origin",
    "load_guarantees",
    "margin_losses",
    "passing_rule",
    "predicted_volumes",
    "read_guarantees",
    "save_guarantees",
]
