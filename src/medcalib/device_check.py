"""Try what a training needs of a device, before a training finds out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from monai.networks.nets import SegResNet

from medcalib.devices import named_device
from medcalib.errors import UserError
from medcalib.functional import bin_statistics
from medcalib.functional.backends import bin_volume, choose_backend
from medcalib.losses import SoftL1ACEandDiceCELoss

__all__ = ["DeviceCheck", "check_device"]

_BACKENDS = {"torch": None, "numba": "cpu", "triton": "cuda"}


class DeviceCheck(NamedTuple):
    """What works on a device.

    Attributes:
        device: the device.
        results: for each thing that was tried, None where it worked, else a sentence on what did not.
        text: the report.
    """

    device: torch.device
    results: dict[str, str | None]
    text: str

    @property
    def works(self) -> bool:
        """Whether a training works; what has a slower substitute may fail."""
        return not any(problem for name, problem in self.results.items() if name in ("binning", "training step"))


def check_device(device: str | None = None) -> DeviceCheck:
    """Bin a small volume with every implementation for a device, and train a small network for one step.

    Args:
        device: such as ``cpu``, ``cuda`` or ``cuda:1``; when None, the first CUDA device if there is any.

    Raises:
        UserError: there is no such device.

    Example:
        >>> check = check_device("cpu")
        >>> check.works, sorted(check.results)
        (True, ['binning', 'binning with numba', 'binning with torch', 'training step'])
    """
    chosen = _device(device)
    results: dict[str, str | None] = {}
    for backend, kind in _BACKENDS.items():
        if kind in (None, chosen.type):
            name = f"binning with {backend}"
            results[name] = "it is not installed" if find_spec(backend) is None else _problem(_bin, chosen, backend)
    results["binning"] = _problem(_bin, chosen, None)
    results["training step"] = _problem(_train, chosen)
    used = choose_backend(chosen.type)
    lines = [f"Device: {_describe(chosen)}"]
    if device is None and chosen.type == "cpu":
        lines.append("There is no CUDA device that torch can use, so the CPU was checked.")
    lines += [f"  {name}: {'works' if problem is None else f'fails, {problem}'}" for name, problem in results.items()]
    lines.append(f"Bins are summed by {used}.")
    return DeviceCheck(chosen, results, "\n".join(lines))


def _device(name: str | None) -> torch.device:
    device = named_device(name)
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device is {name!r}; give cpu, cuda or cuda:1, for example.")
    return device


def _describe(device: torch.device) -> str:
    if device.type == "cpu":
        return f"cpu, torch {torch.__version__}"
    properties = torch.cuda.get_device_properties(device)
    return (
        f"{device}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB, torch {torch.__version__} for CUDA "
        f"{torch.version.cuda}"
    )


def _problem(attempt: Callable[..., None], *arguments: Any) -> str | None:
    """What kept an attempt from working, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt(*arguments)
    except Exception as error:  # drivers, compilers and file systems raise anything
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return f"{type(error).__name__}: {first}" if first else type(error).__name__
    return None


def _bin(device: torch.device, backend: str | None) -> None:
    """Compare with what plain torch counts on the CPU."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(1, 2, 4096, generator=generator)
    labels = torch.randint(0, 2, (1, 4096), generator=generator, dtype=torch.uint8)
    wanted = bin_volume(probs, labels, 20, use_labels=True, soft=False, backend="torch")
    if backend is None:
        found = torch.stack(list(bin_statistics(probs.to(device), labels[:, None].to(device))), -1).cpu()
    else:
        found = bin_volume(probs.to(device), labels.to(device), 20, use_labels=True, soft=False, backend=backend).cpu()
    if not torch.allclose(found, wanted, rtol=1e-6):
        raise ArithmeticError("the sums differ from those of plain torch on the CPU")


def _train(device: torch.device) -> None:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        network = SegResNet(3, init_filters=8, in_channels=1, out_channels=2, blocks_down=(1, 1), blocks_up=(1,))
        network = network.to(device)
        images, labels = torch.rand(1, 1, 16, 16, 16), torch.randint(0, 2, (1, 1, 16, 16, 16))
    parameters = {"softmax": True}
    loss = SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params=parameters, dice_params=parameters)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        output = network(images.to(device))
    value = loss(output.float(), labels.to(device))
    value.backward()
    optimizer.step()
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    if not (value.isfinite() and weights.isfinite().all()):
        raise ArithmeticError("the loss or the weights after it are not finite")
