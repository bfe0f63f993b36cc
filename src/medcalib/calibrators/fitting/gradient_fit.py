"""Train calibrators by gradients, with early stopping on held-out cases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from medcalib.calibrators.base import Calibrator
from medcalib.calibrators.calibration_cases import CalibrationCase, Voxels, voxels_of
from medcalib.calibrators.fitting.likelihood import negative_log_likelihood
from medcalib.errors import UserError

__all__ = ["TrainingOptions", "fit_by_training"]

# A held-out NLL is lower if it is so by this part.
LEAST_GAIN = 1e-4


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How a calibrator is trained by gradients.

    Attributes:
        max_epochs: largest number of epochs.
        patience: epochs without a lower held-out NLL after which the training stops.
        learning_rate: of Adam, that of the calibrator if None; divided by 10 after ``patience // 2`` epochs without a
            lower held-out NLL.
        holdout: share of the cases that are held out, at least one.
        patch_voxels: of a case with more voxels, a patch of about so many is taken.

    Raises:
        ValueError: a value is out of range.

    Example:
        >>> TrainingOptions(max_epochs=10).patience
        6
    """

    max_epochs: int = 50
    patience: int = 6
    learning_rate: float | None = None
    holdout: float = 0.25
    patch_voxels: int = 1 << 20

    def __post_init__(self) -> None:
        if min(self.max_epochs, self.patience, self.patch_voxels) < 1:
            raise ValueError(f"max_epochs, patience and patch_voxels must be at least 1, got {self}.")
        if (self.learning_rate is not None and not self.learning_rate > 0) or not 0 < self.holdout < 1:
            raise ValueError(f"learning_rate must be above 0, and holdout between 0 and 1, got {self}.")


def fit_by_training(
    calibrator: Calibrator,
    cases: Callable[[], Iterator[CalibrationCase]],
    num_batches: int,
    num_voxels: int,
    *,
    seed: int,
    options: TrainingOptions,
    progress: bool = False,
) -> tuple[int, bool, bool]:
    """Train a calibrator and keep the parameters of the lowest held-out NLL, the first ones included.

    Cases are held out at random, whole. Where the NLL is convex in the parameters, an epoch is five steps of LBFGS on
    one fixed patch of every case; otherwise it is one step of Adam for each case, on a new patch. The gradient of a
    patch counts as much as its case has voxels, so that all voxels of the split count alike.

    Args:
        calibrator: the calibrator, whose parameters are set.
        cases: returns an iterator over the cases.
        num_batches: number of cases or batches of cases that it yields.
        num_voxels: number of voxels that count in all of them.
        seed: seed of the division and of the patches.
        options: how it is trained.
        progress: show a progress bar on a terminal.

    Returns:
        The number of epochs, whether the training stopped by itself, and whether the held-out NLL fell.

    Raises:
        UserError: there are fewer than two cases.
    """
    if num_batches < 2:
        raise UserError(
            f"The calibration split holds a single case, but the {calibrator.kind} calibrator holds out cases to know "
            f"when to stop: give at least 2, or use temperature_scaling."
        )
    generator = torch.Generator().manual_seed(seed)
    count = min(max(round(options.holdout * num_batches), 1), num_batches - 1)
    held_out = set(torch.randperm(num_batches, generator=generator)[:count].tolist())
    first = best = _held_out_nll(calibrator, cases, held_out)
    # About 1 at the start, so that step sizes do not depend on how easy most voxels are.
    scale = num_voxels / num_batches * (num_batches - count) * max(first, torch.finfo(torch.float64).tiny)

    def losses(generator: torch.Generator) -> Iterator[Tensor]:
        for index, case in enumerate(cases()):
            if index not in held_out:
                loss = _loss(calibrator, case, generator, options.patch_voxels) / scale
                if loss.requires_grad:
                    yield loss

    optimizer = _optimizer(calibrator, options)
    scheduler = None
    if not calibrator.convex:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.1, patience=options.patience // 2, threshold=LEAST_GAIN
        )
    # Copies: a state dict refers to the very tensors that the training changes.
    kept = {name: value.clone() for name, value in calibrator.state_dict().items()}
    stale = epochs = 0
    bar = tqdm(range(1, options.max_epochs + 1), desc=f"{calibrator.kind}: fitting", disable=None if progress else True)
    for epochs in bar:  # noqa: B007 (returned)
        if calibrator.convex:
            # The same patches in every evaluation, so that it is one function that is minimised.
            optimizer.step(lambda: _accumulate(optimizer, losses(torch.Generator().manual_seed(seed))))
        else:
            for loss in losses(generator):
                optimizer.zero_grad()
                (loss * (num_batches - count)).backward()
                optimizer.step()
        nll = _held_out_nll(calibrator, cases, held_out)
        if scheduler is not None:
            scheduler.step(nll)
        stale = 0 if nll < best * (1 - LEAST_GAIN) else stale + 1
        if nll < best:
            best = nll
            kept = {name: value.clone() for name, value in calibrator.state_dict().items()}
        bar.set_postfix({"held-out NLL": f"{nll:.6f}", "best": f"{best:.6f}"})
        if stale >= options.patience:
            break
    calibrator.load_state_dict(kept)
    calibrator.zero_grad()
    return epochs, stale >= options.patience, best < first


