"""Ignite engines that MONAI does not have."""

from medcalib.engines.calibrator_fitter import CalibratorFitter
from medcalib.engines.guarantee_fitter import GuaranteeFitter
from medcalib.engines.shared_evaluation import SharedEvaluator
from medcalib.engines.shared_training import SharedTrainer
from medcalib.engines.uncertainty_evaluator import UncertaintyEvaluator

__all__ = ["CalibratorFitter", "GuaranteeFitter", "SharedEvaluator", "SharedTrainer", "UncertaintyEvaluator"]
