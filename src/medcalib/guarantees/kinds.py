"""The guarantees that there are, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcalib.errors import UserError, suggestion
from medcalib.guarantees.guarantee import Guarantee
from medcalib.guarantees.margin_control import MarginControl
from medcalib.guarantees.precision_control import PrecisionControl
from medcalib.guarantees.prediction_sets import PredictionSets
from medcalib.guarantees.recall_control import RecallControl
from medcalib.guarantees.selective_accuracy import SelectiveAccuracy
from medcalib.guarantees.selective_control import SelectiveControl
from medcalib.guarantees.volume_interval import VolumeInterval

__all__ = ["GUARANTEES", "guarantee_from_state"]

GUARANTEES: dict[str, type[Guarantee]] = {
    kind.kind: kind
    for kind in (
        RecallControl,
        PrecisionControl,
        MarginControl,
        VolumeInterval,
        SelectiveControl,
        PredictionSets,
        SelectiveAccuracy,
    )
}
"""Classes of guarantees by their kind."""


def guarantee_from_state(state: Mapping[str, Any]) -> Guarantee:
    """The fitted guarantee of which this is the state.

    Args:
        state: what `Guarantee.state` returned, or JSON made of it.

    Raises:
        UserError: there is no such kind.

    Example:
        >>> import torch
        >>> from medcalib.guarantees import GuaranteeCase
        >>> guarantee = RecallControl(["organ"])
        >>> case = GuaranteeCase("1", torch.tensor([[0.5]]), target=torch.tensor([[1]]))
        >>> guarantee.fit([guarantee.observe(case)] * 9)
        >>> guarantee_from_state(guarantee.state()).fitted("organ") == guarantee.fitted("organ")
        True
    """
    kind = state.get("kind")
    if kind not in GUARANTEES:
        raise UserError(f"There is no guarantee {kind!r}{suggestion(str(kind), GUARANTEES, list_all=True)}")
    guarantee = GUARANTEES[kind](**state["settings"])
    guarantee.load_state(state)
    return guarantee
