"""Read, compare and calibrate results that lie in folders, of bundles or of other programs."""

from medcalib.analysis.bootstrap import BootstrapInterval, bootstrap_interval
from medcalib.analysis.calibrate_predictions import calibrate_predictions, make_calibrator
from medcalib.analysis.evaluate_predictions import evaluate_predictions
from medcalib.analysis.evaluations import Evaluation, read_evaluation
from medcalib.analysis.pareto import pareto_front
from medcalib.analysis.prediction_paths import read_case_list
from medcalib.analysis.prediction_values import PredictionKind
from medcalib.analysis.predictions import PredictedCase, PredictionFolder

__all__ = [
    "BootstrapInterval",
    "Evaluation",
    "PredictedCase",
    "PredictionFolder",
    "PredictionKind",
    "bootstrap_interval",
    "calibrate_predictions",
    "evaluate_predictions",
    "make_calibrator",
    "pareto_front",
    "read_case_list",
    "read_evaluation",
]
