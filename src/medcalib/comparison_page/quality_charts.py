"""Which uncertainty finds poor predictions: curves of quality control, risk and coverage, retention, correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medcalib.compare import Comparison
from medcalib.comparison_page.case_scores import CaseScores, scores_of, shown_scores
from medcalib.comparison_page.chart import Chart, FigureBlock, Series
from medcalib.comparison_page.metric_words import MINUS, words
from medcalib.comparison_page.page_tables import Cell, Table, number_cell
from medcalib.metrics import flagging_curve, retained_accuracy, risk_coverage, score_correlation
from medcalib.metrics.poor_limit import DEFAULT_POOR_BELOW, poor_limit_words

__all__ = ["area_table", "case_scores", "choice_table", "correlation_tables", "flagging", "retention", "risk"]

NUM_POINTS = 60
MOST_SCORES = 6
GRID = np.linspace(0, 1, NUM_POINTS)

Array = NDArray[np.float64]
Found = Mapping[str, Sequence[CaseScores]]


def case_scores(comparison: Comparison) -> dict[str, list[CaseScores]]:
    """Scores of the cases by method, one entry a seed; without methods that have none."""
    found = {
        name: [scores for one in evaluations if (scores := scores_of(one)) is not None and scores.uncertainties]
        for name, evaluations in comparison.evaluations.items()
    }
    return {name: seeds for name, seeds in found.items() if seeds}


def poor_below(comparison: Comparison) -> tuple[float, str]:
    """Dice below which a case counts as poor, as the reference was evaluated, and the same in words."""
    for one in comparison.evaluations[comparison.reference]:
        report = one.quality_control or {}
        if isinstance(value := report.get("poor_below"), int | float):
            return float(value), poor_limit_words(report)
    return DEFAULT_POOR_BELOW, f"{DEFAULT_POOR_BELOW:g}"


def flagging(found: Found, threshold: float, limit: str) -> FigureBlock | None:
    """Poor cases that nobody sees when the most uncertain ones are looked at, for every method."""
    usable = {name: seeds for name, seeds in found.items() if all(one.dice is not None for one in seeds)}
    if not usable:
        return None
    shares = [
        float(np.nanmean(one.dice[~np.isnan(one.dice)] < threshold))
        for seeds in usable.values()
        for one in seeds
        if one.dice is not None and not np.isnan(one.dice).all()
    ]
    if not shares or max(shares) == 0:
        return None
    poor = float(np.mean(shares))

    def curve(one: CaseScores, score: str) -> Array:
        assert one.dice is not None
        return flagging_curve(one.uncertainties[score], one.dice, threshold, NUM_POINTS).remaining

    variants, parts = _curves(usable, curve)
    guides = [
        Series([0.0, 1.0], [poor, 0.0], label="random"),
        Series([0.0, poor], [poor, 0.0], label="ideal"),
        Series([0.0, 1.0], [0.05, 0.05], label="5 %"),
    ]
    chart = Chart(
        title="Quality control",
        x_label="part of the cases flagged, most uncertain first",
        y_label="poor cases not flagged / all cases",
        alt=f"Poor cases left against cases flagged for {', '.join(usable)}; lower is better.",
        parts=[*guides, *parts],
        x_range=(0.0, 1.0),
        height=400,
    )
    caption = (
        f"Poor cases (Dice below {limit}) that are not flagged when the most uncertain cases are. Dashed: flags "
        f"at random (the long line), flags by Dice itself (the steep one), and 5 % of all cases. Methods differ in how "
        f"many of their cases are poor, so curves begin at different heights."
    )
    return FigureBlock("quality_control", caption, [chart], list(usable), variants, "score")


def risk(found: Found) -> FigureBlock | None:
    """Mean risk of the most certain part of the cases, for every method."""
    usable = {name: seeds for name, seeds in found.items() if all(_risk(one) is not None for one in seeds)}
    if not usable:
        return None

    def curve(one: CaseScores, score: str) -> Array:
        risks = _risk(one)
        assert risks is not None
        kept = risk_coverage(one.uncertainties[score], risks)
        if not kept.count:
            return np.full(NUM_POINTS, np.nan)
        return np.interp(GRID, kept.coverage, kept.risk, left=np.nan)

    variants, parts = _curves(usable, curve)
    images = all(one.wrong is not None for seeds in usable.values() for one in seeds)
    label = "part that is wrong" if images else f"mean of 1 {MINUS} Dice"
    chart = Chart(
        title="Risk and coverage",
        x_label="coverage: part kept, most certain first",
        y_label=label,
        alt=f"Risk against coverage for {', '.join(usable)}; lower is better.",
        parts=parts,
        x_range=(0.0, 1.0),
        height=400,
    )
    caption = (
        f"Risk ({label}) of the most certain part of the cases. A curve that rises to the right belongs to an "
        f"uncertainty that puts poor cases last; its right end is the risk of all cases, which no uncertainty changes."
    )
    return FigureBlock("risk_coverage", caption, [chart], list(usable), variants, "score")


def retention(found: Found) -> FigureBlock | None:
    """Accuracy of the images that an uncertainty keeps, for every method."""
    usable = {name: seeds for name, seeds in found.items() if all(one.wrong is not None for one in seeds)}
    if not usable:
        return None

    def of(kind: str) -> Callable[[CaseScores, str], Array]:
        def curve(one: CaseScores, score: str) -> Array:
            right = 1 - (one.wrong if one.wrong is not None else np.empty(0))
            values: Array = getattr(retained_accuracy(one.uncertainties[score], right, GRID.tolist()), kind)
            return values

        return curve

    labels = {"accuracy": "accuracy of what is kept", "retained": "part kept"}
    variants: list[str] = []
    charts = []
    for kind, label in labels.items():
        variants, parts = _curves(usable, of(kind))
        charts.append(
            Chart(
                title=label[0].upper() + label[1:],
                x_label="threshold on the uncertainty, scaled to [0, 1]",
                y_label=label,
                alt=f"{label} against the threshold for {', '.join(usable)}.",
                parts=parts,
                x_range=(0.0, 1.0),
                height=360,
            )
        )
    caption = (
        "Accuracy of the images whose uncertainty is at most a threshold, and how many these are. Uncertainties are "
        "scaled by the least and the largest of each method, so equal thresholds are not equal uncertainties; the "
        "areas below compare methods without it."
    )
    return FigureBlock("retention", caption, charts, list(usable), variants, "score")


def _risk(one: CaseScores) -> Array | None:
    if one.wrong is not None:
        return one.wrong
    return None if one.dice is None else 1 - one.dice


def _curves(found: Found, curve: Callable[[CaseScores, str], Array]) -> tuple[list[str], list[Series]]:
    """Curves over `GRID`, means over seeds, of the scores that are shown."""
    scores = shown_scores([one for seeds in found.values() for one in seeds], MOST_SCORES)
    parts = []
    for score in scores:
        for name, seeds in found.items():
            if all(score in one.uncertainties for one in seeds):
                values = np.mean([curve(one, score) for one in seeds], axis=0)
                parts.append(Series(GRID.tolist(), values.tolist(), name, variant=score))
    return scores, parts


def area_table(found: Found) -> Table | None:
    """Area under the risk-coverage curve of every method and score, mean over seeds."""

    def area(one: CaseScores, score: str) -> tuple[float, int]:
        risks = _risk(one)
        if risks is None or score not in one.uncertainties:
            return np.nan, 0
        curve = risk_coverage(one.uncertainties[score], risks)
        return curve.aurc, curve.count

    caption = "Area under the risk-coverage curve (AURC); lower is better."
    return _score_table(found, area, caption, "aurc", lower=True)


def choice_table(comparison: Comparison) -> Table | None:
    """The score that each method's calibration cases chose, and how it does on the test cases, mean over seeds."""
    rows = []
    for name, evaluations in comparison.evaluations.items():
        reports = [one.quality_control or {} for one in evaluations]
        if not all(isinstance(report.get("chosen_score"), str) for report in reports):
            continue
        chosen = [report["chosen_score"] for report in reports]
        own = [report["scores"][score] for report, score in zip(reports, chosen, strict=True)]
        best = [min(_aurc(score) for score in report["scores"].values()) for report in reports]
        # the order of no score, on average
        found = [
            scores.dice for scores in map(scores_of, evaluations) if scores is not None and scores.dice is not None
        ]
        nothing = [float(np.nanmean(1 - dice)) for dice in found if not np.isnan(dice).all()]
        names = dict.fromkeys(chosen)
        told = ", ".join(words(one) + (f" (seeds: {chosen.count(one)})" if len(names) > 1 else "") for one in names)
        correlation = [_number(one.get("spearman_dice")) for one in own]
        num_cases = min(int(one["calibration"]["num_cases"]) for one in own)
        rows.append(
            [
                Cell(name, method=name),
                Cell(told, detail=f"of {num_cases} calibration cases"),
                number_cell(np.mean([_aurc(one) for one in own])),
                number_cell(np.mean(correlation), signed=True),
                number_cell(np.mean(best)),
                number_cell(np.mean(nothing) if nothing else np.nan),
            ]
        )
    if not rows:
        return None
    caption = (
        "Scores chosen on the calibration cases, by the area under the risk-coverage curve (AURC, lower is better), "
        "and confirmed on the test cases. The best score in hindsight promises too much; without a score, cases are "
        "looked at in any order."
    )
    heads = [
        "Method",
        "Score chosen",
        "AURC on test cases",
        "Spearman with Dice there",
        "AURC of the best in hindsight",
        "AURC without a score",
    ]
    return Table(caption, heads, rows, key="score-choice")


