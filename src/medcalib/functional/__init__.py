"""Pure tensor functions: bin statistics, calibration errors, scoring rules, uncertainty and agreement of members.

Nothing here reads files or imports more than torch; compiled kernels load on their first use.
"""

from medcalib.functional.activation import to_decisions, to_probabilities
from medcalib.functional.aggregation import (
    above_threshold_mean,
    foreground_mean,
    image_mean,
    mean_foreground_confidence,
    patch_maximum,
)
from medcalib.functional.agreement import aula, mean_pairwise_dice, member_agreement, pairwise_dice
from medcalib.functional.binning import BinStatistics, bin_indices, bin_statistics
from medcalib.functional.calibration_errors import (
    CALIBRATION_ERRORS,
    BrierDecomposition,
    brier_decomposition,
    calibration_error,
    calibration_gap,
    every_calibration_error,
    mean_calibration_gap,
)
from medcalib.functional.class_sizes import ClassVolumes, class_volumes
from medcalib.functional.conformal import adaptive_scores, conformal_p_values, conformal_quantile, num_cases_needed
from medcalib.functional.debiased import (
    INDEPENDENT_UNITS,
    consistency_band,
    debiased_calibration_error,
    debiased_errors,
)
from medcalib.functional.raters import (
    consensus_dice,
    generalised_energy_distance,
    majority,
    mean_response,
    normalised_cross_correlation,
    response_variance,
)
from medcalib.functional.risk_control import (
    binomial_p_values,
    controlled_index,
    fixed_sequence,
    hoeffding_bentkus_p_values,
    num_cases_to_reject,
    set_losses,
    set_thresholds,
)
from medcalib.functional.scoring_rules import (
    brier_score,
    categorical_brier_score,
    categorical_negative_log_likelihood,
    negative_log_likelihood,
)
from medcalib.functional.temperature import keep_decisions, log_odds, scale_temperature
from medcalib.functional.uncertainty import PredictiveMoments, entropy, sample_mean_uncertainty
from medcalib.functional.unknown_truth import known_voxels

__all__ = [
    "CALIBRATION_ERRORS",
    "INDEPENDENT_UNITS",
    "BinStatistics",
    "BrierDecomposition",
    "ClassVolumes",
    "PredictiveMoments",
    "above_threshold_mean",
    "adaptive_scores",
    "aula",
    "bin_indices",
    "bin_statistics",
    "binomial_p_values",
    "brier_decomposition",
    "brier_score",
    "calibration_error",
    "calibration_gap",
    "categorical_brier_score",
    "categorical_negative_log_likelihood",
    "class_volumes",
    "conformal_p_values",
    "conformal_quantile",
    "consensus_dice",
    "consistency_band",
    "controlled_index",
    "debiased_calibration_error",
    "debiased_errors",
    "entropy",
    "every_calibration_error",
    "fixed_sequence",
    "foreground_mean",
    "generalised_energy_distance",
    "hoeffding_bentkus_p_values",
    "image_mean",
    "keep_decisions",
    "known_voxels",
    "log_odds",
    "majority",
    "mean_calibration_gap",
    "mean_foreground_confidence",
    "mean_pairwise_dice",
    "mean_response",
    "member_agreement",
    "negative_log_likelihood",
    "normalised_cross_correlation",
    "num_cases_needed",
    "num_cases_to_reject",
    "pairwise_dice",
    "patch_maximum",
    "response_variance",
    "sample_mean_uncertainty",
    "scale_temperature",
    "set_losses",
    "set_thresholds",
    "to_decisions",
    "to_probabilities",
]
