"""Choose the device of a command."""

from __future__ import annotations

import torch

from medcalib.errors import UserError

__all__ = ["named_device"]


def named_device(name: str | None) -> torch.device:
    """The device that a name means.

    Args:
        name: such as ``cpu``, ``cuda`` or ``cuda:1``; when None, the first GPU, or the CPU where there is none.

    Raises:
        UserError: this machine has no such device.

    Example:
        >>> named_device("cpu")
        device(type='cpu')
    """
    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        # other than torch.device, it also finds out whether the device is there
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):  # no such device, or no support of such devices
        device = None
    if device is None or device.type == "meta":
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise UserError(f"--device={name} is not there: this machine has {', '.join(['cpu', *gpus])}; choose of these.")
    return device
