"""Evaluate the cases of a dataset in several processes as in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler

from medcalib.data.dealing import DealtCases, own_cases
from medcalib.metrics.merging import merge_cases
from medcalib.process_group import num_processes

__all__ = ["SharedEvaluator"]


class SharedEvaluator(SupervisedEvaluator):
    """A `monai.engines.SupervisedEvaluator` whose cases are dealt out to the processes of a run.

    Metrics hold the cases of all processes, in the order of the dataset, so that their means are equal to the last bit;
    a process without a case takes part in what all of them do as an epoch begins and ends.

    Args:
        val_data_loader: as of `monai.engines.SupervisedEvaluator`, with all cases; a process sees those that
            `medcalib.data.dealing.own_cases` leaves it.
        key_val_metric: as of `monai.engines.SupervisedEvaluator`.
        additional_metrics: as of `monai.engines.SupervisedEvaluator`.
        **kwargs: as of `monai.engines.SupervisedEvaluator`.
    """

    def __init__(
        self,
        *,
        val_data_loader: Iterable,
        key_val_metric: Mapping[str, Metric] | None = None,
        additional_metrics: Mapping[str, Metric] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            val_data_loader=own_cases(val_data_loader),
            key_val_metric=_merged(key_val_metric),
            additional_metrics=_merged(additional_metrics),
            **kwargs,
        )

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
