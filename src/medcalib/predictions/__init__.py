"""Evaluate and calibrate predictions that lie in files, of bundles or of other programs."""

from medcalib.predictions.calibrating import calibrate_predictions
from medcalib.predictions.calibrator_fits import make_calibrator
from medcalib.predictions.evaluating import evaluate_predictions
from medcalib.predictions.guaranteeing import guarantee_predictions
from medcalib.predictions.labeling_order import ScoredImages, score_images
from medcalib.predictions.member_predictions import MemberPredictions
from medcalib.predictions.nnunet_calibrating import calibrate_nnunet
from medcalib.predictions.out_of_fold import calibrate_folds
from medcalib.predictions.prediction_folder import PredictedCase, PredictionFolder
from medcalib.predictions.prediction_paths import read_case_list
from medcalib.predictions.prediction_values import PredictionKind

__all__ = [
    "MemberPredictions",
    "PredictedCase",
    "PredictionFolder",
    "PredictionKind",
    "ScoredImages",
    "calibrate_folds",
    "calibrate_nnunet",
    "calibrate_predictions",
    "evaluate_predictions",
    "guarantee_predictions",
    "make_calibrator",
    "read_case_list",
    "score_images",
]