def _optimizer(calibrator: Calibrator, options: TrainingOptions) -> torch.optim.Optimizer:
    if calibrator.convex:
        return torch.optim.LBFGS(
            calibrator.parameters(), max_iter=5, history_size=20, line_search_fn="strong_wolfe", tolerance_change=0.0
        )
    return torch.optim.Adam(calibrator.parameters(), lr=options.learning_rate or calibrator.learning_rate)


def _accumulate(optimizer: torch.optim.Optimizer, losses: Iterator[Tensor]) -> float:
    """Sum losses and their gradients, holding the graph of one at a time."""
    optimizer.zero_grad()
    total = 0.0
    for loss in losses:
        loss.backward()
        total += loss.item()
    return total


def _loss(calibrator: Calibrator, case: CalibrationCase, generator: torch.Generator, patch_voxels: int) -> Tensor:
    """NLL of a case in nats, estimated from one patch of it."""
    patch = _random_patch(case, _patch_size(calibrator, case, patch_voxels), generator)
    with torch.enable_grad():
        logits = calibrator.training_logits(patch)
        losses = [negative_log_likelihood(voxels, calibrator.sigmoid) for voxels in _voxels(logits, patch)]
    return sum(losses, torch.zeros(())) * max(math.prod(case.logits.shape[2:]) / math.prod(patch.logits.shape[2:]), 1.0)


def _held_out_nll(calibrator: Calibrator, cases: Callable[[], Iterator[CalibrationCase]], held_out: set[int]) -> float:
    total, count = 0.0, 0
    with torch.no_grad():
        for index, case in enumerate(cases()):
            if index in held_out:
                for voxels in _voxels(calibrator.calibrate_case(case), case):
                    total += negative_log_likelihood(voxels, calibrator.sigmoid).item()
                    count += voxels.logits.shape[1]
    return total / max(count, 1)


def _voxels(logits: Tensor, case: CalibrationCase) -> list[Voxels]:
    """The volumes of a case that have voxels that count."""
    return [voxels for voxels in voxels_of(logits, case.labels, case.mask) if voxels.logits.shape[1]]


def _patch_size(calibrator: Calibrator, case: CalibrationCase, patch_voxels: int) -> list[int]:
    fixed = getattr(calibrator, "patch_size", None)
    shape = list(case.logits.shape[2:])
    # Of classified images, whose logits have no axes, nothing can be cut.
    if fixed is not None and shape:
        return fixed
    share = min((patch_voxels / max(math.prod(shape), 1)) ** (1 / max(len(shape), 1)), 1.0)
    return [max(int(length * share), 1) for length in shape]


def _random_patch(case: CalibrationCase, size: list[int], generator: torch.Generator) -> CalibrationCase:
    """Cut a patch out of a case at random; where the case is smaller, it is padded with voxels that do not count."""
    shape = case.logits.shape[2:]
    places: list[slice] = [slice(None), slice(None)]
    padding: list[int] = []
    for length, wanted in zip(shape, size, strict=True):
        start = int(torch.randint(max(length - wanted, 0) + 1, (), generator=generator))
        places.append(slice(start, start + wanted))
        padding = [0, max(wanted - length, 0), *padding]
    patch = case.map(lambda tensor: tensor[tuple(places)])
    if any(padding):
        if patch.mask is None:
            patch = patch._replace(mask=torch.ones_like(patch.logits[:, :1], dtype=torch.uint8))
        patch = patch.map(lambda tensor: F.pad(tensor, padding))
    return patch
