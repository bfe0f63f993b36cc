"""Ignite handlers; the only place that writes files while an engine runs."""

from medcalib.handlers.binning_data import BinnedCases, BinningDataHandler
from medcalib.handlers.calibration_error import CalibrationErrorHandler
from medcalib.handlers.checkpoint import CheckpointHandler
from medcalib.handlers.epoch_seed import EpochSeedHandler
from medcalib.handlers.evaluation_report import EvaluationReportHandler
from medcalib.handlers.prediction_saver import PredictionSaver
from medcalib.handlers.progress_bar import ProgressBarHandler
from medcalib.handlers.provenance import provenance
from medcalib.handlers.reliability_diagram import ReliabilityDiagramHandler
from medcalib.handlers.result_folder import ResultFolder

__all__ = [
    "BinnedCases",
    "BinningDataHandler",
    "CalibrationErrorHandler",
    "CheckpointHandler",
    "EpochSeedHandler",
    "EvaluationReportHandler",
    "PredictionSaver",
    "ProgressBarHandler",
    "ReliabilityDiagramHandler",
    "ResultFolder",
    "provenance",
]
