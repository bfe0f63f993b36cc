"""Ignite handlers; the only place that writes files while an engine runs."""

from medcalib.handlers.binning_data import BinnedCases, BinningDataHandler
from medcalib.handlers.calibration_error import CalibrationErrorHandler
from medcalib.handlers.case_overlay import CaseOverlayHandler
from medcalib.handlers.checkpoint import CheckpointHandler
from medcalib.handlers.classification_report import ClassificationReportHandler, ClassificationScoresHandler
from medcalib.handlers.epoch_seed import EpochSeedHandler
from medcalib.handlers.evaluation_report import EvaluationReportHandler
from medcalib.handlers.image_predictions import ImagePredictions, ImagePredictionsHandler, PredictionTableHandler
from medcalib.handlers.prediction_saver import PredictionSaver
from medcalib.handlers.progress_bar import ProgressBarHandler
from medcalib.handlers.provenance import collect_provenance
from medcalib.handlers.quality_control import QualityControlHandler
from medcalib.handlers.region_metric import RegionMetricHandler
from medcalib.handlers.release import ReleaseHandler
from medcalib.handlers.reliability_diagram import ReliabilityDiagramHandler
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.retention_report import RetentionReportHandler
from medcalib.handlers.training_record import TrainingRecordHandler
from medcalib.handlers.uncertainty_scores import UncertaintyScoresHandler

__all__ = [
    "BinnedCases",
    "BinningDataHandler",
    "CalibrationErrorHandler",
    "CaseOverlayHandler",
    "CheckpointHandler",
    "ClassificationReportHandler",
    "ClassificationScoresHandler",
    "EpochSeedHandler",
    "EvaluationReportHandler",
    "ImagePredictions",
    "ImagePredictionsHandler",
    "PredictionSaver",
    "PredictionTableHandler",
    "ProgressBarHandler",
    "QualityControlHandler",
    "RegionMetricHandler",
    "ReleaseHandler",
    "ReliabilityDiagramHandler",
    "ResultFolder",
    "RetentionReportHandler",
    "TrainingRecordHandler",
    "UncertaintyScoresHandler",
    "collect_provenance",
]
