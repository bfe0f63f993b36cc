"""How metrics are called, and how numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from medcalib.compare.metric_names import metric_title

__all__ = [
    "MINUS",
    "UNKNOWN",
    "main_metrics",
    "metric_label",
    "name_lines",
    "number_text",
    "p_text",
    "range_text",
    "signed_text",
    "words",
]

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "\N{EN DASH}"
"""Stands where there is no number."""
# never a calibration error without what it may have cost
MAIN = (
    "macro_ace",
    "macro_ece",
    "micro_ace",
    "micro_ece",
    "top_label_ace",
    "top_label_ece",
    "mean_dice",
    "auc",
    "accuracy",
    "nll",
    "brier",
    "nll_categorical",
    "brier_categorical",
    "mhd",
)


def metric_label(metric: str) -> str:
    """What a metric is called on the page.

    Example:
        >>> metric_label("macro_ace"), metric_label("my_metric")
        ('ACE', 'my metric')
    """
    return words(metric_title(metric))


def words(name: str) -> str:
    """A name in which lines can be broken.

    Example:
        >>> words("entropy_image_mean")
        'entropy image mean'
    """
    return name.replace("_", " ")


def name_lines(name: str, letters: int) -> list[str]:
    """A name on lines of about so many letters, broken at spaces and after ``_`` and ``+``.

    Example:
        >>> name_lines("mc_dropout+temperature_scaling", 20), name_lines("a b", 20)
        (['mc_dropout+', 'temperature_scaling'], ['a b'])
    """
    lines = [""]
    for piece in re.findall(r"[^_+ ]*[_+ ]?", name):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > letters:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip(" ") for line in lines]


def main_metrics(known: Iterable[str], primary: str) -> list[str]:
    """The metrics of the main table: the primary one first, then those of `MAIN` that there are.

    The categorical forms of NLL and Brier stand in for the others only.

    Example:
        >>> main_metrics(["nll", "mean_dice", "macro_ace", "nll_categorical"], "macro_ace")
        ['macro_ace', 'mean_dice', 'nll']
    """
    there = set(known)
    doubled = {f"{name}_categorical" for name in ("nll", "brier") if name in there} - {primary}
    return [name for name in dict.fromkeys((primary, *MAIN)) if name in there and name not in doubled]


def number_text(value: float | None) -> str:
    """A number with at least three digits that count; a dash where there is none.

    Example:
        >>> number_text(0.912345), number_text(0.00123456), number_text(12.3456), number_text(float("nan"))
        ('0.9123', '0.00123', '12.35', '–')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if size == 0:
        return "0"
    decimals = max(0, 4 if 0.1 <= size < 10 else 2 - math.floor(math.log10(size)))
    if size >= 10:
        decimals = 2 if size < 1000 else 0
    elif size < 1e-5:
        return f"{value:.2e}".replace("-", MINUS)
    return f"{value:.{min(decimals, 6)}f}".replace("-", MINUS)


def signed_text(value: float | None) -> str:
    """A difference, with its sign.

    Example:
        >>> signed_text(0.02), signed_text(-0.02)
        ('+0.0200', '−0.0200')
    """
    text = number_text(value)
    return f"+{text}" if value is not None and value > 0 and text != UNKNOWN else text


def range_text(low: float, high: float, signed: bool = False) -> str:
    """An interval.

    Example:
        >>> range_text(0.1, 0.2), range_text(-0.1, 0.2, signed=True), range_text(float("nan"), 1.0)
        ('0.1000 to 0.2000', '−0.1000 to +0.2000', '')
    """
    if math.isnan(low) or math.isnan(high):
        return ""
    text = signed_text if signed else number_text
    return f"{text(low)} to {text(high)}"


def p_text(value: float) -> str:
    """A p value.

    Example:
        >>> p_text(0.0312), p_text(6.991e-26), p_text(float("nan"))
        ('0.031', '6.99e−26', '–')
    """
    if math.isnan(value):
        return UNKNOWN
    return f"{value:.3f}" if value >= 0.001 else f"{value:.2e}".replace("-", MINUS)
