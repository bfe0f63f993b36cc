"""A bar stated before anything is measured, and which methods pass it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from medcalib.compare.metric_names import better_when_higher, metric_title
from medcalib.errors import UserError, listed, suggestion

__all__ = ["BAR_COLUMNS", "Demand", "bar_rows", "bar_sentence", "check_demands", "demand_text", "demands_of"]

BAR_COLUMNS = ("method", "metric", "bound", "unit", "change", "low", "high", "verdict", "passes")
"""Columns of ``bar.csv``."""

_PERCENT = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))\s*%")


class Demand(NamedTuple):
    """What the change of a metric from the reference must be: at most the bound, or at least if more is better.

    Attributes:
        metric: its name.
        bound: in the unit of the metric, or in percent of the mean of the reference.
        percent: whether it is in percent.
    """

    metric: str
    bound: float
    percent: bool


def demands_of(bar: Mapping[str, Any], where: str = "bar") -> tuple[Demand, ...]:
    """Read a bar as users write it.

    Args:
        bar: by metric, a number in the unit of the metric, or a text such as ``-10%``.
        where: what it is called in messages.

    Raises:
        UserError: it is no mapping, or a bound is neither.

    Example:
        >>> demands_of({"macro_ace": "-10%", "nll": 0})
        (Demand(metric='macro_ace', bound=-10.0, percent=True), Demand(metric='nll', bound=0.0, percent=False))
    """
    if not isinstance(bar, Mapping):
        raise UserError(f"{where} must be changes by metric, such as {{macro_ace: -10%, nll: 0}}, not {bar!r}.")
    return tuple(_demand(str(metric), bound, where) for metric, bound in bar.items())


def check_demands(demands: Sequence[Demand], known: Collection[str]) -> None:
    """Refuse a bar on what nobody measured.

    Raises:
        UserError: a metric is none of those known.
    """
    for demand in demands:
        if demand.metric not in known:
            raise UserError(
                f"bar names {demand.metric!r}, which is no metric of all{suggestion(demand.metric, known, True)}"
            )


def bar_rows(table: pd.DataFrame, demands: Sequence[Demand], margins: Mapping[str, float]) -> pd.DataFrame:
    """Whether each method passes a bar.

    A method passes if the mean change of every demand is on the right side of its bound, and the whole interval of
    every metric with a margin is: that nothing was lost must be shown, since a change that nobody could see is no
    proof. What the interval of each demand says stands beside it.

    Args:
        table: ``comparison.csv``.
        demands: the bar.
        margins: by metric, how much worse still counts as not inferior; such a demand has the unit ``margin``.

    Returns:
        Columns `BAR_COLUMNS`, one row a method and demand. ``verdict`` is ``shown`` (the whole interval is on the right
        side), ``reached`` (the mean is), ``not reached`` (it is not), ``missed`` (the whole interval is on the wrong
        side), or ``unknown`` where there is no change; without an interval nothing is shown or missed.
    """
    means = table[table["class"] == "mean"]
    rows: list[dict[str, Any]] = []
    for method in dict.fromkeys(means["method"]):
        own = means[means["method"] == method].set_index("metric")
        judged = [_judged(own, demand) for demand in demands]
        kept = [
            _judged(own, Demand(metric, -margin if better_when_higher(metric) else margin, False)) | {"unit": "margin"}
            for metric, margin in margins.items()
        ]
        passes = all(row["verdict"] in ("shown", "reached") for row in judged) and all(
            row["verdict"] == "shown" for row in kept
        )
        rows += [{"method": method, **row, "passes": passes} for row in (*judged, *kept)]
    return pd.DataFrame(rows, columns=list(BAR_COLUMNS))


def demand_text(metric: str, bound: float, unit: str) -> str:
    """A demand in words; ``unit`` as in ``bar.csv``.

    Example:
        >>> demand_text("macro_ace", -10, "percent"), demand_text("nll", 0, "")
        ('ACE falls by 10 % or more', 'NLL does not rise')
        >>> demand_text("mean_dice", -0.005, ""), demand_text("mean_dice", -0.005, "margin")
        ('Dice falls by 0.005 or less', 'Dice is kept within 0.005')
    """
    title, size = metric_title(metric), f"{abs(bound):g}{' %' if unit == 'percent' else ''}"
    if unit == "margin":
        return f"{title} is kept within {size}"
    higher = better_when_higher(metric)
    if bound == 0:
        return f"{title} does not {'fall' if higher else 'rise'}"
    better = (bound > 0) == higher
    return f"{title} {'rises' if bound > 0 else 'falls'} by {size} or {'more' if better else 'less'}"


def bar_sentence(bar: pd.DataFrame) -> str:
    """Which methods pass a bar, and of which every interval says so; nothing where there is no bar.

    Args:
        bar: ``bar.csv``.
    """
    if bar.empty:
        return ""
    first = bar[bar["method"] == bar["method"].iloc[0]]
    demands = [demand_text(*row) for row in first[["metric", "bound", "unit"]].itertuples(index=False)]
    by_method = bar.groupby("method", sort=False)
    passing = [str(name) for name, rows in by_method if rows["passes"].all()]
    sure = [name for name in passing if (by_method.get_group(name)["verdict"] == "shown").all()]
    number = by_method.ngroups
    told = f"The bar was that {', '.join(demands[:-1])}{' and ' if demands[:-1] else ''}{demands[-1]}: "
    if not passing:
        return f"{told}{'it does not pass' if number == 1 else f'none of {number} methods passes'}."
    told += (
        f"{listed(passing)} passes" if number == 1 else f"{len(passing)} of {number} methods pass, {listed(passing)}"
    )
    if not sure:
        return f"{told}, though not with the whole of every interval."
    return f"{told}; of {listed(sure)} every interval as a whole lies beyond its bound."


def _demand(metric: str, bound: Any, where: str) -> Demand:
    if isinstance(bound, str) and (percent := _PERCENT.fullmatch(bound.strip())):
        return Demand(metric, float(percent[1]), True)
    if isinstance(bound, int | float) and not isinstance(bound, bool) and math.isfinite(bound):
        return Demand(metric, float(bound), False)
    raise UserError(f"{where}: the change of {metric} must be a number, or percents such as -10%, not {bound!r}.")


def _judged(own: pd.DataFrame, demand: Demand) -> dict[str, Any]:
    columns = ("percent_of_means", "percent_low", "percent_high")
    names = columns if demand.percent else ("difference", "difference_low", "difference_high")
    row = own.loc[demand.metric] if demand.metric in own.index else dict.fromkeys(names, math.nan)
    change, low, high = (float(row[name]) for name in names)
    sign = 1 if better_when_higher(demand.metric) else -1
    # how far beyond the bound, at least, in the mean and at most
    ends = sorted((sign * (low - demand.bound), sign * (high - demand.bound)))
    least, mean, most = ends[0], sign * (change - demand.bound), ends[1]
    return {
        "metric": demand.metric,
        "bound": demand.bound,
        "unit": "percent" if demand.percent else "",
        "change": change,
        "low": low,
        "high": high,
        "verdict": _verdict(least, mean, most),
    }


def _verdict(least: float, mean: float, most: float) -> str:
    if math.isnan(mean):
        return "unknown"
    if mean >= 0:
        return "shown" if least >= 0 else "reached"
    return "missed" if most < 0 else "not reached"
