"""Compare methods on the same cases: differences, intervals, tests and ranks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medcalib.compare.bar import BAR_COLUMNS, Demand, bar_rows, check_demands, demands_of
from medcalib.compare.bootstrap import CaseDraws
from medcalib.compare.comparable import check_comparable, common_cases
from medcalib.compare.comparison_rows import difference_rows, level_rows, rank_rows
from medcalib.compare.evaluations import Evaluation
from medcalib.compare.metric_draws import draw_metrics
from medcalib.compare.metric_names import better_when_higher, in_order, metric_title, scores_cases
from medcalib.compare.raw_tables import is_pooled
from medcalib.errors import UserError, listed, suggestion

__all__ = ["COLUMNS", "Comparison", "compare"]

COLUMNS = (
    "metric", "class", "method", "reference", "num_cases", "reference_mean", "method_mean", "difference",
    "difference_low", "difference_high", "percent_of_means", "percent_low", "percent_high", "percent_per_case_mean",
    "percent_per_case_sd", "p_t", "p_wilcoxon", "p_holm", "effect_size", "non_inferior", "margin", "warning",
)  # fmt: skip
"""Columns of ``comparison.csv``."""

_PRIMARY = ("macro_ace", "macro_ece", "micro_ace")
_PRIMARY_OF_IMAGES = ("top_label_ece", "micro_ece", "nll_categorical")
_MARGINS = {"mean_dice": 0.01, "accuracy": 0.01}
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` finds.

    Attributes:
        reference: the method that the others are compared with.
        evaluations: by method, one a seed, in the order given.
        primary: the metric that answers the question.
        margins: by metric, by how much a method may be worse and still counts as not inferior.
        confidence: of all intervals.
        table: ``comparison.csv``, one row a metric, class (or ``mean``) and method; see `docs/comparing.md`.
        levels: every method by itself: ``metric, class, method, mean, low, high, sd, seed_sd, num_cases, num_seeds,
            best, not_worse_than_best``.
        ranks: by the mean over classes: ``metric, method, rank, rank_low, rank_high, share_first``.
        left_out: by method, cases that not all methods have.
        notes: what a reader must know, in whole sentences.
        demands: the bar that was stated beforehand; empty without one.
        bar: ``bar.csv``, whether each method passes it, of :func:`medcalib.compare.bar.bar_rows`; empty without one.
    """

    reference: str
    evaluations: dict[str, tuple[Evaluation, ...]]
    primary: str
    margins: dict[str, float]
    confidence: float
    table: pd.DataFrame
    levels: pd.DataFrame
    ranks: pd.DataFrame
    left_out: dict[str, list[str]]
    notes: list[str]
    demands: tuple[Demand, ...] = ()
    bar: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=list(BAR_COLUMNS)))

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric is better."""
        return better_when_higher(metric)


def compare(
    evaluations: Mapping[str, Sequence[Evaluation]],
    reference: str,
    primary: str | None = None,
    non_inferior: Mapping[str, float] | None = None,
    num_samples: int = 9999,
    confidence: float = 0.95,
    seed: int = 0,
    bar: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare methods with a reference on the cases that all of them have.

    Args:
        evaluations: by name of the method, one evaluation a seed.
        reference: name of the method that the others are compared with.
        primary: the metric that answers the question; ``macro_ace`` of segmentations, ``top_label_ece`` of classified
            images when left out.
        non_inferior: by metric, by how much a method may be worse and still counts as not inferior, in the unit of the
            metric; ``{"mean_dice": 0.01}``, or of ``accuracy``, when left out.
        num_samples: how often cases, and seeds, are drawn.
        confidence: share of intervals that hold the true value, in (0, 1).
        seed: fixes the draws; equal arguments give equal numbers.
        bar: by metric, what its change from the reference must be: at most so much, or at least where more is better,
            in the unit of the metric or, as a text such as ``-10%``, of the mean of the reference.

    Returns:
        Differences with intervals and tests, every method by itself, and ranks.

    Raises:
        UserError: there is no such reference or metric, no second method, no common case, a number is out of range, or
            two evaluations differ in more than method and seed.
    """
    given = {str(name): tuple(seeds) for name, seeds in evaluations.items()}
    _check(given, reference, num_samples, confidence, seed)
    check_comparable(given)
    cases, left_out = common_cases(given)
    columns, notes = _shared_metrics(given)
    primary = _primary(primary, columns, given)
    margins = _margins(non_inferior, columns)
    demands = demands_of(bar or {})
    check_demands(demands, columns)
    table: list[dict[str, Any]] = []
    levels: list[dict[str, Any]] = []
    ranks: list[dict[str, Any]] = []
    for found in draw_metrics(given, columns, cases, CaseDraws(num_samples, seed)):
        table += difference_rows(found, reference, margins, confidence)
        levels += level_rows(found, confidence)
        ranks += rank_rows(found, confidence)
    differences = pd.DataFrame(table, columns=list(COLUMNS)).astype({"non_inferior": object})
    every_level = pd.DataFrame(levels)
    notes = _notes(given, cases, left_out, differences, every_level) + notes
    return Comparison(
        reference,
        given,
        primary,
        margins,
        confidence,
        differences,
        every_level,
        pd.DataFrame(ranks),
        left_out,
        notes,
        demands,
        bar_rows(differences, demands, margins if demands else {}),
    )


