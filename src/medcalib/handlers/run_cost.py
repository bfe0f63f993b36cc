"""Record what a run costs: its time and its memory."""

from __future__ import annotations

import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medcalib.errors import UserError
from medcalib.files.writing import read_json, write_json
from medcalib.gathering import gathered
from medcalib.process_group import num_processes

__all__ = ["RunCost"]

_PEAKS = ("peak_memory_bytes", "peak_gpu_memory_bytes")


class RunCost:
    """Write time and memory of a run to a file, at the end of it and of every epoch of a training.

    The time begins when this object is made. What is lost of an epoch that was killed is not counted.

    Args:
        path: the file.
        mode: mode of the run.
        num_cases: number of cases that the run looks at, in a training once an epoch.
        device: device of the network.
        resumed: whether a training goes on, so that the seconds in the file count, too.

    Attributes:
        seconds_saved: what the network would have taken for predictions that were read from a cache; 0 at first.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cost = RunCost(f"{folder}/train.json", "train", 3, "cpu")
        ...     cost.write(finished=True)
        ...     found = read_json(f"{folder}/train.json", "")
        >>> found["mode"], found["num_cases"], found["peak_gpu_memory_bytes"], found["finished"]
        ('train', 3, None, True)
    """

    def __init__(
        self, path: str | Path, mode: str, num_cases: int, device: str | torch.device, resumed: bool = False
    ) -> None:
        self.path = Path(path)
        self.mode = str(mode)
        self.num_cases = num_cases
        self.device = torch.device(device)
        self.seconds_saved = 0.0
        self._before = _earlier(self.path) if resumed else {}
        self._start = time.monotonic()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def attach(self, trainer: Engine) -> None:
        """Write at the end of every epoch; attach it behind all other handlers."""
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def merge(self) -> None:
        """Let the memory be that of the process that needed most; every process of the run must call it."""
        for peaks in gathered(self._peaks()):
            self._before |= {key: self._most(key, number) for key, number in peaks.items()}

    def write(self, finished: bool | Engine = False) -> None:
        """Write the file.

        Args:
            finished: whether the run is at its end.

        Raises:
            UserError: it cannot be written.
        """
        write_json(
            self.path,
            {
                "mode": self.mode,
                "seconds": round(self._before.get("seconds", 0.0) + time.monotonic() - self._start, 3),
                "seconds_saved": round(self.seconds_saved, 3),
                "num_cases": self.num_cases,
                **self._peaks(),
                "device": torch.cuda.get_device_name(self.device) if self._on_gpu else str(self.device),
                "cpu": _cpu(),
                "threads": torch.get_num_threads(),
                "processes": num_processes(),
                "finished": finished is True,
            },
        )

    def _peaks(self) -> dict[str, int | None]:
        unit = 1 if sys.platform == "darwin" else 1024
        now = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
            torch.cuda.max_memory_allocated(self.device) if self._on_gpu else None,
        )
        return {key: self._most(key, number) for key, number in zip(_PEAKS, now, strict=True)}

    def _most(self, key: str, now: int | None) -> int | None:
        return max((number for number in (self._before.get(key), now) if number is not None), default=None)


def _earlier(path: Path) -> dict[str, Any]:
    """What the file says of the part of a training that is done; nothing if it is lost, which harms no result."""
    try:
        return read_json(path, "")
    except UserError:
        return {}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
