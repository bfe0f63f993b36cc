"""Evaluate with an inferer that says more than logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.handlers import IgniteMetricHandler
from monai.transforms import Compose
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.data.dealing import DealtCases, own_cases
from medcalib.freed_memory import return_freed_memory
from medcalib.inferers import SamplingInferer
from medcalib.metrics.merging import merge_cases
from medcalib.process_group import num_processes

__all__ = ["UncertaintyEvaluator"]


class UncertaintyEvaluator(SupervisedEvaluator):
    """A `monai.engines.SupervisedEvaluator` whose output also holds what the members of a prediction say.

    Before post-processing, ``engine.state.output`` has every key of `medcalib.inferers.SamplingInferer.predict`, so
    that transforms and handlers treat mutual information and variance like any other map. Image and label are moved to
    where the prediction lies, which is the CPU if the memory of the device does not hold it.

    Post-processing may write over the prediction or take it out of the case, and batch and output are forgotten before
    the next batch is read and before the epoch ends, so that no big volume is kept that nobody needs.

    Where several processes share a run, the cases are dealt out among them, metrics hold those of all, in the order of
    the dataset, and a process without a case takes part in what all of them do as an epoch begins and ends.

    Args:
        inferer: draws the members.
        val_data_loader: as of `monai.engines.SupervisedEvaluator`, with all cases; a process sees those that
            `medcalib.data.dealing.own_cases` leaves it.
        key_val_metric: as of `monai.engines.SupervisedEvaluator`.
        additional_metrics: as of `monai.engines.SupervisedEvaluator`.
        **kwargs: as of `monai.engines.SupervisedEvaluator`.
    """

    def __init__(
        self,
        *,
        inferer: SamplingInferer,
        val_data_loader: Iterable,
        key_val_metric: Mapping[str, Metric] | None = None,
        additional_metrics: Mapping[str, Metric] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inferer=inferer.predict,
            val_data_loader=own_cases(val_data_loader),
            key_val_metric=_merged(key_val_metric),
            additional_metrics=_merged(additional_metrics),
            **kwargs,
        )
        # post-processing runs later, when the model is completed
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, _spread)

    def run(self, global_epoch: int = 1) -> None:
        """Evaluate, as `monai.engines.SupervisedEvaluator` does.

        Raises:
            UserError: several processes share the run, and see other files.
        """
        if isinstance(sampler := getattr(self.data_loader, "sampler", None), DealtCases):
            sampler.check()
        if self.state.epoch_length == 0 and num_processes() > 1:
            self._run_without_cases(global_epoch)
        else:
            super().run(global_epoch)

    def _run_without_cases(self, epoch: int) -> None:
        """Begin and end an epoch in which this process has nothing to do; Ignite has no epochs without a batch."""
        self.state.epoch = self.state.max_epochs = epoch
        self.state.iteration, self.state.dataloader = 0, self.data_loader
        try:
            for event in (Events.STARTED, Events.EPOCH_STARTED, Events.EPOCH_COMPLETED, Events.COMPLETED):
                self.fire_event(event)
        except BaseException as error:
            self._handle_exception(error)

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


class _MergedMetric:
    """A metric that holds the cases of all processes when an epoch ends."""

    def __init__(self, metric: IgniteMetricHandler) -> None:
        self.metric = metric

    def attach(self, engine: Engine, name: str) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._merge)
        self.metric.attach(engine, name)

    def _merge(self, engine: Engine) -> None:
        merge_cases(self.metric.metric_fn, engine.state.dataloader)


def _merged(metrics: Mapping[str, Metric] | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    return {
        name: _MergedMetric(metric) if isinstance(metric, IgniteMetricHandler) else metric
        for name, metric in metrics.items()
    }


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
