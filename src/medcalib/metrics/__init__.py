"""Metrics of probabilities, accumulated over cases as MONAI's are."""

from medcalib.metrics.boundary import boundary_band
from medcalib.metrics.calibration import BinStatisticsMetric, CalibrationErrorMetric
from medcalib.metrics.region import RegionMetric
from medcalib.metrics.scoring import BrierScoreMetric, NegativeLogLikelihoodMetric

__all__ = [
    "BinStatisticsMetric",
    "BrierScoreMetric",
    "CalibrationErrorMetric",
    "NegativeLogLikelihoodMetric",
    "RegionMetric",
    "boundary_band",
]
