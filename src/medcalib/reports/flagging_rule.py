"""Flag a case by the threshold that the evaluation of its bundle found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.errors import UserError, suggestion
from medcalib.files.writing import read_json
from medcalib.keys import EvaluationSpace

__all__ = ["Flag", "FlaggingRule"]

_SAME = ("bundle_digest", "checkpoint_digest", "calibrator")


class Flag(NamedTuple):
    """Whether a case should be looked at: True or False, None where nobody can tell, and why."""

    flagged: bool | None
    reason: str


class FlaggingRule:
    """The threshold of one score in ``quality_control.json``, of an evaluation with the same weights.

    Args:
        evaluation_dir: folder of the evaluation.
        provenance: what produces the predictions, as of `medcalib.reports.collect_provenance`.
        score: which score.

    Attributes:
        space: grid on which the evaluation found its scores.
        file: name of the file of the evaluation that says what is needed for a threshold.

    Raises:
        UserError: the evaluation is damaged, or has no such score.

    Example:
        >>> FlaggingRule("no/such/folder", {}).flag({"entropy_foreground_mean": 0.1}).flagged is None
        True
    """

    file = "quality_control.json"

    def __init__(
        self, evaluation_dir: str | Path, provenance: Mapping[str, Any], score: str = "entropy_foreground_mean"
    ) -> None:
        self.score = score
        self.space = EvaluationSpace.RESAMPLED.value
        self._threshold: Mapping[str, Any] | None = None
        self.lacking = ""
        folder = Path(evaluation_dir)
        file, origin = folder / self.file, folder / "provenance.json"
        if not file.exists() or not origin.exists():
            self.lacking = "this bundle was not evaluated, so there is no threshold; run it with --mode inference_eval"
            return
        advice = "evaluate the bundle again with --mode inference_eval"
        before = read_json(origin, advice)
        self.space = before.get("space", self.space)
        if other := [key for key in _SAME if before.get(key) != provenance.get(key)]:
            self.lacking = f"the evaluation has another {other[0]}, so its threshold is not that of these predictions"
            return
        threshold = self._found(file, advice)
        if threshold is None or threshold.get("value") is None or math.isnan(threshold["value"]):
            self.lacking = "the evaluation found no threshold on calibration cases"
            return
        self._threshold = threshold

    def _found(self, file: Path, advice: str) -> Mapping[str, Any] | None:
        """The threshold of the score, as ``value``, and on which side of it cases are flagged."""
        scores = read_json(file, advice)["scores"]
        if self.score not in scores:
            raise UserError(
                f"flagging_rule::score is {self.score!r}, which {file} lacks{suggestion(self.score, list(scores))}"
            )
        return scores[self.score].get("threshold")

    def flag(self, scores: Mapping[str, float]) -> Flag:
        """Apply the rule.

        Args:
            scores: scores of a case by name; NaN where there is none, which is flagged.
        """
        if self._threshold is None:
            return Flag(None, self.lacking)
        value, limit = scores[self.score], self._threshold["value"]
        if math.isnan(value):
            return Flag(True, f"no foreground was predicted, so {self.score} is unknown")
        below = self._threshold["flag"] == "below"
        flagged = value < limit if below else value > limit
        side = ("below" if below else "above") if flagged else ("not below" if below else "not above")
        return Flag(flagged, f"{self.score} {value:.4g} is {side} {limit:.4g}")
