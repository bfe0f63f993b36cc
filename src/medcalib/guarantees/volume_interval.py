"""Intervals of the volumes of classes: split conformal prediction, scaled by the predicted spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medcalib.functional import conformal_quantile
from medcalib.functional.inputs import plain
from medcalib.guarantees.guarantee import Fitted, Guarantee, GuaranteeCase, Sets
from medcalib.guarantees.voxel_sets import millilitres, within

__all__ = ["PredictedVolumes", "VolumeInterval", "predicted_volumes"]

# below it a probability hardly changes the spread, and most voxels are
SMALLEST = 1e-3
RELATIVE = 0.01


class PredictedVolumes(NamedTuple):
    """Volumes of classes as probabilities have them, in voxels.

    Attributes:
        expected: sum of the probabilities, (C,), float64.
        spread: in (0, inf), (C,), float64.

    Example:
        >>> predicted_volumes(torch.tensor([[1.0, 0.0]]))
        PredictedVolumes(expected=tensor([1.], dtype=torch.float64), spread=tensor([1.0100], dtype=torch.float64))
    """

    expected: Tensor
    spread: Tensor


def predicted_volumes(probs: Tensor) -> PredictedVolumes:
    """Expected size of each class, and how far it may be from it.

    Were voxels independent, the size would be known almost exactly. The spread is the standard deviation at the other
    extreme, where a class grows and shrinks as a whole along the level sets of its probabilities (comonotonic voxels,
    as `medcalib.functional.class_volumes` has them): with the probabilities in falling order, its square is
    sum (2 k - 1) p_k - (sum p_k)^2. It does not count probabilities below 0.001, and 1 % of the expected size and one
    voxel are added, so that it is never 0, and no prediction is so sure of itself that its interval has no width.

    Args:
        probs: probabilities of one case (C, ...).

    Returns:
        Sizes in voxels.

    Example:
        >>> predicted_volumes(torch.tensor([[0.5] * 100])).spread
        tensor([51.5000], dtype=torch.float64)
    """
    expected, spreads = [], []
    for values in plain(probs).flatten(1):
        expected.append(values.sum(dtype=torch.float64))
        likely = values[values >= SMALLEST].double().sort(descending=True).values
        odd = 2 * torch.arange(1, len(likely) + 1, dtype=torch.float64, device=likely.device) - 1
        variance = (odd * likely).sum() - likely.sum().square()
        spreads.append(variance.clamp(min=0).sqrt() + RELATIVE * expected[-1] + 1)
    return PredictedVolumes(torch.stack(expected).cpu(), torch.stack(spreads).cpu())


class VolumeInterval(Guarantee):
    """Per class an interval in ml that holds its volume in all but ``alpha`` of the cases.

    The interval lies around the expected volume, the sum of the probabilities, on each side as many times the
    predicted spread (`predicted_volumes`) as the volumes of all but alpha of the calibration cases and the new one are
    away (split conformal prediction, Lei et al., arXiv:1604.04173, section 5.2). It never begins below 0. All cases
    count, those without the class with a volume of 0. The share of cases outside is not below alpha - 1 / (n + 1),
    either, unless many volumes are as far away as others.

    Args:
        class_names: names of the classes, C.
        alpha: share of cases whose volume may lie outside, in (0, 1).
        min_group_cases: the number of cases from which on a group gets a width of its own.

    Raises:
        UserError: ``alpha`` is out of range.

    Example:
        >>> guarantee = VolumeInterval(["organ"], alpha=0.2)
        >>> probs = torch.cat([torch.ones(1, 900), torch.full((1, 200), 0.5), torch.zeros(1, 900)], 1)
        >>> case = GuaranteeCase("case_1", probs, target=torch.arange(2000)[None] < 1060, spacing=(10.0,))
        >>> guarantee.fit([guarantee.observe(case)] * 19)
        >>> {name: round(value, 6) for name, value in guarantee.values(case).items()}
        {'organ_ml': 10.0, 'organ_low_ml': 9.4, 'organ_high_ml': 10.6}
    """

    kind = "volume_interval"
    loss_name = "the volume lies outside of its interval"
    binary_losses = True

    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """How many spreads the volume of every class is away from the expected one, (C,)."""
        return {"distance": self._distance(case)}

    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """Half the width of the interval of a class in spreads, and the share of calibration cases outside."""
        distances = values["distance"].flatten()
        spreads = conformal_quantile(distances, self.alpha)
        return {"spreads": spreads, "calibration_risk": (distances > spreads).double().mean().item()}

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """Expected volume of each class and the ends of its interval, in ml."""
        expected, spread = self._volumes(case)
        half = self.per_unit(case, lambda fitted: fitted["spreads"]) * spread
        columns = {"": expected, "low_": (expected - half).clamp(min=0), "high_": expected + half}
        millilitre = {name: millilitres(sizes, case.spacing).tolist() for name, sizes in columns.items()}
        return {
            f"{one}_{name}ml": sizes[index]
            for index, one in enumerate(self.class_names)
            for name, sizes in millilitre.items()
        }

    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """1 for each class whose volume lies outside of its interval, else 0, (C,)."""
        return (self._distance(case) > self.per_unit(case, lambda fitted: fitted["spreads"])).double()

    def promise(self) -> str:
        """What is promised, in plain words."""
        return f"the volume of the class lies in the interval, in all but {100 * self.alpha:g} % of cases"

    def _volumes(self, case: GuaranteeCase) -> PredictedVolumes:
        probs = case.known_probs()
        return predicted_volumes(probs if case.mask is None else torch.where(plain(case.mask) != 0, probs, 0.0))

    def _distance(self, case: GuaranteeCase) -> Tensor:
        true = within(case.known_target(), case.mask).flatten(1).sum(1, dtype=torch.float64).cpu()
        expected, spread = self._volumes(case)
        return (true - expected).abs() / spread
