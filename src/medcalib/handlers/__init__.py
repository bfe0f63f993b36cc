"""Ignite handlers; beside reports the only place that writes files while an engine runs."""

from medcalib.handlers.binned_cases import BinnedCases, BoundaryCalibrationHandler, CalibrationErrorHandler
from medcalib.handlers.case_folders import CaseFolders
from medcalib.handlers.case_overlay import CaseOverlayHandler
from medcalib.handlers.checkpoint import CheckpointHandler
from medcalib.handlers.dicom_saver import DicomSaver
from medcalib.handlers.epoch_seed import EpochSeedHandler
from medcalib.handlers.guaranteed_sets import GuaranteedSetsHandler
from medcalib.handlers.image_predictions import ImagePredictions, ImagePredictionsHandler, PredictionTableHandler
from medcalib.handlers.label_files import LabelFilesHandler
from medcalib.handlers.mlflow_run import MLFlowRunHandler
from medcalib.handlers.object_sizes import ObjectSizesHandler
from medcalib.handlers.prediction_saver import PredictionSaver
from medcalib.handlers.progress_bar import ProgressBarHandler
from medcalib.handlers.rater_scores import RatedCase, RaterScoresHandler
from medcalib.handlers.region_metric import RegionMetricHandler
from medcalib.handlers.release import ReleaseHandler
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import Results, results_of
from medcalib.handlers.switches import switched_on
from medcalib.handlers.term_schedule import TermScheduleHandler
from medcalib.handlers.training_record import TrainingRecordHandler
from medcalib.handlers.uncertainty_scores import UncertaintyScoresHandler

__all__ = [
    "BinnedCases",
    "BoundaryCalibrationHandler",
    "CalibrationErrorHandler",
    "CaseFolders",
    "CaseOverlayHandler",
    "CheckpointHandler",
    "DicomSaver",
    "EpochSeedHandler",
    "GuaranteedSetsHandler",
    "ImagePredictions",
    "ImagePredictionsHandler",
    "LabelFilesHandler",
    "MLFlowRunHandler",
    "ObjectSizesHandler",
    "PredictionSaver",
    "PredictionTableHandler",
    "ProgressBarHandler",
    "RatedCase",
    "RaterScoresHandler",
    "RegionMetricHandler",
    "ReleaseHandler",
    "ResultFolder",
    "Results",
    "TermScheduleHandler",
    "TrainingRecordHandler",
    "UncertaintyScoresHandler",
    "results_of",
    "switched_on",
]
