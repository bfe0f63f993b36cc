"""Merge what metrics hold of the cases of several processes."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import Cumulative
from torch import Tensor

from medcalib.data.dealing import merged_rows
from medcalib.process_group import num_processes

__all__ = ["merge_cases"]


def merge_cases(metric: Cumulative, data_loader: Any) -> None:
    """Let a metric hold the values of all processes, in the order of the dataset; every process must call it.

    MONAI's metrics gather their values themselves, but by the ranks of the processes, so that means differ in their
    last digits, and wait for ever where a process has no case. What they hold afterwards lies on the CPU.

    Args:
        metric: one that holds a value for each case.
        data_loader: where the cases come from, as of `medcalib.data.dealing.merged_rows`.

    Raises:
        RuntimeError: it holds more or fewer values than there were cases.

    Example:
        >>> from monai.metrics import DiceMetric
        >>> metric = DiceMetric()
        >>> _ = metric(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
        >>> merge_cases(metric, data_loader=None)
        >>> metric.aggregate()
        tensor([1.])
    """
    if num_processes() == 1:
        return
    # there is no other way to what a metric holds of this process alone
    buffers = metric._buffers or []
    rows = [tuple(_plain(value) for value in row) for row in zip(*buffers, strict=True)]
    merged = merged_rows(rows, data_loader)
    metric._synced_tensors = [torch.stack(column) for column in zip(*merged, strict=True)] or None
    metric._synced = True


def _plain(value: Tensor) -> Tensor:
    return torch.as_tensor(value).as_subclass(Tensor).detach().cpu()
