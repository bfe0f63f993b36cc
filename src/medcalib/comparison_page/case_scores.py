"""Uncertainty scores of cases, and how good their predictions are, from evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medcalib.compare import Evaluation
from medcalib.handlers.uncertainty_scores import CONFIDENCE_SCORES

__all__ = ["CaseScores", "scores_of", "shown_scores"]

MAPS = ("entropy", "mutual_information", "variance")
REDUCTIONS = ("image_mean", "foreground_mean", "patch_maximum", "above_threshold")
NAMES = (
    *(f"{name}_{reduction}" for name in MAPS for reduction in REDUCTIONS),
    "mean_foreground_confidence",
    "sample_mean_uncertainty",
    "pairwise_dice",
    "aula",
    "aula_normalized",
    *MAPS,
)
# the most telling ones first
FIRST = (
    "entropy_foreground_mean",
    "mutual_information_foreground_mean",
    "pairwise_dice",
    "aula",
    "entropy_image_mean",
    "mean_foreground_confidence",
    "entropy",
    "mutual_information",
    "variance",
    "sample_mean_uncertainty",
)


class CaseScores(NamedTuple):
    """What is known of the cases of one evaluation, all (case,); NaN where a case has none.

    Attributes:
        uncertainties: by name, turned so that high is uncertain.
        dice: mean over classes; None of classified images.
        distance: modified Hausdorff distance in mm, or None.
        wrong: of classified images, 1 where the predicted class is wrong; otherwise None.
    """

    uncertainties: dict[str, NDArray[np.float64]]
    dice: NDArray[np.float64] | None
    distance: NDArray[np.float64] | None
    wrong: NDArray[np.float64] | None


def scores_of(evaluation: Evaluation) -> CaseScores | None:
    """The scores in ``cases.csv`` of an evaluation; None if it has no such file.

    Scores that are the same for all cases, as the variance of a single member is, are left out.
    """
    table = evaluation.cases
    if table is None:
        return None
    known = {name: _numbers(table, name) for name in _score_names(evaluation) if name in table.columns}
    turned = {
        name: values * (-1 if name in CONFIDENCE_SCORES else 1) for name, values in known.items() if _differs(values)
    }
    correct = _column(table, "correct")
    return CaseScores(
        turned, _column(table, "mean_dice"), _column(table, "mhd"), None if correct is None else 1 - correct
    )


def shown_scores(found: Sequence[CaseScores], most: int | None = None) -> list[str]:
    """Names of the scores that any of several evaluations has, the most telling ones first.

    Args:
        found: scores of evaluations.
        most: how many are shown.

    Example:
        >>> one = CaseScores({"aula": np.ones(2), "entropy_foreground_mean": np.ones(2)}, None, None, None)
        >>> shown_scores([one])
        ['entropy_foreground_mean', 'aula']
    """
    there = dict.fromkeys(name for one in found for name in one.uncertainties)
    return [name for name in dict.fromkeys((*FIRST, *there)) if name in there][:most]


def _score_names(evaluation: Evaluation) -> list[str]:
    scores = (evaluation.quality_control or {}).get("scores")
    return list(scores) if isinstance(scores, dict) else list(NAMES)


def _column(table: pd.DataFrame, name: str) -> NDArray[np.float64] | None:
    return _numbers(table, name) if name in table.columns else None


def _numbers(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _differs(values: NDArray[np.float64]) -> bool:
    known = values[~np.isnan(values)]
    return known.size > 1 and bool(np.ptp(known) > 0)
