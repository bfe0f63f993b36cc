"""Which cases to send to a human, so that few of the others are poor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional import binomial_p_values, fixed_sequence, num_cases_to_reject
from medcalib.guarantees.guarantee import Fitted, Guarantee, GuaranteeCase, Sets

__all__ = ["PassingRule", "SelectiveControl", "passing_rule"]

SCORE = "score:"


class PassingRule(NamedTuple):
    """A case passes if its score is below a threshold.

    Attributes:
        threshold: infinity if all cases with a known score pass.
        passed: calibration cases that pass.
        poor: those of them that are poor.

    Example:
        >>> PassingRule(0.5, passed=60, poor=0).threshold
        0.5
    """

    threshold: float
    passed: int
    poor: int


def passing_rule(scores: Tensor, poor: Tensor, max_poor: float, delta: float) -> PassingRule | None:
    """The rule that lets the most cases pass of which at most ``max_poor`` are poor.

    Thresholds are the scores themselves. Given one, the cases below it are independent draws from all that are, so the
    number of poor ones among them has an exact binomial p-value. They are tested from the first below which there are
    cases enough to reject anything, and on until one is not rejected (fixed-sequence testing). Where scores start is no
    choice, since it depends on their number alone.

    The share of poor cases among all that pass is at most ``max_poor`` with a probability of at least 1 - ``delta``, if
    that share, as a function of the threshold, crosses ``max_poor`` at most once: if poor cases get more frequent with
    rising scores, or less, or if scores know nothing. If it crosses more often, the first false claim in the order of
    the tests depends on the scores, and the probability is near 1 - ``delta``.

    Args:
        scores: of calibration cases (n,), high ones are uncertain; NaN never passes.
        poor: whether a case is poor, (n,).
        max_poor: share of poor cases that is allowed, in (0, 1).
        delta: probability of an error, in (0, 1).

    Returns:
        The rule, or None if no case can pass.

    Example:
        >>> scores = torch.arange(100.0)
        >>> passing_rule(scores, scores >= 70, max_poor=0.05, delta=0.05)
        PassingRule(threshold=70.0, passed=70, poor=0)
    """
    known = ~scores.isnan()
    scores, order = scores[known].double().sort()
    events = poor[known].bool()[order].double().cumsum(0)
    thresholds = torch.cat([scores.unique(), torch.tensor([float("inf")], dtype=torch.float64)])
    below = torch.searchsorted(scores, thresholds)
    tested = below >= num_cases_to_reject(max_poor, delta)
    thresholds, below = thresholds[tested], below[tested]
    if not len(below):
        return None
    counts = events[below - 1]
    index = fixed_sequence(binomial_p_values(counts, below.double(), max_poor), delta)
    return None if index is None else PassingRule(thresholds[index].item(), int(below[index]), int(counts[index]))


class SelectiveControl(Guarantee):
    """Lets cases pass of which at most ``max_poor`` are poor with a probability of 1 - delta, and flags the others.

    A case is poor if its mean Dice is below ``poor_below``. It passes if its uncertainty score is below a threshold
    (`passing_rule`; learn-then-test, Angelopoulos et al., arXiv:2110.01052; selective classification, Geifman and
    El-Yaniv, arXiv:1705.08500). A case whose score is not known never passes. With a probability of at least 1 -
    ``delta`` over calibration cases, at most ``max_poor`` of the new cases that pass are poor.

    Of several scores that one is taken which lets the most calibration cases pass. Since they are compared on the cases
    on which the promise is fitted, each is tested at ``delta`` divided by their number (Bonferroni), so that the
    promise holds for whichever is taken; the fewer there are, the more cases can pass. Scores that no calibration case
    has do not count. If no score lets cases pass, all are sent to a human.

    Args:
        class_names: names of the classes, C.
        max_poor: share of the passing cases that may be poor, in (0, 1).
        delta: probability that more are poor, in (0, 1).
        poor_below: Dice below which a case is poor.
        scores: names of the scores to choose from, of which ties take the first.
        min_group_cases: the number of cases from which on a group gets a rule of its own.

    Raises:
        UserError: ``max_poor`` or ``delta`` is out of range, or there are no scores.

    Example:
        >>> guarantee = SelectiveControl(["organ"], max_poor=0.1, poor_below=0.5, scores=["entropy"])
        >>> cases = [GuaranteeCase(str(n), scores={"entropy": n / 100}, dice=1 - n / 100) for n in range(100)]
        >>> guarantee.fit([guarantee.observe(case) for case in cases])
        >>> guarantee.notes()
        ['a case passes by its score entropy: 52 of 100 did, 1 of them poor.']
        >>> guarantee.values(cases[60])
        {'send_to_human': True, 'score': 'entropy', 'score_value': 0.6}
    """

    kind = "selective_control"
    loss_name = "share of the passing cases that is poor"
    binary_losses = True
    default_scores: tuple[str, ...] = ("entropy_foreground_mean", "pairwise_dice")

    def __init__(
        self,
        class_names: Sequence[str],
        max_poor: float = 0.05,
        delta: float = 0.05,
        poor_below: float = 0.8,
        scores: Sequence[str] | None = None,
        min_group_cases: int = 20,
    ) -> None:
        self.max_poor = self.check_share("max_poor", max_poor)
        super().__init__(class_names, max_poor, min_group_cases)
        self.delta = self.check_share("delta", delta)
        self.poor_below = float(poor_below)
        self.scores = tuple(dict.fromkeys(self.default_scores if scores is None else scores))
        if not self.scores:
            raise UserError("scores of the guarantee is empty: give the name of one uncertainty score at least.")

    @property
    def unit_names(self) -> tuple[str, ...]:
        """One promise, on cases."""
        return ("cases",)

    @property
    def level_key(self) -> str:
        """Name of the setting that is the level."""
        return "max_poor"

    @property
    def num_cases_needed(self) -> int:
        """The number of calibration cases without a poor one that a single score needs."""
        return num_cases_to_reject(self.max_poor, self.given_delta)

    def settings(self) -> dict[str, Any]:
        """What the guarantee was made with."""
        return {
            "class_names": list(self.class_names),
            "max_poor": self.max_poor,
            "delta": self.delta,
            "poor_below": self.poor_below,
            "scores": list(self.scores),
            "min_group_cases": self.min_group_cases,
        }

    def poor(self, case: GuaranteeCase) -> float:
        """1 for a poor case, 0 for another one, NaN where it is not known."""
        return float(case.dice < self.poor_below) if case.dice == case.dice else float("nan")

    def case_scores(self, case: GuaranteeCase) -> Mapping[str, float]:
        """Scores of a case by name."""
        return case.scores

    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """The scores of a case, and whether it is poor."""
        known = self.case_scores(case)
        scores: dict[str, Tensor | float] = {SCORE + name: float(known.get(name, "nan")) for name in self.scores}
        return {**scores, "poor": self.poor(case)}

    def counted(self, values: Mapping[str, Tensor]) -> Tensor:
        """All cases of which it is known whether they are poor count."""
        return ~values["poor"].flatten().isnan()

    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """The score and the threshold, None for infinity; no score if no case can pass."""
        scores = {name: values[SCORE + name].flatten() for name in self.scores}
        scores = {name: column for name, column in scores.items() if not bool(column.isnan().all())}
        if not scores:
            raise UserError(
                f"needs an uncertainty score, and no calibration case has any of {', '.join(self.scores)}: name others "
                f"as scores"
            )
        poor = values["poor"].flatten() > 0
        share = self.given_delta / len(scores)
        if len(poor) < (needed := num_cases_to_reject(self.max_poor, share)):
            raise UserError(
                f"needs {needed} calibration cases to choose among {len(scores)} scores, and there are {len(poor)}: "
                f"name fewer scores, add cases to the calibration split or allow a larger max_poor"
            )
        rules = {name: passing_rule(column, poor, self.max_poor, share) for name, column in scores.items()}
        found = {name: rule for name, rule in rules.items() if rule is not None}
        if not found:
            return {"score": None, "threshold": None, "passed": 0, "poor": 0, "calibration_risk": None}
        name = max(found, key=lambda one: found[one].passed)
        rule = found[name]
        return {
            "score": name,
            "threshold": None if rule.threshold == float("inf") else rule.threshold,
            "passed": rule.passed,
            "poor": rule.poor,
            "calibration_risk": rule.poor / rule.passed,
        }

    def passes(self, case: GuaranteeCase) -> bool:
        """Whether a case need not be sent to a human."""
        fitted = self.fitted("cases", case.group)
        value = self._value(case, fitted)
        return value == value and (fitted["threshold"] is None or value < fitted["threshold"])

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """Whether to send the case to a human, and its score."""
        fitted = self.fitted("cases", case.group)
        sent = not self.passes(case)
        return {"send_to_human": sent, "score": fitted["score"], "score_value": self._value(case, fitted)}

    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """Whether a passing case is poor, (1,), 0 or 1; NaN for a case that is sent to a human."""
        return torch.tensor([self.poor(case) if self.passes(case) else float("nan")], dtype=torch.float64)

    def promise(self) -> str:
        """What is promised, in plain words."""
        return (
            f"at most {100 * self.max_poor:g} % of the cases that pass are poor (Dice below {self.poor_below:g}), with "
            f"a confidence of {100 * (1 - self.given_delta):g} %"
        )

    def notes(self) -> list[str]:
        """Besides those on groups: the score that was chosen, from how many, and that no case passes, if so."""
        fitted = self.fitted("cases")
        if fitted["score"] is None:
            return ["no score lets any case pass at this level: every case is sent to a human.", *super().notes()]
        among = f" among {len(self.scores)}, on the calibration cases" if len(self.scores) > 1 else ""
        chosen = (
            f"a case passes by its score {fitted['score']}{among}: {fitted['passed']} of {fitted['num_cases']} did, "
            f"{fitted['poor']} of them poor."
        )
        return [chosen, *super().notes()]

    def _value(self, case: GuaranteeCase, fitted: Fitted) -> float:
        return float("nan") if fitted["score"] is None else float(self.case_scores(case).get(fitted["score"], "nan"))
