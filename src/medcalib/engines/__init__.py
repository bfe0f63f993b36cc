"""Ignite engines that MONAI does not have."""

from medcalib.engines.calibrator_fitter import CalibratorFitter
from medcalib.engines.uncertainty_evaluator import UncertaintyEvaluator

__all__ = ["CalibratorFitter", "UncertaintyEvaluator"]
