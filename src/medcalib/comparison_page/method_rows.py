"""Look up numbers of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from medcalib.compare import Comparison

__all__ = ["MEAN", "difference_of", "is_classification", "level_of", "verdict"]

MEAN = "mean"
"""The class that stands for all of them."""


def level_of(comparison: Comparison, metric: str, method: str, of_class: str = MEAN) -> dict[str, Any]:
    """The row of ``comparison.levels`` of a method; numbers are NaN if there is none."""
    return _row(comparison.levels, ("mean", "low", "high", "sd", "seed_sd"), metric, method, of_class)


def difference_of(comparison: Comparison, metric: str, method: str, of_class: str = MEAN) -> dict[str, Any]:
    """The row of ``comparison.table`` of a method; numbers are NaN if there is none."""
    numbers = (
        "reference_mean",
        "method_mean",
        "difference",
        "difference_low",
        "difference_high",
        "p_t",
        "p_wilcoxon",
        "p_holm",
    )
    return _row(comparison.table, numbers, metric, method, of_class)


def _row(table: pd.DataFrame, numbers: Sequence[str], metric: str, method: str, of_class: str) -> dict[str, Any]:
    found = table[(table["metric"] == metric) & (table["class"] == of_class) & (table["method"] == method)]
    known = {} if found.empty else {str(name): value for name, value in found.iloc[0].items()}
    return known | {name: float(known.get(name, np.nan)) for name in numbers}


def verdict(row: dict[str, Any], higher_is_better: bool, confidence: float) -> str:
    """What a difference shows: that the method is better or worse, or no difference.

    Where interval and corrected p value do not agree, this is said instead; without a p value the interval decides.

    Example:
        >>> verdict({"difference_low": -0.2, "difference_high": -0.1, "p_holm": 0.01}, False, 0.95)
        'better'
        >>> verdict({"difference_low": -0.2, "difference_high": 0.1, "p_holm": 0.2}, False, 0.95)
        'no difference shown'
        >>> verdict({"difference_low": -0.2, "difference_high": -0.1, "p_holm": 0.2}, False, 0.95)
        'unclear: interval and test disagree'
    """
    low, high, p_value = (float(row[name]) for name in ("difference_low", "difference_high", "p_holm"))
    if np.isnan(low) or np.isnan(high):
        return "cannot be said"
    if low <= 0 <= high:
        return "no difference shown"
    if not np.isnan(p_value) and p_value > 1 - confidence + 1e-12:
        return "unclear: interval and test disagree"
    return "better" if (low > 0) == higher_is_better else "worse"


def is_classification(comparison: Comparison) -> bool:
    """Whether whole images are classified."""
    return all(one.classifies for evaluations in comparison.evaluations.values() for one in evaluations)
