"""Evaluate and calibrate predictions that lie in files, of bundles or of other programs."""

from medcalib.predictions.calibrating import calibrate_predictions, make_calibrator
from medcalib.predictions.evaluating import evaluate_predictions
from medcalib.predictions.guaranteeing import guarantee_predictions
from medcalib.predictions.prediction_folder import PredictedCase, PredictionFolder
from medcalib.predictions.prediction_paths import read_case_list
from medcalib.predictions.prediction_values import PredictionKind

__all__ = [
    "PredictedCase",
    "PredictionFolder",
    "PredictionKind",
    "calibrate_predictions",
    "evaluate_predictions",
    "guarantee_predictions",
    "make_calibrator",
    "read_case_list",
]
