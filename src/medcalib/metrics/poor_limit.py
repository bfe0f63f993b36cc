"""Which cases are poor: those whose Dice is below a limit, which is given or found on calibration cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from medcalib.errors import UserError

__all__ = ["DEFAULT_POOR_BELOW", "PoorLimit", "find_poor_limit", "poor_limit_words", "poor_share"]

DEFAULT_POOR_BELOW = 0.8
"""The limit where it is to be found on calibration cases and there are none."""

GIVEN, FOUND, DEFAULT = "given", "calibration cases", "default"


class PoorLimit(NamedTuple):
    """Dice below which a case is poor.

    Attributes:
        value: in [0, 1].
        setting: the number that was given, or the share such as ``10%``.
        origin: ``given``, ``calibration cases``, or ``default``, which is taken where there are none.
        num_cases: calibration cases on which it was found.

    Example:
        >>> PoorLimit(0.7, 0.7, "given").recorded()
        {'setting': 0.7, 'origin': 'given', 'calibration_cases': 0}
    """

    value: float
    setting: float | str
    origin: str
    num_cases: int = 0

    def recorded(self) -> dict[str, Any]:
        """Where the value comes from, in plain values."""
        return {"setting": self.setting, "origin": self.origin, "calibration_cases": self.num_cases}


def poor_share(poor_below: float | str) -> float | None:
    """The share that a text such as ``10%`` stands for; None of a number.

    Raises:
        UserError: it is neither a Dice from 0 to 1 nor a share between 0 and 100 %.

    Example:
        >>> poor_share("10%"), poor_share(0.8)
        (0.1, None)
    """
    if isinstance(poor_below, str):
        try:
            share = float(poor_below.removesuffix("%")) / 100
        except ValueError:
            share = np.nan
        if poor_below.endswith("%") and 0 < share < 1:
            return share
    elif 0 <= poor_below <= 1:
        return None
    raise UserError(
        f"poor_below must be a Dice from 0 to 1, or a share of the calibration cases such as 10%, not {poor_below!r}."
    )


def find_poor_limit(poor_below: float | str, calibration_dice: ArrayLike | None) -> PoorLimit:
    """The Dice below which a case is poor; cases that are evaluated have no say in it.

    Args:
        poor_below: the Dice itself, or a share of the calibration cases, such as ``10%``: the quantile of their Dice.
        calibration_dice: Dice of the calibration cases (case,), NaN where there is none; None where they are unknown.

    Raises:
        UserError: as `poor_share`.

    Example:
        >>> find_poor_limit("10%", [0.5, 0.7, 0.9, 0.9, 0.9, 0.9]).value
        0.6
        >>> find_poor_limit("10%", None)
        PoorLimit(value=0.8, setting='10%', origin='default', num_cases=0)
    """
    share = poor_share(poor_below)
    if share is None:
        return PoorLimit(float(poor_below), poor_below, GIVEN)
    dice = np.asarray([] if calibration_dice is None else calibration_dice, dtype=np.float64)
    if not len(dice := dice[~np.isnan(dice)]):
        return PoorLimit(DEFAULT_POOR_BELOW, poor_below, DEFAULT)
    return PoorLimit(float(np.quantile(dice, share)), poor_below, FOUND, len(dice))


def poor_limit_words(report: Mapping[str, Any]) -> str:
    """The limit of a ``quality_control.json`` in words, and where it comes from if the report says so.

    Example:
        >>> poor_limit_words({"poor_below": 0.8})
        '0.8'
        >>> limit = find_poor_limit("10%", [0.5, 0.7, 0.9, 0.9, 0.9, 0.9])
        >>> poor_limit_words({"poor_below": limit.value, "poor_below_from": limit.recorded()})
        '0.6 (the 10% quantile of the Dice of 6 calibration cases)'
    """
    value, found = f"{report['poor_below']:.4g}", report.get("poor_below_from", {})
    origin = found.get("origin")
    if origin == FOUND:
        number = found["calibration_cases"]
        cases = "1 calibration case" if number == 1 else f"{number} calibration cases"
        return f"{value} (the {found['setting']} quantile of the Dice of {cases})"
    if origin == DEFAULT:
        return f"{value} (the default, as no Dice of calibration cases is known)"
    return f"{value} (as set)" if origin == GIVEN else value
