"""Flag a classified image by the test images that its bundle got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from medcalib.errors import UserError, plain_reason, suggestion
from medcalib.metrics import flagging_threshold
from medcalib.reports.flagging_rule import FlaggingRule

__all__ = ["ImageFlaggingRule"]

_RIGHT = "correct"


class ImageFlaggingRule(FlaggingRule):
    """The largest threshold of one score by which few of the test images would have been wrong and not flagged.

    It is found on ``cases.csv`` of an evaluation with the same weights by `medcalib.metrics.flagging_threshold`; new
    images are none of those.

    Args:
        evaluation_dir: folder of the evaluation.
        provenance: what produces the predictions, as of `medcalib.reports.collect_provenance`.
        score: which score, a column of ``cases.csv`` that is high where a prediction is uncertain.
        max_wrong: how many wrong images may pass, divided by all images.

    Raises:
        UserError: the evaluation is damaged, or has no such score, or ``max_wrong`` is no fraction.

    Example:
        >>> ImageFlaggingRule("no/such/folder", {}).flag({"entropy": 0.1}).flagged is None
        True
    """

    file = "cases.csv"

    def __init__(
        self, evaluation_dir: str | Path, provenance: Mapping[str, Any], score: str = "entropy", max_wrong: float = 0.05
    ) -> None:
        if not 0 <= max_wrong <= 1:
            raise UserError(f"flagging_rule::max_wrong must be a fraction from 0 to 1, not {max_wrong}.")
        self.max_wrong = max_wrong
        super().__init__(evaluation_dir, provenance, score)

    def _found(self, file: Path, advice: str) -> Mapping[str, Any] | None:
        try:
            table = pd.read_csv(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({plain_reason(error)}); {advice}.") from None
        scores = [str(name) for name in table.select_dtypes("number").columns if name != _RIGHT]
        if _RIGHT not in table:
            raise UserError(f"{file} lacks the column {_RIGHT}; {advice}.")
        if self.score not in scores:
            raise UserError(
                f"flagging_rule::score is {self.score!r}, which {file} lacks{suggestion(self.score, scores)}"
            )
        found = flagging_threshold(table[self.score], table[_RIGHT].astype(float), 0.5, self.max_wrong)
        return {"value": found.threshold, "flag": "above"}
