"""Keep what a network predicts, so that it is predicted once."""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medcalib.errors import plain_reason
from medcalib.files.bounded_folder import BoundedFolder
from medcalib.inferers.prediction_key import PredictionKeys

__all__ = ["PredictionCache"]

_HEADER = "header"


class PredictionCache:
    """Maps on the grid of the network by all that decides them: read where they are known, else computed and kept.

    What is read equals to the last bit what was computed, in values, types and place in memory. Nothing is kept of a
    prediction that draws from the random state of the process, for it would be another one the next time. An entry that
    is damaged, or of another key than its name says, is computed anew.

    Where entries cannot be written, or a key cannot be found, a warning is given once and predictions are computed.

    Args:
        folder: folder of the entries, made with the first one.
        max_bytes: largest size of all of them.

    Attributes:
        num_read: number of predictions that were read.
        num_kept: number of those that were computed and written.
        num_not_kept: number of those that were computed only.
        seconds_saved: what those that were read took when they were computed.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> network, image = nn.Conv2d(1, 2, 1), torch.ones(1, 1, 4, 4)
        >>> with tempfile.TemporaryDirectory() as parent, torch.no_grad():
        ...     cache = PredictionCache(f"{parent}/predictions", max_bytes=10**6)
        ...     for _ in range(3):
        ...         maps = cache.maps({}, image, network, lambda: {"pred": network(image)})
        ...     cache.num_kept, cache.num_read
        (1, 2)
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.num_read = 0
        self.num_kept = 0
        self.num_not_kept = 0
        self.seconds_saved = 0.0
        self._entries = BoundedFolder(folder, max_bytes)
        self._keys = PredictionKeys()
        self._can_write = True
        self._can_describe = True

    def maps(
        self,
        settings: Mapping[str, Any],
        inputs: Tensor,
        network: Any,
        compute: Callable[[], dict[str, Tensor]],
        wanted: set[str] | None = None,
        arguments: Any = (),
    ) -> dict[str, Tensor]:
        """The maps that ``compute`` returns.

        Args:
            settings: attributes of the inferer that decide them.
            inputs: images (B, channels, ...).
            network: the network with its weights.
            compute: computes the maps.
            wanted: names of those that are needed, all when None.
            arguments: further arguments of the inferer.

        Returns:
            Tensors by name, on the device on which they would be computed.
        """
        key = self._key(settings, inputs, network, arguments)
        if key is None:
            self.num_not_kept += 1
            return compute()
        if (found := self._read(key, inputs, wanted)) is not None:
            self.num_read += 1
            return found
        before, start = _random_state(inputs.device), time.monotonic()
        maps = compute()
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        seconds = time.monotonic() - start
        if _same(before, _random_state(inputs.device)) and self._write(key, inputs, maps, seconds):
            self.num_kept += 1
        else:
            self.num_not_kept += 1
        return maps

    def __str__(self) -> str:
        """One sentence on what was read and what was computed."""
        parts = [f"{self.num_read} read", f"{self.num_kept} computed and kept"]
        if self.num_not_kept:
            parts.append(f"{self.num_not_kept} computed and not kept")
        return f"Predictions of the network: {', '.join(parts)}, in {self.folder}"

    def _key(self, settings: Mapping[str, Any], inputs: Tensor, network: Any, arguments: Any) -> str | None:
        if not self._can_describe:
            return None
        try:
            return self._keys.key(settings, inputs, network, arguments)
        except TypeError as error:
            self._can_describe = False
            warnings.warn(
                f"Predictions are not kept, since a change of what makes them might not be seen "
                f"({plain_reason(error)}); put it into a module, or set --prediction_cache off.",
                stacklevel=4,
            )
            return None

    def _read(self, key: str, inputs: Tensor, wanted: set[str] | None) -> dict[str, Tensor] | None:
        arrays = self._entries.read(key, None if wanted is None else {_HEADER, *wanted})
        if arrays is None:
            return None
        try:
            header = json.loads(arrays.pop(_HEADER).tobytes())
            if header["key"] != key:
                raise ValueError
        except (KeyError, ValueError):
            warnings.warn(
                f"{self.folder / key}.npz holds something else than its name says, so it is made again.", stacklevel=4
            )
            self._entries.discard(key)
            return None
        self.seconds_saved += header["seconds"]
        return {name: _tensor(arrays.pop(name), header["maps"][name], inputs) for name in list(arrays)}

    def _write(self, key: str, inputs: Tensor, maps: Mapping[str, Tensor], seconds: float) -> bool:
        if not self._can_write or not all(_can_be_kept(value) for value in maps.values()):
            return False
        described = {name: _described(value, inputs) for name, value in maps.items()}
        header = json.dumps({"key": key, "seconds": seconds, "maps": described}).encode()
        arrays = {_HEADER: np.frombuffer(header, np.uint8)}
        try:
            return self._entries.write(key, arrays | {name: _array(value) for name, value in maps.items()})
        except OSError as error:
            self._can_write = False
            warnings.warn(
                f"Predictions cannot be kept in {self.folder} ({plain_reason(error)}), so the run goes on without; "
                f"make room, choose another folder with --prediction_cache, or set it to off.",
                stacklevel=4,
            )
            return False


def _random_state(device: torch.device) -> list[Any]:
    # of generators that belong to somebody nothing is known; these belong to the process
    words: Any
    _, words, *numbers = np.random.get_state()  # noqa: NPY002
    state: list[Any] = [random.getstate(), words.tobytes(), numbers, torch.get_rng_state()]
    return [*state, torch.cuda.get_rng_state(device)] if device.type == "cuda" else state


def _same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True))


def _can_be_kept(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.requires_grad


def _described(value: Tensor, inputs: Tensor) -> dict[str, Any]:
    return {
        "dtype": str(value.dtype).removeprefix("torch."),
        "shape": list(value.shape),
        "stride": list(value.stride()),
        "offset": value.storage_offset(),
        "beside_inputs": value.device == inputs.device,
        "has_meta": isinstance(value, MetaTensor),
    }


def _array(value: Tensor) -> np.ndarray:
    plain = value.detach().as_subclass(Tensor).cpu()
    # NumPy has no such type, but keeps its bits
    return (plain.view(torch.int16) if plain.dtype is torch.bfloat16 else plain).numpy()


def _tensor(array: np.ndarray, described: Mapping[str, Any], inputs: Tensor) -> Tensor:
    """The tensor of an array, in the same place of memory as when it was computed, on which later rounding depends."""
    value = torch.from_numpy(array)
    if described["dtype"] == "bfloat16":
        value = value.view(torch.bfloat16)
    stride, offset = described["stride"], described["offset"]
    if list(value.stride()) != stride or offset:
        size = 1 + offset + sum((length - 1) * step for length, step in zip(value.shape, stride, strict=True))
        value = torch.empty(size, dtype=value.dtype).as_strided(value.shape, stride, offset).copy_(value)
    if described["beside_inputs"]:
        value = value.to(inputs.device)
    if described["has_meta"] and isinstance(inputs, MetaTensor):
        return MetaTensor(value).copy_meta_from(inputs)
    return value
