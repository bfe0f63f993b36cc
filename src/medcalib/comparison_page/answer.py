"""The answer of a comparison, in a few sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from medcalib.compare import Comparison
from medcalib.compare.bar import bar_sentence
from medcalib.comparison_page.method_rows import difference_of, level_of, verdict
from medcalib.comparison_page.metric_words import metric_label, number_text, p_text, range_text, signed_text

__all__ = ["Answer", "answer"]


class Answer(NamedTuple):
    """What is found.

    Attributes:
        effect: what the best method changes, with its interval.
        kept: whether it keeps what must not get worse.
        warnings: what makes these numbers doubtful.
        bar: which methods pass the bar that was stated; empty without one.
    """

    effect: str
    kept: str
    warnings: list[str]
    bar: str = ""


def answer(comparison: Comparison) -> Answer:
    """Say which method is the best in the primary metric, how far it is from the reference, and what it costs.

    Args:
        comparison: what was compared.

    Returns:
        One sentence on the effect and one on what must not get worse; the second is empty if there is nothing to say.
    """
    others = [name for name in comparison.evaluations if name != comparison.reference]
    higher = comparison.higher_is_better(comparison.primary)
    means = {name: level_of(comparison, comparison.primary, name)["mean"] for name in others}
    known = sorted((name for name in others if not np.isnan(means[name])), key=lambda name: means[name], reverse=higher)
    label = metric_label(comparison.primary)
    if not known:
        return Answer(f"No method but the reference {comparison.reference} has a value of {label}.", "", [])
    best = known[0]
    row = difference_of(comparison, comparison.primary, best)
    rows = {metric: difference_of(comparison, metric, best) for metric in (comparison.primary, *comparison.margins)}
    found = [
        f"{metric_label(metric)}: {one['warning']}"
        for metric, one in rows.items()
        if isinstance(one.get("warning"), str) and one["warning"]
    ]
    bar = bar_sentence(comparison.bar)
    return Answer(_effect(comparison, best, row, len(others)), _kept(comparison, best, known), found, bar)


def _effect(comparison: Comparison, best: str, row: dict[str, Any], count: int) -> str:
    label, reference = metric_label(comparison.primary), comparison.reference
    shown = verdict(row, comparison.higher_is_better(comparison.primary), comparison.confidence)
    among = f"Of {count} methods compared with {reference}, {best} has the best {label}" if count > 1 else best
    values = (
        f"{number_text(row['method_mean'])} against {number_text(row['reference_mean'])}, a difference of "
        f"{_difference(comparison, row)}"
    )
    if shown == "better":
        return f"{among}: {values}." if count > 1 else f"{best} has a better {label} than {reference}: {values}."
    if shown == "worse":
        start = (
            f"None of {count} methods has a better {label} than {reference}; the nearest is {best}"
            if count > 1
            else (f"{best} has a worse {label} than {reference}")
        )
        return f"{start}: {values}."
    start = f"{among}, but " if count > 1 else ""
    if shown == "cannot be said":
        said = (
            f"nothing can be said about its difference from {reference}"
            if count > 1
            else (f"Nothing can be said about the difference in {label} between {best} and {reference}")
        )
    elif shown == "no difference shown":
        said = (
            f"no difference from {reference} is shown"
            if count > 1
            else (f"No difference in {label} between {best} and {reference} is shown")
        )
    else:
        said = (
            f"whether it differs from {reference} is unclear, as interval and test disagree"
            if count > 1
            else (f"Whether {best} and {reference} differ in {label} is unclear, as interval and test disagree")
        )
    return f"{start}{said}: {values}."


def _difference(comparison: Comparison, row: dict[str, Any]) -> str:
    """A difference with its interval, p value and number of cases."""
    between = range_text(row["difference_low"], row["difference_high"], signed=True)
    parts = [f"{100 * comparison.confidence:g} % interval {between}"] if between else ["no interval"]
    if not np.isnan(row["p_holm"]):
        parts.append(f"Holm-corrected p = {p_text(row['p_holm'])}")
    if (cases := row.get("num_cases")) is not None and not np.isnan(float(cases)):
        parts.append(f"{int(cases)} case{'' if int(cases) == 1 else 's'}")
    return f"{signed_text(row['difference'])} ({', '.join(parts)})"


def _kept(comparison: Comparison, best: str, in_order: list[str]) -> str:
    sentences = []
    for metric, margin in comparison.margins.items():
        label = metric_label(metric)
        row = difference_of(comparison, metric, best)
        if np.isnan(row["difference"]):
            continue
        change = f"it changes by {_difference(comparison, row)}, with a margin of {number_text(margin)}"
        if _is_kept(row):
            sentences.append(f"{label} is kept: {change}")
            continue
        # the end of the interval on the good side
        most = row["difference_high"] if comparison.higher_is_better(metric) else -row["difference_low"]
        start = f"{label} is lost" if most < -margin else f"It is not shown that {label} is kept"
        keeping = [name for name in in_order if _is_kept(difference_of(comparison, metric, name))]
        if keeping:
            value = number_text(level_of(comparison, comparison.primary, keeping[0])["mean"])
            primary = metric_label(comparison.primary)
            rest = f"; of the methods that are shown to keep it, {keeping[0]} has the best {primary} ({value})"
        else:
            rest = "; no method is shown to keep it" if len(in_order) > 1 else ""
        sentences.append(f"{start}: {change}{rest}")
    return f"{'; '.join(sentences)}." if sentences else ""


def _is_kept(row: dict[str, Any]) -> bool:
    """Whether the method is shown not to be worse by more than the margin."""
    value = row.get("non_inferior")
    return not (value is None or value != value) and str(value).lower() in ("true", "1", "1.0", "yes")
