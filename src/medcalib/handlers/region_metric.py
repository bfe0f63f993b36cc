"""Metrics over the region of interest of each case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.handlers import IgniteMetricHandler
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.keys import RaterKeys
from medcalib.metrics import RegionMetric

__all__ = ["RegionMetricHandler", "masked_output"]


def masked_output(output: Sequence[Mapping[str, Tensor]]) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Probabilities, labels and masks of the cases of ``engine.state.output``; a mask is None where there is none.

    Where a case has the mean response of several raters, this stands in the place of its label.
    """
    return (
        [case[CommonKeys.PRED] for case in output],
        [case[RaterKeys.RESPONSE] if RaterKeys.RESPONSE in case else case[CommonKeys.LABEL] for case in output],
        [case.get("mask") for case in output],
    )


class RegionMetricHandler(IgniteMetricHandler):
    """A `monai.handlers.IgniteMetricHandler` that hands the masks of the cases to the metric.

    Args:
        metric_fn: the metric.
        output_transform: from ``engine.state.output`` to ``y_pred``, ``y`` and ``mask``, lists of tensors.
        save_details: whether the values of each case are kept in ``engine.state.metric_details``.

    Example:
        >>> import torch
        >>> from ignite.engine import Engine
        >>> from medcalib.metrics import BrierScoreMetric
        >>> engine = Engine(lambda engine, batch: batch)
        >>> RegionMetricHandler(BrierScoreMetric()).attach(engine, "brier")
        >>> case = {
        ...     "pred": torch.tensor([[0.5, 0.1]]),
        ...     "label": torch.tensor([[1, 1]]),
        ...     "mask": torch.tensor([[1, 0]]),
        ... }
        >>> engine.run([[case]]).metrics["brier"]
        0.25
    """

    def __init__(
        self, metric_fn: RegionMetric, output_transform: Callable = masked_output, save_details: bool = True
    ) -> None:
        super().__init__(metric_fn=metric_fn, output_transform=output_transform, save_details=save_details)
        # else Ignite takes lists apart, and knows two of them only
        self._skip_unrolling = True

    def update(self, output: Sequence[Any]) -> None:
        """Take in a batch."""
        y_pred, y, mask = output
        self.metric_fn(y_pred, y, mask=mask)
