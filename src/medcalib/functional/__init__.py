"""Pure tensor functions: bin statistics, calibration errors and scoring rules.

Nothing here holds state, reads files or imports more than torch; compiled kernels load on their first use.
"""

from medcalib.functional.binning import BinStatistics, bin_statistics
from medcalib.functional.calibration import (
    BrierDecomposition,
    brier_decomposition,
    calibration_error,
    calibration_gap,
    mean_calibration_gap,
)
from medcalib.functional.scoring import (
    brier_score,
    categorical_brier_score,
    categorical_negative_log_likelihood,
    negative_log_likelihood,
)

__all__ = [
    "BinStatistics",
    "BrierDecomposition",
    "bin_statistics",
    "brier_decomposition",
    "brier_score",
    "calibration_error",
    "calibration_gap",
    "categorical_brier_score",
    "categorical_negative_log_likelihood",
    "mean_calibration_gap",
    "negative_log_likelihood",
]
