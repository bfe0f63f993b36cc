"""How results decay as images of test cases are made worse: numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medcalib.compare import Comparison, Evaluation
from medcalib.comparison_page.case_scores import CaseScores, scores_of, shown_scores
from medcalib.comparison_page.method_rows import is_classification, level_of
from medcalib.files.writing import read_json
from medcalib.metrics import risk_coverage, score_correlation

__all__ = ["AREA", "AS_IT_IS", "COLUMNS", "CORRELATION", "RISK", "Shifted", "promised_risks", "shift_rows"]

Shifted = Mapping[tuple[str, int], Comparison]
"""Comparisons on images that were made worse, by kind and level."""

COLUMNS = ("corruption", "level", "method", "metric", "mean", "low", "high")
AS_IT_IS = "none"
"""Stands for the kind of level 0."""
CORRELATION = "rank_correlation"
AREA = "aurc"
RISK = "risk_of_"
"""How metrics begin that are the realised risk of a guarantee."""


def shift_rows(comparison: Comparison, shifted: Shifted) -> pd.DataFrame:
    """Every metric of every method on images as they are and on worse ones.

    Besides the metrics of the comparisons these are of segmentations ``rank_correlation``, Spearman's correlation of
    the first uncertainty score with 1 less Dice, near 1 where the score finds the poor cases; of classified images
    ``aurc``, the area under risk and coverage; and the realised risk of guarantees, mean over their classes.

    Args:
        comparison: on images as they are.
        shifted: on worse ones, of the same methods or some of them.

    Returns:
        One row for each corruption, level, method and metric: ``corruption``, ``level``, ``method``, ``metric``,
        ``mean``, and the ends of the interval over cases and seeds, NaN where there is none.
    """
    rows: list[dict[str, Any]] = []
    for (kind, level), one in {(AS_IT_IS, 0): comparison, **shifted}.items():
        metrics = list(dict.fromkeys(one.levels["metric"]))
        for method, evaluations in one.evaluations.items():
            place = {"corruption": kind, "level": level, "method": method}
            for metric in metrics:
                found = level_of(one, metric, method)
                rows.append({**place, "metric": metric, **{key: found[key] for key in ("mean", "low", "high")}})
            more = {**_order(one, evaluations), **_risks(evaluations)}
            rows += [
                {**place, "metric": metric, "mean": value, "low": np.nan, "high": np.nan}
                for metric, value in more.items()
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="mean").reset_index(drop=True)


def promised_risks(comparison: Comparison) -> dict[str, float]:
    """The risk that guarantees promise at most, by the metric of `shift_rows`, where methods agree on it."""
    found: dict[str, set[float]] = {}
    for evaluations in comparison.evaluations.values():
        for one in evaluations:
            for kind, of_part in _guarantees(one).items():
                found.setdefault(f"{RISK}{kind}", set()).add(float(of_part["promised"]))
    return {metric: next(iter(levels)) for metric, levels in found.items() if len(levels) == 1}


def _order(comparison: Comparison, evaluations: tuple[Evaluation, ...]) -> dict[str, float]:
    """How well uncertainty puts the cases in order, mean over seeds."""
    seeds = [scores_of(one) for one in evaluations]
    images = is_classification(comparison)
    # a segmentation without any foreground has no order of its own
    values = [np.nan if one is None else _area(one) if images else _correlation(one) for one in seeds]
    return {AREA if images else CORRELATION: float(np.mean(values))}


def _correlation(scores: CaseScores) -> float:
    names = shown_scores([scores], 1)
    if scores.dice is None or not names:
        return np.nan
    return -score_correlation(scores.uncertainties[names[0]], scores.dice).correlation


def _area(scores: CaseScores) -> float:
    names = shown_scores([scores], 1)
    if scores.wrong is None or not names:
        return np.nan
    return risk_coverage(scores.uncertainties[names[0]], scores.wrong).aurc


def _risks(evaluations: tuple[Evaluation, ...]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in evaluations:
        for kind, of_part in _guarantees(one).items():
            means = [of_class["mean"] for of_class in of_part["classes"].values() if of_class["mean"] is not None]
            found.setdefault(f"{RISK}{kind}", []).append(float(np.mean(means)) if means else np.nan)
    return {metric: float(np.mean(values)) for metric, values in found.items()}


def _guarantees(evaluation: Evaluation) -> dict[str, Any]:
    path = evaluation.folder / "guarantees.json"
    if not path.exists():
        return {}
    found: dict[str, Any] = read_json(path, "evaluate again")["guarantees"]
    return found
