"""Evaluate with an inferer that says more than logits."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from medcalib.inferers import SamplingInferer

__all__ = ["UncertaintyEvaluator"]


class UncertaintyEvaluator(SupervisedEvaluator):
    """A `monai.engines.SupervisedEvaluator` whose output also holds what the members of a prediction say.

    Before post-processing, ``engine.state.output`` has every key of `medcalib.inferers.SamplingInferer.predict`, so
    that transforms and handlers treat mutual information and variance like any other map.

    Args:
        inferer: draws the members.
        **kwargs: as of `monai.engines.SupervisedEvaluator`.
    """

    def __init__(self, *, inferer: SamplingInferer, **kwargs: Any) -> None:
        super().__init__(inferer=inferer.predict, **kwargs)
        # post-processing runs later, when the model is completed
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, _spread)


def _spread(engine: Engine) -> None:
    engine.state.output.update(engine.state.output.pop(CommonKeys.PRED))
