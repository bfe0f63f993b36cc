"""Evaluate with an inferer that says more than logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.transforms import Compose
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.engines.shared_evaluation import SharedEvaluator
from medcalib.freed_memory import return_freed_memory
from medcalib.inferers import SamplingInferer

__all__ = ["UncertaintyEvaluator"]


class UncertaintyEvaluator(SharedEvaluator):
    """A `medcalib.engines.SharedEvaluator` whose output also holds what the members of a prediction say.

    Before post-processing, ``engine.state.output`` has every key of `medcalib.inferers.SamplingInferer.predict`, so
    that transforms and handlers treat mutual information and variance like any other map. Image and label are moved to
    where the prediction lies, which is the CPU if the memory of the device does not hold it.

    Post-processing may write over the prediction or take it out of the case, and batch and output are forgotten before
    the next batch is read and before the epoch ends, so that no big volume is kept that nobody needs.

    Args:
        inferer: draws the members.
        **kwargs: as of `medcalib.engines.SharedEvaluator`.
    """

    def __init__(self, *, inferer: SamplingInferer, **kwargs: Any) -> None:
        super().__init__(inferer=inferer.predict, **kwargs)
        # post-processing runs later, when the model is completed
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, _spread)

    def _register_postprocessing(self, posttrans: Callable) -> None:
        if not isinstance(posttrans, Compose):
            super()._register_postprocessing(posttrans)
            return
        steps = posttrans.flatten()

        @self.on(IterationEvents.MODEL_COMPLETED)
        def _postprocess(engine: Engine) -> None:
            for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
                _apply(steps, batch, output)

    def _register_handlers(self, handlers: Sequence) -> None:
        # before the others: a handler that ends the epoch may run an engine of its own
        self.add_event_handler(Events.GET_BATCH_STARTED, _release)
        self.add_event_handler(Events.EPOCH_COMPLETED, _release)
        super()._register_handlers(handlers)


def _spread(engine: Engine) -> None:
    output = engine.state.output
    output.update(output.pop(CommonKeys.PRED))
    device = output[CommonKeys.PRED].device
    for key in (CommonKeys.IMAGE, CommonKeys.LABEL):
        if isinstance(output[key], Tensor):
            output[key] = output[key].to(device)


def _apply(steps: Compose, batch: dict, output: dict) -> None:
    """Post-process one case; of what a step replaces, nothing is left when the next one begins."""
    names = set(output)
    case = {**batch, **output}
    output.clear()
    for step in range(len(steps.transforms)):
        case = steps(case, start=step, end=step + 1)
    for key, value in case.items():
        (output if key in names or key not in batch else batch)[key] = value


def _release(engine: Engine) -> None:
    engine.state.batch = engine.state.output = None
    return_freed_memory()
