"""What decides the bits of a prediction, as one digest."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import medcalib
from medcalib.data.fingerprint import fingerprint

__all__ = ["PredictionKeys", "tensor_digest"]

FORMAT = 1
"""Changes when entries of the cache are written in another way."""

# rooms of this package whose code takes part in a prediction on the grid of the network
_ROOMS = ("functional", "networks", "calibrators", "inferers")
_LIBRARIES = ("monai", "numpy", "torch")
# settings of libraries that choose among algorithms
_VARIABLES = (
    "ATEN_", "CUBLAS_", "CUDNN_", "DNNL_", "MKL_", "NVIDIA_TF32", "ONEDNN_", "TORCH_ALLOW_TF32", "TORCH_BLAS",
    "TORCH_CUDNN",
)  # fmt: skip
_CONTENTS = {"_parameters", "_buffers", "_modules"}


class PredictionKeys:
    """Digests of everything that decides the bits of a prediction, taken from the objects themselves.

    The image as the network is given it stands for case, files and preprocessing; the network is described by its
    weights, settings and source files, the inferer by its settings, sampler and seeds. What a setting in a file is
    called, or where a file lies, has no part in it. Networks are looked at again only when one of their tensors was
    written to or replaced.
    """

    def __init__(self) -> None:
        self._seen: tuple[Any, ...] = ()
        self._network: str = ""

    def key(self, settings: Mapping[str, Any], inputs: Tensor, network: Any, arguments: Any = ()) -> str:
        """The digest.

        Args:
            settings: attributes of the inferer.
            inputs: images (B, channels, ...) as the network is given them.
            network: the network, with its weights.
            arguments: further arguments of the inferer.

        Returns:
            64 hexadecimal digits.

        Raises:
            TypeError: part of the inferer or the network cannot be described, such as a function of an expression,
                whose changes nobody would see.

        Example:
            >>> from monai.inferers import SimpleInferer
            >>> network, image, keys = nn.Conv2d(1, 2, 1), torch.ones(1, 1, 4, 4), PredictionKeys()
            >>> before = keys.key({"inferer": SimpleInferer()}, image, network)
            >>> before == keys.key({"inferer": SimpleInferer()}, image.clone(), network)
            True
            >>> before == keys.key({"inferer": SimpleInferer()}, image + 1, network)
            False
        """
        try:
            parts = [
                FORMAT,
                _software(),
                _circumstances(inputs.device),
                tensor_digest(inputs),
                self._described(network),
                fingerprint([dict(settings), arguments]),
            ]
        except TypeError:
            raise
        except Exception as error:  # whatever keeps an object from being copied
            raise TypeError(str(error)) from error
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _described(self, network: Any) -> str:
        if not isinstance(network, nn.Module):
            return fingerprint(network)
        modules = [(id(module), module.training) for module in network.modules()]
        tensors = [(id(tensor), tensor.data_ptr(), _version(tensor)) for tensor in _tensors(network).values()]
        seen = (*modules, *tensors)
        if self._seen != seen or None in (number for *_, number in tensors):
            self._seen, self._network = seen, _network_digest(network)
        return self._network


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 over values, type, shape and place in memory of a tensor, in hex.

    Example:
        >>> tensor_digest(torch.ones(2, 3)) == tensor_digest(torch.ones(3, 2).T)
        False
    """
    plain = tensor.detach().as_subclass(Tensor)
    digest = hashlib.sha256(repr((plain.dtype, plain.shape, plain.stride(), plain.device.type)).encode())
    digest.update(plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _network_digest(network: nn.Module) -> str:
    parts = [[name, tensor_digest(tensor)] for name, tensor in sorted(_tensors(network).items())]
    for name, module in network.named_modules(remove_duplicate=False):
        settings = {key: value for key, value in vars(module).items() if key not in _CONTENTS}
        # numbered in the order in which any hook of the process was made
        settings |= {key: list(value.values()) for key, value in settings.items() if _are_hooks(key, value)}
        parts.append([name, fingerprint([type(module), settings])])
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _are_hooks(name: str, value: Any) -> bool:
    return "_hooks" in name and isinstance(value, dict)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    named = (network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    return dict(chain(*named))


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to; None where nobody counts."""
    return None if tensor.is_inference() else tensor._version


@cache
def _software() -> list[Any]:
    source = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((Path(medcalib.__file__).parent / room).rglob("*.py")):
            source.update(path.read_bytes())
    versions = [f"{library} {version(library)}" for library in _LIBRARIES]
    return [medcalib.__version__, source.hexdigest(), versions, torch.__config__.show(), torch.version.git_version]


def _circumstances(device: torch.device) -> list[Any]:
    """What chooses among algorithms of the same meaning, whose rounding differs."""
    amp = torch.is_autocast_enabled(device.type)
    found: list[Any] = [
        device.type,
        amp and torch.get_autocast_dtype(device.type),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
        sorted((name, value) for name, value in os.environ.items() if name.startswith(_VARIABLES)),
    ]
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        found += [torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), cudnn.version()]
        found += [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32]
        found += [torch.backends.cuda.matmul.allow_tf32]
    return found


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {names[0] if names else platform.processor()}"
