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
from medcalib.guarantees.recall_control import RecallControl

__all__ = [
    "AppliedGuarantees",
    "Guarantee",
    "GuaranteeCase",
    "JointGuarantees",
    "RecallControl",
    "guarantee_origin",
    "load_guarantees",
    "read_guarantees",
    "save_guarantees",
]
