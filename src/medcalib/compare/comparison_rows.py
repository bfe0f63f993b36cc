"""Rows of the tables of a comparison: each method against the reference, each by itself, and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcalib.compare.drawn_values import Drawn, apart
from medcalib.compare.metric_draws import MetricDraws
from medcalib.compare.metric_names import better_when_higher
from medcalib.compare.significance import holm, paired_tests, percent_change

__all__ = ["difference_rows", "level_rows", "rank_rows"]

Mask = NDArray[np.bool_]
Row = dict[str, Any]

_PERCENTS = ("percent_of_means", "percent_per_case_mean", "percent_per_case_sd")
_PERCENT_ENDS = ("percent_low", "percent_high")
_TESTS = ("p_t", "p_wilcoxon", "p_holm", "effect_size")
# below it, two-sided p-values of Wilcoxon's test cannot reach 5 %
_FEW_CASES = 6


def difference_rows(found: MetricDraws, reference: str, margins: Mapping[str, float], confidence: float) -> list[Row]:
    """Every method but the reference, by class, against the reference."""
    rows: list[Row] = []
    for place, column in enumerate(found.columns):
        others = [name for name in found.known if name != reference]
        family = [_difference(found, place, column, name, reference, margins, confidence) for name in others]
        for row, corrected in zip(family, holm([row["p_wilcoxon"] for row in family]), strict=True):
            rows.append(row | {"p_holm": float(corrected)})
    return rows


def level_rows(found: MetricDraws, confidence: float) -> list[Row]:
    """Every method by itself, by class."""
    sign = 1 if better_when_higher(found.metric) else -1
    rows: list[Row] = []
    for place, column in enumerate(found.columns):
        own = {name: _column(found, name, known[:, place], place) for name, known in found.known.items()}
        values = {name: sign * float(drawn.estimates[0]) for name, drawn in own.items()}
        best = max((value for value in values.values() if not np.isnan(value)), default=np.nan)
        first = next((name for name, value in values.items() if value == best), None)
        is_best = {name: bool(apart(np.array(best), np.array(value)) == 0) for name, value in values.items()}
        for name, drawn in own.items():
            low, high = (float(end[0]) for end in drawn.intervals(confidence))
            known = found.known[name][:, place]
            rows.append(
                {
                    "metric": found.metric,
                    "class": column,
                    "method": name,
                    "mean": float(drawn.estimates[0]),
                    "low": low,
                    "high": high,
                    "sd": _spread_of_cases(found, name, known, place),
                    "seed_sd": seed_spread(drawn),
                    "num_cases": int(known.sum()),
                    "num_seeds": drawn.of_trainings.shape[1],
                    "best": is_best[name],
                    "not_worse_than_best": first is not None
                    and (is_best[name] or _not_worse(found, name, first, place, sign, confidence)),
                }
            )
    return rows


def rank_rows(found: MetricDraws, confidence: float) -> list[Row]:
    """Ranks of the methods by the mean over classes, on the cases of which all have a value."""
    place, names = found.columns.index("mean"), list(found.known)
    mask = np.all([known[:, place] for known in found.known.values()], 0)
    sign = 1 if better_when_higher(found.metric) else -1
    drawn = [_column(found, name, mask, place) for name in names]
    ranks = _ranks(sign * np.array([one.estimates for one in drawn]))[:, 0]
    numbers = {one.draws.shape[1] for one in drawn}
    draws = np.array([one.draws[0] for one in drawn]) if len(numbers) == 1 else np.full((len(names), 1), np.nan)
    draws = draws[:, np.isfinite(draws).all(0)]
    ends, share = np.full((2, len(names)), np.nan), np.full(len(names), np.nan)
    if draws.shape[1]:
        drawn_ranks = _ranks(sign * draws)
        shares = [(1 - confidence) / 2, (1 + confidence) / 2]
        ends = np.quantile(drawn_ranks, shares, axis=1, method="inverted_cdf")
        first = drawn_ranks == 1
        share = (first / first.sum(0)).mean(1)
    return [
        {
            "metric": found.metric,
            "method": name,
            "rank": ranks[index],
            "rank_low": ends[0, index],
            "rank_high": ends[1, index],
            "share_first": share[index],
        }
        for index, name in enumerate(names)
    ]


def seed_spread(drawn: Drawn) -> float:
    """Standard deviation between the trainings of the first number; NaN of one."""
    values = drawn.of_trainings[0]
    if len(values) < 2:
        return np.nan
    return float(apart(values, values[:1]).std(ddof=1))


def _difference(
    found: MetricDraws,
    place: int,
    column: str,
    name: str,
    reference: str,
    margins: Mapping[str, float],
    confidence: float,
) -> Row:
    mask = found.known[name][:, place] & found.known[reference][:, place]
    mine, other = (_column(found, one, mask, place) for one in (name, reference))
    are_drawn = mine.draws.shape == other.draws.shape
    apart = mine.minus(other) if are_drawn else _without_draws(mine, other)
    low, high = (float(end[0]) for end in apart.intervals(confidence))
    row: Row = {
        "metric": found.metric,
        "class": column,
        "method": name,
        "reference": reference,
        "num_cases": int(mask.sum()),
        "reference_mean": float(other.estimates[0]),
        "method_mean": float(mine.estimates[0]),
        "difference": float(apart.estimates[0]),
        "difference_low": low,
        "difference_high": high,
        **dict.fromkeys((*_PERCENTS, *_PERCENT_ENDS, *_TESTS), np.nan),
        "non_inferior": None,
        "margin": margins.get(found.metric, np.nan),
    }
    if are_drawn:
        ends = mine.percent_of(other).intervals(confidence)
        row |= {column: float(end[0]) for column, end in zip(_PERCENT_ENDS, ends, strict=True)}
    told = _warnings(found, mask, name, reference, row)
    if found.by_case is not None:
        values, expected = (found.by_case[one].mean(0)[mask, place] for one in (name, reference))
        tests = paired_tests(values, expected)
        row |= tests._asdict()
        change = percent_change(values, expected)
        row |= dict(zip(_PERCENTS, change[:3], strict=True))
        told += _warnings_of_tests(len(values), tests.p_t, tests.p_wilcoxon)
        if change.near_zero:
            told.append(
                f"the reference is near 0 in {_cases(change.near_zero)}, so that percents of single cases mislead"
            )
    elif row["reference_mean"]:
        row["percent_of_means"] = 100 * row["difference"] / abs(row["reference_mean"])
    spread = np.nanmax([seed_spread(one) if one.of_trainings.shape[1] > 1 else -np.inf for one in (mine, other)])
    if abs(row["difference"]) < spread:
        told.append(f"smaller than the standard deviation between the seeds of one method, {spread:.3g}")
    if found.metric in margins and not np.isnan(low + high):
        margin = margins[found.metric]
        row["non_inferior"] = low > -margin if better_when_higher(found.metric) else high < margin
    return row | {"warning": "; ".join(told)}


def _warnings(found: MetricDraws, mask: Mask, name: str, reference: str, row: Row) -> list[str]:
    told = []
    if without := len(mask) - row["num_cases"]:
        told.append(f"{_cases(without)} without a value left out")
    if not row["num_cases"]:
        return told
    if row["num_cases"] == 1:
        told.append("a single case, so no interval and no p-value")
    if row["num_cases"] in range(2, _FEW_CASES):
        told.append(f"with {row['num_cases']} cases intervals are too narrow")
    if other := [one for one in (name, reference) if one in found.other_cases]:
        told.append(f"the value of {' and '.join(other)} is of cases that not all have, so it is left out")
    elif lacking := [one for one in (name, reference) if one in found.lacks_bins]:
        told.append(f"no bin_statistics.npz of {' and '.join(lacking)}, so no interval")
    elif not found.is_drawn:
        told.append("this metric is not drawn anew, so no interval")
    return told


def _warnings_of_tests(num_cases: int, p_t: float, p_wilcoxon: float) -> list[str]:
    if num_cases < 2:
        return []
    if np.isnan(p_t):
        if p_wilcoxon == 1:
            return ["equal in every case, so that there is nothing to test"]
        return ["all differences are equal, so that the t-test is not defined"]
    if num_cases < _FEW_CASES:
        return [f"with {num_cases} cases p of Wilcoxon's test cannot be below {2.0 ** (1 - num_cases):.3g}"]
    return []


def _without_draws(mine: Drawn, other: Drawn) -> Drawn:
    nothing = np.full((1, 1), np.nan)
    return Drawn(mine.estimates - other.estimates, nothing, {}, np.empty((1, 0)))


def _not_worse(found: MetricDraws, name: str, best: str, place: int, sign: int, confidence: float) -> bool:
    """Whether the interval of the difference to the best holds 0; where there is none, nothing says so."""
    mask = found.known[name][:, place] & found.known[best][:, place]
    mine, other = (_column(found, one, mask, place) for one in (name, best))
    if mine.draws.shape != other.draws.shape:
        return False
    low, high = (float(end[0]) for end in mine.minus(other).intervals(confidence))
    return (high if sign > 0 else -low) >= 0


def _spread_of_cases(found: MetricDraws, name: str, known: Mask, place: int) -> float:
    if found.by_case is None or not known.any():
        return np.nan
    return float(found.by_case[name].mean(0)[known, place].std())


def _column(found: MetricDraws, name: str, mask: Mask, place: int) -> Drawn:
    return found.drawn(name, mask).take([place])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the first axis, 1 the highest; equal ones share the better rank; NaN where there is no value."""
    ranks = 1.0 + (apart(values[None], values[:, None]) > 0).sum(1)
    return np.where(np.isnan(values), np.nan, ranks)


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"
