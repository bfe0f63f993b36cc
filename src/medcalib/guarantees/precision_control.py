"""Inner sets of which little is wrong: learn-then-test control of the false-discovery rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medcalib.functional import (
    fixed_sequence,
    hoeffding_bentkus_p_values,
    num_cases_to_reject,
    set_losses,
    set_thresholds,
)
from medcalib.guarantees.guarantee import Fitted, Guarantee, GuaranteeCase, Sets
from medcalib.guarantees.voxel_sets import set_volumes, within, wrong_shares

__all__ = ["PrecisionControl"]

EMPTY = 2.0


class PrecisionControl(Guarantee):
    """Per class an inner set of voxels of which at most ``alpha`` is wrong on average, with a probability of 1 - delta.

    The set holds the voxels of the segmentation whose probability is not below a threshold. The false-discovery rate of
    a case, the share of its set that is not of the class, need not fall as the threshold rises, so thresholds are
    tested one after the other, from the empty set on, each with the Hoeffding-Bentkus p-value of the hypothesis that
    the mean rate is above alpha, until one is not rejected (learn-then-test with a fixed sequence; Angelopoulos et al.,
    arXiv:2110.01052). With a probability of at least 1 - ``delta`` over calibration cases, the mean rate of new cases
    is at most alpha.

    All cases count, also those without the class: what is drawn there is wrong. The rate of an empty set is 0.

    Args:
        class_names: names of the classes, C.
        alpha: share of a set that may be wrong, in (0, 1).
        delta: probability that more is wrong, in (0, 1).
        min_group_cases: the number of cases from which on a group gets a threshold of its own.

    Raises:
        UserError: ``alpha`` or ``delta`` is out of range.

    Example:
        >>> guarantee = PrecisionControl(["organ"], alpha=0.2)
        >>> probs, target = torch.tensor([[0.9, 0.8, 0.6, 0.0]]), torch.tensor([[1, 1, 0, 0]])
        >>> case = GuaranteeCase("case_1", probs, segmentation=probs > 0.5, target=target, spacing=(1.0,))
        >>> guarantee.fit([guarantee.observe(case)] * 40)
        >>> guarantee.sets(case)["inner"], guarantee.losses(case)
        (tensor([[ True,  True, False, False]]), tensor([0.], dtype=torch.float64))
    """

    kind = "precision_control"
    loss_name = "share of the inner set that is wrong"

    def __init__(
        self, class_names: Sequence[str], alpha: float = 0.1, delta: float = 0.05, min_group_cases: int = 20
    ) -> None:
        super().__init__(class_names, alpha, min_group_cases)
        self.delta = self.check_share("delta", delta)

    @property
    def num_cases_needed(self) -> int:
        """The number of cases with which even the empty set can pass its test."""
        return num_cases_to_reject(self.alpha, self.given_delta)

    def settings(self) -> dict[str, Any]:
        """What the guarantee was made with."""
        return {**super().settings(), "delta": self.delta}

    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """Wrong share of every class's set at every threshold, (C, T)."""
        return {"wrong": set_losses(lowered(case), case.known_target(), set_thresholds(), case.mask)[1]}

    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """The threshold of a class, above 1 for the empty set, and the mean loss of the calibration cases there."""
        wrong = values["wrong"].sort(dim=0).values
        losses = torch.cat([wrong, wrong.new_zeros(len(wrong), 1)], 1).flip(1)
        thresholds = torch.cat([set_thresholds(), torch.tensor([EMPTY])]).flip(0)
        # the empty set is never wrong, whatever a test says
        index = fixed_sequence(hoeffding_bentkus_p_values(losses, self.alpha), self.given_delta) or 0
        return {"threshold": thresholds[index].item(), "calibration_risk": losses[:, index].mean().item()}

    def sets(self, case: GuaranteeCase) -> Sets:
        """``inner`` (C, ...), bool."""
        probs = lowered(case)
        thresholds = self.per_unit(case, lambda fitted: fitted["threshold"]).to(probs)
        return {"inner": within(probs >= thresholds.reshape(-1, *[1] * (probs.ndim - 1)), case.mask)}

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """Volume of the inner set of each class, in ml."""
        return set_volumes(self.class_names, "inner", (sets or self.sets(case))["inner"], case.spacing)

    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """Share of each inner set that is not of its class, (C,); 0 for empty sets."""
        return wrong_shares((sets or self.sets(case))["inner"], case.known_target(), case.mask)

    def promise(self) -> str:
        """What is promised, in plain words."""
        return (
            f"at most {100 * self.alpha:g} % of the inner set is not of the class, on average over cases, with a "
            f"confidence of {100 * (1 - self.given_delta):g} %"
        )

    def notes(self) -> list[str]:
        """Besides those on groups: the classes whose inner set is empty in every case."""
        empty = [name for name in self.class_names if self.fitted(name)["threshold"] == EMPTY]
        told = "the inner set is empty in every case, since no threshold is sure to keep the level"
        return [*(f"{name}: {told}." for name in empty), *super().notes()]


def lowered(case: GuaranteeCase) -> Tensor:
    """Probabilities (C, ...), float32, that are negative outside the segmentation, so that no set goes beyond it."""
    probs = case.known_probs()
    return probs if case.segmentation is None else torch.where(case.segmentation.bool(), probs, -1.0)
