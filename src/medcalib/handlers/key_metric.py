"""The value of a metric, if it has one."""

from __future__ import annotations

import math

import torch
from ignite.engine import Engine

__all__ = ["metric_value"]


def metric_value(evaluator: Engine, name: str) -> float:
    """The value of a metric of the last evaluation; NaN where no case had anything to measure.

    MONAI's mean over cases without a value is 0, which looks like a bad result: of a segmentation without foreground
    in any label, the Dice is not 0, it does not exist.

    Args:
        evaluator: the engine that evaluated.
        name: name of the metric.
    """
    value = float(evaluator.state.metrics.get(name, math.nan))
    details = getattr(evaluator.state, "metric_details", None)
    of_cases = details.get(name) if details else None
    if of_cases is not None and torch.as_tensor(of_cases).isnan().all():
        return math.nan
    return value
