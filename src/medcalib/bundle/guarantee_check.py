"""Check, before anything is trained, that there are calibration cases enough for what is to be promised."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from medcalib.errors import UserError
from medcalib.guarantees import JointGuarantees

__all__ = ["check_num_cases"]


def check_num_cases(
    guarantees: JointGuarantees,
    division: Mapping[str, Sequence[Mapping[str, Any]]],
    share: str = "all",
    promises_nothing: bool = False,
) -> None:
    """Check that the level can be had with so many cases if the predictions are good.

    Args:
        guarantees: the guarantees.
        division: the cases of each fit, as of `medcalib.data.calibration_halves`.
        share: whether the guarantee has ``half`` of the calibration cases or ``all`` of them.
        promises_nothing: whether it is a run of seconds, which may have too few, with a warning.

    Raises:
        UserError: there are too few.
    """
    number, of_calibrator = len(division["guarantee"]), len(division["calibrator"])
    try:
        guarantees.check_num_cases(number)
    except UserError as error:
        told = str(error).removesuffix(".")
        if share == "half":
            told += (
                f"; the other {of_calibrator} of the {number + of_calibrator} fit the calibrator, and "
                f"--guarantee_cases=all uses all for both, with which the promise is approximate"
            )
        if not promises_nothing:
            raise UserError(f"{told}.") from None
        warnings.warn(f"This debug run promises nothing: {told}.", stacklevel=2)
