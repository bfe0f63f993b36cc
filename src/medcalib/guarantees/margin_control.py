"""Margins in mm around segmentations that miss little of a class, from masks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional import controlled_index
from medcalib.guarantees.guarantee import Fitted, Guarantee, GuaranteeCase, Sets
from medcalib.guarantees.margins import grown, margin_losses
from medcalib.guarantees.voxel_sets import missed_shares, set_volumes, within

__all__ = ["MarginControl"]


class MarginControl(Guarantee):
    """Per class a margin in mm by which segmentations are grown, so that at most ``alpha`` of it is missed on average.

    The margin is the smallest one that keeps the loss of a case at ``alpha`` on average over calibration cases and the
    new one (conformal risk control, Angelopoulos et al., arXiv:2208.02814, over the distances of morphological
    prediction sets, Mossina and Friedrich, arXiv:2503.05618). The loss is the share of the class's voxels that is
    missed. With ``min_covered`` it is 1 if less than this share is covered, else 0, so that all but ``alpha`` of the
    cases are covered by so much, as in the latter paper.

    It looks at no probabilities. No margin mends a class that a case has and whose segmentation is empty: its loss
    stays 1. Cases without the class do not count.

    Args:
        class_names: names of the classes, C.
        alpha: share of a class, or of cases, that may be missed, in (0, 1).
        min_covered: share of the class that must be covered, in (0, 1]; None for the mean over cases.
        step: difference of neighbouring margins, in mm.
        max_margin: the largest margin, in mm.
        min_group_cases: the number of cases from which on a group gets a margin of its own.

    Raises:
        UserError: an argument is out of range.

    Example:
        >>> guarantee = MarginControl(["organ"], alpha=0.2)
        >>> target = torch.tensor([[0, 1, 1, 1, 1]])
        >>> case = GuaranteeCase("1", segmentation=torch.tensor([[0, 0, 1, 0, 0]]), target=target, spacing=(1.5,))
        >>> guarantee.fit([guarantee.observe(case)] * 19)
        >>> guarantee.values(case)["organ_margin_mm"], guarantee.sets(case)["outer"].int()
        (3.0, tensor([[1, 1, 1, 1, 1]], dtype=torch.int32))
    """

    kind = "margin_control"
    counted_cases = "calibration cases that have the class"

    def __init__(
        self,
        class_names: Sequence[str],
        alpha: float = 0.1,
        min_covered: float | None = None,
        step: float = 0.25,
        max_margin: float = 50.0,
        min_group_cases: int = 20,
    ) -> None:
        super().__init__(class_names, alpha, min_group_cases)
        if min_covered is not None and not 0 < min_covered <= 1:
            raise UserError(
                f"min_covered of the guarantee is {min_covered!r}: it must be null or a number above 0 and at most 1."
            )
        if not 0 < step <= max_margin:
            raise UserError(f"step of the guarantee is {step!r}: it must be above 0 and not above max_margin.")
        self.min_covered = None if min_covered is None else float(min_covered)
        self.step = float(step)
        self.max_margin = float(max_margin)

    @property
    def binary_losses(self) -> bool:  # type: ignore[override]
        """Whether a loss is either 0 or 1."""
        return self.min_covered is not None

    @property
    def loss_name(self) -> str:  # type: ignore[override]
        """What `losses` are."""
        if self.min_covered is None:
            return "share of the class that is missed"
        return f"less than {100 * self.min_covered:g} % of the class is covered"

    @property
    def margins(self) -> Tensor:
        """The margins in mm among which one is found, ascending (T,), float64."""
        return torch.arange(int(self.max_margin / self.step + 1e-9) + 1, dtype=torch.float64) * self.step

    def settings(self) -> dict[str, Any]:
        """What the guarantee was made with."""
        return {
            **super().settings(),
            "min_covered": self.min_covered,
            "step": self.step,
            "max_margin": self.max_margin,
        }

    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """Loss of every class at every margin, (C, T)."""
        missed = margin_losses(case.known_segmentation(), case.known_target(), self.margins, case.spacing, case.mask)
        return {"losses": self._losses(missed)}

    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """The margin of a class, and the mean loss of the calibration cases there."""
        # the largest margin, the safest, stands first
        losses = values["losses"].sort(dim=0).values.flip(1)
        number = len(losses)
        if (float(losses[:, 0].sum()) + 1) / (number + 1) > self.alpha + 1e-12:
            raise UserError(
                f"has a mean loss of {losses[:, 0].mean().item():.3g} in {number} calibration cases even with a margin "
                f"of {self.max_margin:g} mm ({int((losses[:, 0] == 1).sum())} of them have a loss of 1, as where "
                f"nothing is segmented, which no margin mends): allow a larger alpha or improve the segmentation"
            )
        index = controlled_index(losses, self.alpha)
        margin = self.margins.flip(0)[index].item()
        return {"margin_mm": margin, "calibration_risk": losses[:, index].mean().item()}

    def sets(self, case: GuaranteeCase) -> Sets:
        """``outer`` (C, ...), bool."""
        margins = self.per_unit(case, lambda fitted: fitted["margin_mm"]).tolist()
        return {"outer": within(grown(case.known_segmentation(), margins, case.spacing), case.mask)}

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """Margin of each class in mm, and the volume of the outer set in ml."""
        margins = self.per_unit(case, lambda fitted: fitted["margin_mm"]).tolist()
        return {
            **{f"{name}_margin_mm": margin for name, margin in zip(self.class_names, margins, strict=True)},
            **set_volumes(self.class_names, "outer", (sets or self.sets(case))["outer"], case.spacing),
        }

    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """Loss of each class, (C,); NaN where the case does not have it."""
        return self._losses(missed_shares((sets or self.sets(case))["outer"], case.known_target(), case.mask))

    def promise(self) -> str:
        """What is promised, in plain words."""
        if self.min_covered is None:
            return f"at most {100 * self.alpha:g} % of the class is missed by the grown mask, on average over cases"
        return (
            f"the grown mask covers {100 * self.min_covered:g} % of the class or more, in all but {100 * self.alpha:g} "
            f"% of cases"
        )

    def _losses(self, missed: Tensor) -> Tensor:
        if self.min_covered is None:
            return missed
        too_much = (missed > 1 - self.min_covered + 1e-9).double()
        return torch.where(missed.isnan(), missed, too_much)
