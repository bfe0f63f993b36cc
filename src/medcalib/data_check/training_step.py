"""One step of a training, and what it took."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from medcalib.bundle.layout import CLASSIFICATION
from medcalib.data_check.first_batch import reason
from medcalib.keys import CaseKeys

__all__ = ["TrainingStep", "training_step"]


class TrainingStep(NamedTuple):
    """What the first step of a training took.

    Attributes:
        device: where it ran.
        parameters: number of parameters of the network.
        input_shape: shape (B, C, ...) of the batch.
        seconds: how long it took, with what is made or compiled only once.
        peak_memory: bytes. On CUDA what torch had allocated at the most, weights, gradients and the state of the
            optimizer included; on other devices the resident memory of the whole process at its peak, with all that
            was loaded before.
    """

    device: str
    parameters: int
    input_shape: list[int]
    seconds: float
    peak_memory: int


def training_step(parser: ConfigParser, batch: Mapping[str, Any] | None, problems: list[str]) -> TrainingStep | str:
    """Train the network for one step on the device of the configuration.

    Args:
        parser: configuration of a dry training, see `medcalib.data_check.dry_training.make_dry`.
        batch: a batch of the training; when None, one of the size of the patches is made.
        problems: sentences, to which is added why the network cannot be trained.

    Returns:
        What it took, or why it failed.
    """
    images, labels = _made_up(parser) if batch is None else (batch[CaseKeys.IMAGE], batch[CaseKeys.LABEL])
    shape = list(images.shape)
    try:
        return _step(parser, torch.as_tensor(images), torch.as_tensor(labels))
    except Exception as error:
        cause = reason(error)
        problems.append(
            f"The network cannot be trained with batches of shape {' x '.join(map(str, shape))} ({cause}); change "
            f"data::patch_size, data::batch_size or the settings under network."
        )
        return cause


def _step(parser: ConfigParser, images: Tensor, labels: Tensor) -> TrainingStep:
    content = parser.get_parsed_content
    device = torch.device(content("device"))
    loss_function = content("train::trainer::loss_function")
    network = content("train::network").train()
    optimizer = content("train::optimizer")
    _forget_peak(device)
    start = time.perf_counter()
    with torch.autocast(device.type, enabled=content("amp"), **content("amp_kwargs")):
        loss = loss_function(network(images.to(device)), labels.to(device)).mean()
    loss.backward()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return TrainingStep(str(device), parameters, list(images.shape), seconds, _peak(device))


def _made_up(parser: ConfigParser) -> tuple[Tensor, Tensor]:
    content = parser.get_parsed_content
    batch_size, patch = content("train::dataloader::batch_size"), content("data::patch_size")
    task = content("task")
    shape = (batch_size, 1 if task.exclusive else task.num_classes, *patch)
    if parser.get().get("data", {}).get("task") == CLASSIFICATION:
        shape = shape[:2]
    images = torch.rand(batch_size, len(content("data::channel_names")), *patch)
    return images, torch.zeros(shape, dtype=torch.uint8)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # where this is not allowed, the peak is that since the process began
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
