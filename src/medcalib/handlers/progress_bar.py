"""A progress bar over the whole run of an engine."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys
from tqdm import tqdm

from medcalib.handlers.key_metric import metric_value

__all__ = ["ProgressBarHandler"]


class ProgressBarHandler:
    """Show epoch, loss, metrics of the last validation and the time left.

    On a terminal this is one bar; where the output goes to a file it is one line per epoch.

    Args:
        title: first word of the bar.
        evaluator: validation engine whose metrics are shown; none when None.
        metrics: names of those metrics, and how to show them.

    Example:
        >>> engine = Engine(lambda engine, batch: {"loss": 0.5})
        >>> ProgressBarHandler("training").attach(engine)
        >>> engine.run([0, 1], max_epochs=2).iteration
        4
    """

    def __init__(self, title: str, evaluator: Engine | None = None, metrics: Mapping[str, str] | None = None) -> None:
        self.title = title
        self.evaluator = evaluator
        self.metrics = dict(metrics or {})
        self._bar: Any = None
        self._loss: tuple[float, int] = (0.0, 0)
        self._shown: dict[str, str] = {}
        self._start_time = 0.0
        self._start_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Register the handler; attach it after the validation."""
        if idist.get_rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset_loss)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        state = engine.state
        self._start_time, self._start_epoch = time.monotonic(), state.epoch
        self._bar = tqdm(
            total=state.max_epochs * state.epoch_length,
            initial=state.iteration,
            desc=self.title,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        )

    def _reset_loss(self, _engine: Engine) -> None:
        self._loss = (0.0, 0)

    def _update(self, engine: Engine) -> None:
        loss = _loss(engine.state.output)
        if loss is not None:
            total, count = self._loss
            self._loss = (total + loss, count + 1)
        self._bar.set_postfix(self._fields(engine), refresh=False)
        self._bar.update()

    def _finish_epoch(self, engine: Engine) -> None:
        if self.evaluator is not None:
            self._shown = {
                shown: "-" if math.isnan(value := metric_value(self.evaluator, name)) else f"{value:.4f}"
                for name, shown in self.metrics.items()
                if name in self.evaluator.state.metrics
            }
        if self._bar.disable:
            elapsed = time.monotonic() - self._start_time
            done = engine.state.epoch - self._start_epoch
            left = elapsed / done * (engine.state.max_epochs - engine.state.epoch)
            fields = ", ".join(f"{name} {value}" for name, value in self._fields(engine).items())
            print(f"{self.title}: {fields}, {tqdm.format_interval(left)} left", file=sys.stderr, flush=True)

    def _fields(self, engine: Engine) -> dict[str, str]:
        state = engine.state
        fields = {}
        if self.evaluator is not None:
            fields["epoch"] = f"{state.epoch}/{state.max_epochs}"
        else:
            number = idist.get_world_size()
            others = f" (process 1 of {number})" if number > 1 else ""
            fields["case"] = f"{state.iteration}/{state.epoch_length}{others}"
        total, count = self._loss
        if count:
            fields["loss"] = f"{total / count:.4f}"
        return fields | self._shown

    def _close(self, _engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self._close(engine)
        raise error


def _loss(output: Any) -> float | None:
    first = output[0] if isinstance(output, Sequence) and output else output
    if isinstance(first, Mapping) and CommonKeys.LOSS in first:
        return torch.as_tensor(first[CommonKeys.LOSS]).item()  # a number once the batch is decollated
    return None