def _aurc(result: Mapping[str, object]) -> float:
    value = _number(result.get("aurc"))
    return np.inf if np.isnan(value) else value


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def correlation_tables(found: Found) -> list[Table]:
    """Spearman's correlation of every score with Dice and with the distance, by method, mean over seeds."""
    tables = []
    for kind, label, wanted in (("dice", "Dice", f"{MINUS}1"), ("distance", "modified Hausdorff distance", "+1")):

        def correlation(one: CaseScores, score: str, kind: str = kind) -> tuple[float, int]:
            quality = getattr(one, kind)
            if quality is None or score not in one.uncertainties:
                return np.nan, 0
            values = score_correlation(one.uncertainties[score], quality)
            return values.correlation, values.num_cases

        caption = (
            f"Spearman's correlation of uncertainty scores with {label}; all are turned so that high is uncertain, and "
            f"a score that finds poor cases is near {wanted}."
        )
        if table := _score_table(found, correlation, caption, f"correlation-{kind}", lower=kind == "dice", signed=True):
            tables.append(table)
    return tables


def _score_table(
    found: Found,
    value: Callable[[CaseScores, str], tuple[float, int]],
    caption: str,
    key: str,
    lower: bool,
    signed: bool = False,
) -> Table | None:
    scores = shown_scores([one for seeds in found.values() for one in seeds])
    numbers = {
        name: {score: _mean([value(one, score) for one in seeds]) for score in scores} for name, seeds in found.items()
    }
    scores = [score for score in scores if any(not np.isnan(row[score][0]) for row in numbers.values())]
    if not scores:
        return None
    rows = []
    for name, row in numbers.items():
        known = [row[score][0] for score in scores if not np.isnan(row[score][0])]
        best = (min if lower else max)(known) if known else np.nan
        rows.append(
            [
                Cell(name, method=name),
                *(
                    number_cell(
                        row[score][0],
                        f"n = {row[score][1]}" if row[score][1] else "",
                        "best" if row[score][0] == best else "",
                        signed,
                    )
                    for score in scores
                ),
            ]
        )
    return Table(
        f"{caption} ★ best score of each method.", ["Method", *(words(score) for score in scores)], rows, key=key
    )


def _mean(values: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """Mean over seeds, and the least number of cases."""
    return float(np.mean([number for number, _ in values])), min(count for _, count in values)
