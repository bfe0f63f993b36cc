"""What the names of metrics mean: titles, their order, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["TITLES", "better_when_higher", "in_order", "metric_title", "scores_cases"]

TITLES = {
    "mean_dice": "Dice",
    "auc": "AUC",
    "accuracy": "Accuracy",
    "macro_ace": "ACE",
    "macro_ece": "ECE",
    "macro_mce": "MCE",
    "top_label_ece": "ECE of the predicted class",
    "top_label_ace": "ACE of the predicted class",
    "top_label_mce": "MCE of the predicted class",
    "nll": "NLL",
    "brier": "Brier",
    "nll_categorical": "NLL of all classes",
    "brier_categorical": "Brier of all classes",
    "micro_ace": "ACE, pooled",
    "micro_ece": "ECE, pooled",
    "micro_mce": "MCE, pooled",
    "macro_boundary_ace": "ACE at the boundary",
    "macro_boundary_ece": "ECE at the boundary",
    "macro_boundary_mce": "MCE at the boundary",
    "micro_boundary_ace": "ACE at the boundary, pooled",
    "micro_boundary_ece": "ECE at the boundary, pooled",
    "micro_boundary_mce": "MCE at the boundary, pooled",
    "macro_ece_debiased": "ECE, debiased",
    "micro_ece_debiased": "ECE, pooled, debiased",
    "micro_rmsce": "RMSCE, pooled",
    "micro_rmsce_debiased": "RMSCE, pooled, debiased",
    "top_label_ece_debiased": "ECE of the predicted class, debiased",
    "top_label_rmsce": "RMSCE of the predicted class",
    "top_label_rmsce_debiased": "RMSCE of the predicted class, debiased",
    "surface_dice": "Surface Dice",
    "hd95": "HD95, mm",
    "mhd": "Modified Hausdorff distance, mm",
    "ged": "Squared generalised energy distance",
    "dice_with_raters": "Dice with each rater",
    "dice_max": "Dice of the best member with each rater",
    "ncc_entropy": "Correlation of entropy and rater variance",
    "ncc_mutual_information": "Correlation of mutual information and rater variance",
    "ncc_variance": "Correlation of variance and rater variance",
    "rater_dice": "Dice of two raters",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
"""How metrics are called in tables for people, in the order in which they stand there."""

_HIGHER = re.compile(
    r"(^|_)(dice|ncc|iou|jaccard|auc|auroc|roc|accuracy|acc|sensitivity|specificity|precision|recall|f1|score|kappa|psnr|"
    r"ssim)(_|$)"
)
_SCORE = re.compile(
    r"(entropy|mutual_information|variance|mean_foreground_confidence|sample_mean_uncertainty|pairwise_dice)(_|$)"
)


def metric_title(metric: str) -> str:
    """How a metric is called in tables for people."""
    return TITLES.get(metric, metric)


def in_order(metrics: Iterable[str]) -> list[str]:
    """Metrics in the order of tables; others last, by name.

    Example:
        >>> in_order(["surface", "nll", "mean_dice"])
        ['mean_dice', 'nll', 'surface']
    """
    places = {name: place for place, name in enumerate(TITLES)}
    return sorted(metrics, key=lambda name: (places.get(name, len(places)), name))


def better_when_higher(metric: str) -> bool:
    """Whether a higher value is better, as of Dice, or a lower one, as of errors and distances.

    Example:
        >>> better_when_higher("mean_dice"), better_when_higher("macro_ace"), better_when_higher("brier_score")
        (True, False, False)
    """
    return bool(_HIGHER.search(metric)) and not re.search(r"brier|error|loss|aurc|hausdorff", metric)


def scores_cases(name: str) -> bool:
    """Whether this is an uncertainty of a case, of which neither more nor less is better.

    Example:
        >>> scores_cases("entropy_image_mean"), scores_cases("macro_ece")
        (True, False)
    """
    return bool(_SCORE.match(name))
