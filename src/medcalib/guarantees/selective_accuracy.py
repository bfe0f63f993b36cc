"""Which classified images to send to a human, so that few of the others are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medcalib.guarantees.guarantee import GuaranteeCase
from medcalib.guarantees.selective_control import SelectiveControl

__all__ = ["SelectiveAccuracy"]


class SelectiveAccuracy(SelectiveControl):
    """Lets images pass of which at most ``alpha`` are classified wrongly with a probability of 1 - delta.

    As `SelectiveControl`, where an image is poor if its most probable class is wrong. Besides the scores of the cases
    there is ``least_confidence``, one minus the largest probability, which is the default.

    Args:
        class_names: names of the classes, C.
        alpha: share of the passing images that may be wrong, in (0, 1).
        delta: probability that more are wrong, in (0, 1).
        scores: names of the scores to choose from, of which ties take the first.
        min_group_cases: the number of cases from which on a group gets a rule of its own.

    Raises:
        UserError: ``alpha`` or ``delta`` is out of range, or there are no scores.

    Example:
        >>> import torch
        >>> guarantee = SelectiveAccuracy(["benign", "malign"], alpha=0.1)
        >>> target = torch.tensor([True, False])
        >>> cases = [GuaranteeCase(str(n), torch.tensor([n / 60, 1 - n / 60]), target=target) for n in range(61)]
        >>> guarantee.fit([guarantee.observe(cases[60])] * 40)
        >>> guarantee.values(cases[60])["send_to_human"], guarantee.losses(cases[60])
        (False, tensor([0.], dtype=torch.float64))
    """

    kind = "selective_accuracy"
    loss_name = "share of the passing images that is wrong"
    default_scores = ("least_confidence",)

    def __init__(
        self,
        class_names: Sequence[str],
        alpha: float = 0.05,
        delta: float = 0.05,
        scores: Sequence[str] | None = None,
        min_group_cases: int = 20,
    ) -> None:
        self.check_share("alpha", alpha)
        super().__init__(class_names, alpha, delta, scores=scores, min_group_cases=min_group_cases)

    @property
    def level_key(self) -> str:
        """Name of the setting that is the level."""
        return "alpha"

    def settings(self) -> dict[str, Any]:
        """What the guarantee was made with."""
        settings = super().settings()
        del settings["poor_below"]
        return {("alpha" if key == "max_poor" else key): value for key, value in settings.items()}

    def poor(self, case: GuaranteeCase) -> float:
        """1 if the most probable class is wrong, 0 if it is right."""
        return float(not case.known_target()[case.known_probs().argmax()])

    def case_scores(self, case: GuaranteeCase) -> Mapping[str, float]:
        """Scores of a case by name, with ``least_confidence``."""
        return {"least_confidence": 1 - case.known_probs().max().item(), **case.scores}

    def promise(self) -> str:
        """What is promised, in plain words."""
        return (
            f"at most {100 * self.alpha:g} % of the images that pass are classified wrongly, with a confidence of "
            f"{100 * (1 - self.given_delta):g} %"
        )