def _check(
    given: Mapping[str, Sequence[Evaluation]], reference: str, num_samples: int, confidence: float, seed: int
) -> None:
    if not given:
        raise UserError("There is nothing to compare; give the folders of two methods.")
    if not all(name.strip() for name in given):
        raise UserError("A method has no name; give each one.")
    if reference not in given:
        raise UserError(f"The reference {reference!r} is none of the evaluations{suggestion(reference, given, True)}")
    if len(given) < 2:
        raise UserError(f"There is nothing to compare {reference} with; give a second evaluation.")
    for name, seeds in given.items():
        if not seeds:
            raise UserError(f"{name} has no evaluation; give its folder.")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise UserError(f"num_samples must be a whole number from 1 on, not {num_samples!r}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed must be a whole number from 0 on, not {seed!r}.")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise UserError(f"confidence must be a number between 0 and 1, such as 0.95, not {confidence!r}.")
    if num_samples * (1 - confidence) < 2 - 1e-9:
        raise UserError(
            f"num_samples is {num_samples}, too few for the ends of {100 * confidence:g} % intervals; take "
            f"{math.ceil(2 / (1 - confidence) - 1e-6)} at least, better ten times as many."
        )


def _shared_metrics(given: Mapping[str, Sequence[Evaluation]]) -> tuple[dict[str, list[str]], list[str]]:
    """By metric, the columns that every evaluation has; and what was left out."""
    every = [(name, one) for name, seeds in given.items() for one in seeds]
    names = dict.fromkeys(metric for _, one in every for metric in one.metrics if not scores_cases(metric))
    shared, notes = {}, []
    for metric in in_order(names):
        lacking = dict.fromkeys(name for name, one in every if metric not in one.metrics)
        if lacking:
            has = "does" if len(lacking) == 1 else "do"
            notes.append(
                f"{metric_title(metric)} ({metric}) is left out, since {_and(list(lacking))} {has} not have it."
            )
            continue
        if len({is_pooled(one.metrics[metric]) for _, one in every}) > 1:
            notes.append(f"{metric} is left out, since some have a value of each case and others one of all.")
            continue
        first = every[0][1].metrics[metric].columns
        shared[metric] = [column for column in first if all(column in one.metrics[metric] for _, one in every)]
    if not shared:
        raise UserError("There is no metric that all evaluations have; evaluate all with the same metrics.")
    return shared, notes


def _primary(primary: str | None, columns: Mapping[str, Any], given: Mapping[str, Sequence[Evaluation]]) -> str:
    if primary is None:
        classifies = next(iter(given.values()))[0].classifies
        wished = _PRIMARY_OF_IMAGES if classifies else _PRIMARY
        return next((metric for metric in wished if metric in columns), next(iter(columns)))
    if primary not in columns:
        raise UserError(f"primary is {primary!r}, which is no metric of all{suggestion(primary, columns, True)}")
    return primary


def _margins(non_inferior: Mapping[str, float] | None, columns: Mapping[str, Any]) -> dict[str, float]:
    if non_inferior is None:
        return {metric: margin for metric, margin in _MARGINS.items() if metric in columns}
    if not isinstance(non_inferior, Mapping):
        raise UserError(f"non_inferior must be margins by metric, such as {{mean_dice: 0.01}}, not {non_inferior!r}.")
    for metric, margin in non_inferior.items():
        if metric not in columns:
            raise UserError(
                f"non_inferior names {metric!r}, which is no metric of all{suggestion(str(metric), columns, True)}"
            )
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < np.inf:
            raise UserError(f"non_inferior: the margin of {metric} must be a number from 0 on, not {margin!r}.")
    return {str(metric): float(margin) for metric, margin in non_inferior.items()}


def _notes(
    given: Mapping[str, Sequence[Evaluation]],
    cases: Sequence[str],
    left_out: Mapping[str, Sequence[str]],
    table: pd.DataFrame,
    levels: pd.DataFrame,
) -> list[str]:
    notes = []
    for name, ids in left_out.items():
        notes.append(f"Not all methods have {len(ids)} of the cases of {name}, which are left out: {listed(ids)}.")
    if len(cases) == 1:
        notes.append(f"There is one case only, {cases[0]}, so that there are no intervals and no p-values.")
    numbers = {name: len(seeds) for name, seeds in given.items()}
    if single := [name for name, number in numbers.items() if number == 1]:
        who = "Every method has" if len(single) == len(given) else f"{_and(single)} have"
        who = f"{single[0]} has" if len(single) == 1 else who
        notes.append(f"{who} one seed, so that intervals and p-values speak of other cases, not of other trainings.")
    if any(number > 1 for number in numbers.values()):
        notes.append(
            f"Intervals speak of other cases and other seeds; of {max(numbers.values())} seeds at the most they know "
            f"little, and p-values, of the means over seeds, speak of other cases alone."
        )
    small = table[table["warning"].str.contains("between the seeds") & (table["class"] == "mean")]
    for metric, rows in small.groupby("metric", sort=False):
        notes.append(
            f"The difference in {metric_title(str(metric))} of {_and(rows['method'].tolist())} is smaller than the "
            f"spread between the seeds of one method."
        )
    lacking = levels[(levels["class"] == "mean") & (levels["num_cases"] < len(cases))]
    for metric, rows in lacking.groupby("metric", sort=False):
        numbers_left = zip(rows["method"], len(cases) - rows["num_cases"], strict=True)
        told = [f"{number} of {name}" for name, number in numbers_left]
        notes.append(f"{metric_title(str(metric))} leaves out cases without a value: {_and(told)}.")
    return notes


def _and(names: Sequence[str]) -> str:
    if len(names) > _LISTED:
        return listed(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
