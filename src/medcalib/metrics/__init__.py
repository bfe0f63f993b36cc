"""Metrics of probabilities, accumulated over cases as MONAI's are."""

from medcalib.metrics.boundary import boundary_band
from medcalib.metrics.boundary_calibration import BoundaryStatisticsMetric
from medcalib.metrics.calibration_error import BinStatisticsMetric, CalibrationErrorMetric
from medcalib.metrics.classification import (
    ClassAUCMetric,
    ClassificationScores,
    class_auc,
    class_calibration_errors,
    classification_scores,
    top_label_calibration_errors,
)
from medcalib.metrics.proper_scores import BrierScoreMetric, NegativeLogLikelihoodMetric
from medcalib.metrics.quality_control import (
    FlaggingCurve,
    FlaggingThreshold,
    ScoreCorrelation,
    flagging_curve,
    flagging_threshold,
    score_correlation,
)
from medcalib.metrics.region import RegionMetric
from medcalib.metrics.retention import Retention, min_max, retained_accuracy
from medcalib.metrics.risk import RiskCoverage, VoxelRiskCoverage, aurc, excess_aurc, risk_coverage
from medcalib.metrics.risk_interval import MeanRisk, mean_risk
from medcalib.metrics.shift import ShiftTest, case_shift_p_values, shift_test
from medcalib.metrics.surface import (
    HausdorffDistanceMetric,
    ModifiedHausdorffDistanceMetric,
    SurfaceDiceMetric,
    SurfaceMetric,
)

__all__ = [
    "BinStatisticsMetric",
    "BoundaryStatisticsMetric",
    "BrierScoreMetric",
    "CalibrationErrorMetric",
    "ClassAUCMetric",
    "ClassificationScores",
    "FlaggingCurve",
    "FlaggingThreshold",
    "HausdorffDistanceMetric",
    "MeanRisk",
    "ModifiedHausdorffDistanceMetric",
    "NegativeLogLikelihoodMetric",
    "RegionMetric",
    "Retention",
    "RiskCoverage",
    "ScoreCorrelation",
    "ShiftTest",
    "SurfaceDiceMetric",
    "SurfaceMetric",
    "VoxelRiskCoverage",
    "aurc",
    "boundary_band",
    "case_shift_p_values",
    "class_auc",
    "class_calibration_errors",
    "classification_scores",
    "excess_aurc",
    "flagging_curve",
    "flagging_threshold",
    "mean_risk",
    "min_max",
    "retained_accuracy",
    "risk_coverage",
    "score_correlation",
    "shift_test",
    "top_label_calibration_errors",
]
