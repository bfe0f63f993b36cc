"""Put sliding windows together where there is memory for the whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor

__all__ = ["free_memory", "stitched"]

# what one prediction takes at the most until it is written or evaluated, in multiples of its logits
_PEAK = 2.5


class _DoesNotFitError(Exception):
    """The memory of the device does not hold the whole prediction."""


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors may still take on a GPU; None on other devices.

    Example:
        >>> free_memory(torch.device("cpu")) is None
        True
    """
    if device.type != "cuda":
        return None
    # what torch holds in reserve is free, too
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def stitched(inferer: Inferer, inputs: Tensor, predictor: Callable, *args: Any, **kwargs: Any) -> Any:
    """What an inferer predicts, on the CPU where the GPU of the inputs has no memory for it.

    How many channels a prediction has is known when its first windows are predicted, so it is then that sliding windows
    are begun anew on the CPU; no window is predicted twice. Those windows are predicted on the GPU as before. An
    inferer that says where its windows are put together is left to it.

    Args:
        inferer: how a case is divided into windows.
        inputs: (B, channels, ...).
        predictor: from windows to a tensor (windows, C, ...), or to a dictionary or sequence of tensors.
        *args: passed to the inferer.
        **kwargs: passed to the inferer.

    Returns:
        What the inferer returns.

    Example:
        >>> windows = SlidingWindowInferer(roi_size=(4, 4))
        >>> stitched(windows, torch.ones(1, 1, 8, 8), lambda window: 2 * window).unique()
        tensor([2.])
    """
    chooses = type(inferer) is SlidingWindowInferer and inferer.device is None and inferer.cpu_thresh is None
    free = free_memory(inputs.device) if chooses and "device" not in kwargs else None
    if free is None:
        return inferer(inputs, predictor, *args, **kwargs)
    begun: list[Any] = []

    def first_checked(*windows: Any, **options: Any) -> Any:
        if begun:
            return predictor(*windows, **options)
        begun.append(predictor(*windows, **options))
        if _PEAK * _size(begun[0], inputs) > free:
            raise _DoesNotFitError
        return begun[0]

    def first_known(*windows: Any, **options: Any) -> Any:
        return begun.pop() if begun else predictor(*windows, **options)

    try:
        return inferer(inputs, first_checked, *args, **kwargs)
    except _DoesNotFitError:
        on_cpu: Any = copy.copy(inferer)
        on_cpu.device = torch.device("cpu")
        return on_cpu(inputs, first_known, *args, **kwargs)


def _size(windows: Any, inputs: Tensor) -> int:
    """Bytes of the whole prediction of which these are windows."""
    if isinstance(windows, Tensor):
        values = [windows]
    else:
        values = list(windows.values() if isinstance(windows, Mapping) else windows)
    channels = sum(value.shape[1] for value in values)
    return inputs.shape[0] * channels * inputs.shape[2:].numel() * inputs.element_size()
