"""The first batch of a training, without the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from medcalib.bundle.messages import user_message
from medcalib.data.cases import Case
from medcalib.data_check.dry_training import UNCACHED
from medcalib.functional import majority
from medcalib.handlers.epoch_seed import seed_epoch
from medcalib.keys import CaseKeys
from medcalib.visualize.preview import draw_batch_preview

__all__ = ["first_batch", "preview", "reason"]


def first_batch(
    parser: ConfigParser, usable: Callable[[Sequence[Case]], list[Case]], problems: list[str]
) -> Mapping[str, Any] | None:
    """The batch that the first step of a training sees, if no case is damaged; else one of the other cases.

    Args:
        parser: configuration of a dry training, see `make_dry`.
        usable: from cases to those without a problem.
        problems: sentences, to which is added why there is no batch.

    Returns:
        The batch, or None if there is none.
    """
    dataset = parser.get_parsed_content(UNCACHED)
    cases = usable(dataset.data)
    if not cases:
        return None
    dataset.set_data(cases)
    loader = parser.get_parsed_content("train::dataloader")
    seed_epoch(parser.get_parsed_content("seed"), 1, dataset)
    try:
        return next(iter(loader))
    except Exception as error:
        problems.append(f"The first training batch cannot be made: {reason(error)}.")
        return None


def preview(parser: ConfigParser, batch: Mapping[str, Any], spacing: Sequence[float] | None) -> Any:
    """Draw a training batch as a Matplotlib figure.

    Args:
        parser: configuration of the training.
        batch: what its loader yields.
        spacing: voxel size of volumes in mm, before augmentation; 1 when None.
    """
    return draw_batch_preview(
        batch[CaseKeys.IMAGE].numpy(),
        _shown(batch[CaseKeys.LABEL], parser).numpy(),
        batch[CaseKeys.CASE],
        class_names=parser.get_parsed_content("data::class_names"),
        channel_names=parser.get_parsed_content("data::channel_names"),
        spacing=None if batch[CaseKeys.IMAGE].ndim == 4 else spacing,  # pictures are seen pixel by pixel
    )


def _shown(labels: Tensor, parser: ConfigParser) -> Tensor:
    """Labels of a batch; where they are the response of several raters, or soft, the majority."""
    if not (labels.is_floating_point() and labels.shape[1] > 1):
        return labels
    sigmoid = not parser.get_parsed_content("task").exclusive
    return torch.stack([majority(label, sigmoid) for label in labels])


def reason(error: BaseException) -> str:
    """What went wrong, in one line without a full stop: what a transform or network raised, not what wrapped it."""
    if cause := user_message(error):
        return cause.removesuffix(".")
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].removesuffix('.')}" if lines else type(error).__name__
