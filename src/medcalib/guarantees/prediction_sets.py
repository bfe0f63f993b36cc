"""Sets of classes that hold the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional import adaptive_scores, conformal_quantile
from medcalib.guarantees.guarantee import Fitted, Guarantee, GuaranteeCase, Observed, Sets

__all__ = ["PredictionSets"]


class PredictionSets(Guarantee):
    """A set of classes for each image, which holds the true one in all but ``alpha`` of the images.

    It holds the most probable class, and all whose adaptive score is not above a conformal quantile (APS, Romano et
    al., arXiv:2006.02544; with a penalty RAPS, Angelopoulos et al., arXiv:2009.14193). ``class_conditional`` finds a
    quantile for each class of which there are ``min_group_cases``, so that the promise holds for images of each of
    them; other classes share the quantile of all images.

    Args:
        class_names: names of the exclusive classes, C.
        alpha: share of the images whose set may lack the true class, in (0, 1).
        penalty: what each class beyond the first ``free_classes`` adds to the score, as of
            `medcalib.functional.adaptive_scores`.
        free_classes: number of classes without a penalty.
        class_conditional: promise it for the images of each class.
        min_group_cases: the number of cases from which on a group, or class, gets a quantile of its own.

    Raises:
        UserError: ``alpha`` is out of range, or the penalty is negative.

    Example:
        >>> guarantee = PredictionSets(["a", "b", "c"], alpha=0.2)
        >>> case = GuaranteeCase("1", torch.tensor([0.5, 0.3, 0.2]), target=torch.tensor([False, True, False]))
        >>> guarantee.fit([guarantee.observe(case)] * 19)
        >>> guarantee.values(case), guarantee.losses(case)
        ({'prediction_set': 'a|b', 'set_size': 2}, tensor([0.], dtype=torch.float64))
    """

    kind = "prediction_sets"
    loss_name = "the set lacks the true class"
    binary_losses = True

    def __init__(
        self,
        class_names: Sequence[str],
        alpha: float = 0.1,
        penalty: float = 0.0,
        free_classes: int = 1,
        class_conditional: bool = False,
        min_group_cases: int = 20,
    ) -> None:
        super().__init__(class_names, alpha, min_group_cases)
        if penalty < 0 or free_classes < 0:
            raise UserError("penalty and free_classes of the guarantee must not be negative.")
        self.penalty = float(penalty)
        self.free_classes = int(free_classes)
        self.class_conditional = bool(class_conditional)

    @property
    def unit_names(self) -> tuple[str, ...]:
        """One promise, on cases."""
        return ("cases",)

    def settings(self) -> dict[str, Any]:
        """What the guarantee was made with."""
        return {
            **super().settings(),
            "penalty": self.penalty,
            "free_classes": self.free_classes,
            "class_conditional": self.class_conditional,
        }

    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """The true class, and its score."""
        true = self._true(case)
        return {"score": self._scores(case)[true].item(), "class": float(true)}

    def fit(self, observed: Sequence[Observed], groups: Sequence[str | None] | None = None) -> None:
        """As of `Guarantee`; with ``class_conditional`` the classes are the groups.

        Raises:
            UserError: there are groups besides the classes, or the level cannot be had.
        """
        if self.class_conditional:
            if groups is not None and any(group is not None for group in groups):
                raise UserError(
                    "prediction_sets with class_conditional has the classes as groups: set group_by to null, or "
                    "class_conditional to false."
                )
            groups = [self.class_names[int(one["class"])] for one in observed]
        super().fit(observed, groups)

    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """The largest score of a class that is in a set, and the share of calibration cases whose class is above."""
        scores = values["score"].flatten()
        level = conformal_quantile(scores, self.alpha)
        return {"largest_score": level, "calibration_risk": (scores > level).double().mean().item()}

    def group_of(self, case: GuaranteeCase) -> str | None:
        """With ``class_conditional`` the true class."""
        return self.class_names[self._true(case)] if self.class_conditional else super().group_of(case)

    def prediction_set(self, case: GuaranteeCase) -> Tensor:
        """Which classes are in the set of a case, (C,), bool."""
        groups = self.class_names if self.class_conditional else [case.group] * len(self.class_names)
        largest = torch.tensor([self.fitted("cases", group)["largest_score"] for group in groups], dtype=torch.float64)
        held = self._scores(case) <= largest
        held[case.known_probs().argmax()] = True
        return held

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """Names of the classes in the set of a case, and how many they are."""
        held = self.prediction_set(case).tolist()
        names = [name for name, is_in in zip(self.class_names, held, strict=True) if is_in]
        return {"prediction_set": "|".join(names), "set_size": len(names)}

    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """1 if the set lacks the true class, else 0, (1,)."""
        return (~self.prediction_set(case)[self._true(case)]).double().reshape(1)

    def promise(self) -> str:
        """What is promised, in plain words."""
        of = "for the images of each class, " if self.class_conditional else ""
        return f"{of}the set holds the true class in all but {100 * self.alpha:g} % of cases"

    def _scores(self, case: GuaranteeCase) -> Tensor:
        return adaptive_scores(case.known_probs().cpu()[None].clamp(0, 1), self.penalty, self.free_classes)[0]

    def _true(self, case: GuaranteeCase) -> int:
        true = case.known_target().flatten().nonzero().flatten().tolist()
        if len(true) != 1:
            raise UserError(
                f"Case {case.case} has {len(true)} classes: prediction_sets needs exactly one, use classes that "
                f"exclude each other."
            )
        return int(true[0])
