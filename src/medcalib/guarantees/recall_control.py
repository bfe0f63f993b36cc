"""Outer sets that miss little of a class: conformal risk control of the false-negative rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medcalib.functional import controlled_index, set_losses, set_thresholds
from medcalib.guarantees.guarantee import Fitted, Guarantee, GuaranteeCase, Sets
from medcalib.guarantees.voxel_sets import missed_shares, set_volumes, within

__all__ = ["RecallControl"]


class RecallControl(Guarantee):
    """Per class an outer set of voxels that misses at most ``alpha`` of the class, on average over cases.

    The set holds the voxels whose probability is not below a threshold, and those of the segmentation. The threshold is
    the largest one that keeps the false-negative rate of a case, the share of its voxels that is missed, at ``alpha``
    on average over calibration cases and the new one (conformal risk control; Angelopoulos et al., arXiv:2208.02814).
    Cases without the class do not count. The mean is not below alpha - 2 / (n + 1) either, unless the segmentation
    alone misses less.

    Args:
        class_names: names of the classes, C.
        alpha: share of a class that may be missed, in (0, 1).
        min_group_cases: the number of cases from which on a group gets a threshold of its own.

    Raises:
        UserError: ``alpha`` is out of range.

    Example:
        >>> guarantee = RecallControl(["organ"], alpha=0.2)
        >>> probs, target = torch.tensor([[0.9, 0.6, 0.3, 0.0]]), torch.tensor([[1, 1, 1, 0]])
        >>> case = GuaranteeCase("case_1", probs, segmentation=probs > 0.5, target=target, spacing=(1.0,))
        >>> guarantee.fit([guarantee.observe(case)] * 19)
        >>> guarantee.sets(case)["outer"], guarantee.losses(case)
        (tensor([[ True,  True,  True, False]]), tensor([0.], dtype=torch.float64))
    """

    kind = "recall_control"
    counted_cases = "calibration cases that have the class"
    loss_name = "share of the class that is missed"

    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """Missed share of every class at every threshold, (C, T)."""
        return {"missed": set_losses(raised(case), case.known_target(), set_thresholds(), case.mask)[0]}

    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """The threshold of a class, and the mean loss of the calibration cases there."""
        losses = values["missed"].sort(dim=0).values
        index = controlled_index(losses, self.alpha)
        return {"threshold": set_thresholds()[index].item(), "calibration_risk": losses[:, index].mean().item()}

    def sets(self, case: GuaranteeCase) -> Sets:
        """``outer`` (C, ...), bool."""
        probs = raised(case)
        thresholds = self.per_unit(case, lambda fitted: fitted["threshold"]).to(probs)
        return {"outer": within(probs >= thresholds.reshape(-1, *[1] * (probs.ndim - 1)), case.mask)}

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """Volume of the outer set of each class, in ml."""
        return set_volumes(self.class_names, "outer", (sets or self.sets(case))["outer"], case.spacing)

    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """Share of each class that the outer set misses, (C,); NaN where the case does not have it."""
        return missed_shares((sets or self.sets(case))["outer"], case.known_target(), case.mask)

    def promise(self) -> str:
        """What is promised, in plain words."""
        return f"at most {100 * self.alpha:g} % of the class is missed by the outer set, on average over cases"

    def notes(self) -> list[str]:
        """Besides those on groups: the classes whose outer set is everything."""
        full = [name for name in self.class_names if self.fitted(name)["threshold"] == 0]
        told = "the outer set is the whole image in every case, since no threshold above 0 keeps the level"
        return [*(f"{name}: {told}." for name in full), *super().notes()]


def raised(case: GuaranteeCase) -> Tensor:
    """Probabilities (C, ...), float32, that are 1 in the segmentation, so that it is in every set."""
    probs = case.known_probs()
    return probs if case.segmentation is None else torch.where(case.segmentation.bool(), 1.0, probs)
