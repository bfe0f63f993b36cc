"""Save a training after every epoch and resume it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medcalib.errors import UserError, plain_reason
from medcalib.files.tensors import save_tensors
from medcalib.handlers.key_metric import metric_value
from medcalib.networks.weights import load_state, read_checkpoint

__all__ = ["CheckpointHandler", "TrainingState", "finished_epochs", "restore_weights", "training_state"]

CHECKPOINT = "checkpoint.pt"
BEST_MODEL = "model.pt"
LAST_EPOCH = "last epoch"
_NEEDED = {"network", "epoch", "best_epoch"}


class CheckpointHandler:
    """Keep ``checkpoint.pt`` (all that a training needs to go on) and ``model.pt`` (the best weights so far).

    Both are written to a temporary name and renamed, so that an interruption leaves the epoch before. When training
    starts and there is a checkpoint, it goes on from there. Where it is to have another number of epochs now, it has
    from there on the learning rates that a training of so many epochs has. Best is the epoch with the highest key
    metric of the evaluator; an epoch without validation does not compete, nor does one to which
    ``competes`` says no. Where the metric has no value, because no validation case has foreground or all are of one
    class, and as long as no epoch competed, the last epoch counts as best; the former is a warning.

    Args:
        save_dir: folder of the two files.
        network: the network that is trained.
        optimizer: its optimizer.
        lr_scheduler: its learning rate scheduler.
        evaluator: the validation engine, whose best metric is part of the state.
        snapshot_epochs: the weights at the end of the i-th of these epochs are kept as ``snapshot_<i>.pt``.
        competes: called with the trainer, whether the weights of its epoch may be chosen as best; every epoch's, if
            None.

    Raises:
        UserError: when training starts, the checkpoint is damaged, or belongs to another architecture.

    Example:
        >>> import tempfile
        >>> from monai.engines import SupervisedEvaluator, SupervisedTrainer
        >>> network, data = nn.Linear(1, 1), [{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}]
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        >>> evaluator = SupervisedEvaluator(torch.device("cpu"), data, network)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = SupervisedTrainer(torch.device("cpu"), 2, data, network, optimizer, nn.MSELoss())
        ...     CheckpointHandler(folder, network, optimizer, scheduler, evaluator).attach(trainer)
        ...     trainer.run()
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['checkpoint.pt', 'model.pt']
    """

    def __init__(
        self,
        save_dir: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        evaluator: Engine,
        snapshot_epochs: Sequence[int] = (),
        competes: Callable[[Engine], bool] | None = None,
    ) -> None:
        self.save_dir = Path(save_dir)
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.snapshot_epochs = tuple(snapshot_epochs)
        self.competes = competes
        self._best_metric, self._best_epoch = math.nan, -1
        self._warned = False

    def attach(self, engine: Engine) -> None:
        """Register the handler on the trainer; attach it after the validation and the scheduler."""
        engine.add_event_handler(Events.STARTED, self._resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _resume(self, engine: Engine) -> None:
        path = self.save_dir / CHECKPOINT
        if path.exists():
            self._restore(engine, path)
        epochs = idist.all_gather(engine.state.epoch)
        if idist.get_world_size() > 1 and len({int(epoch) for epoch in epochs}) > 1:
            raise UserError(
                f"Processes of this run find different checkpoints at {path}, after {sorted(map(int, epochs))} epochs; "
                f"let all machines see one folder, such as with --output_dir on a file system that they share."
            )

    def _restore(self, engine: Engine, path: Path) -> None:
        state = read_checkpoint(path)
        try:
            load_state(self.network, state["network"], path)
            if state.get("max_epochs") in (None, engine.state.max_epochs):
                self.optimizer.load_state_dict(state["optimizer"])
                self.lr_scheduler.load_state_dict(state["lr_scheduler"])
            else:
                self._replan(state)
            if engine.scaler is not None and state["scaler"] is not None:
                engine.scaler.load_state_dict(state["scaler"])
        except (KeyError, ValueError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path} does not fit this training ({plain_reason(error)}); move it away to start anew."
            ) from None
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["iteration"]
        self._best_epoch = state["best_epoch"]
        self._best_metric = math.nan if self._best_epoch == -1 else state["best_metric"]
        self._tell_evaluator()
        logging.getLogger(__name__).info("resumed from %s after epoch %d", path, state["epoch"])

    def _replan(self, state: Mapping[str, Any]) -> None:
        """Go on as a training of another number of epochs would, whose learning rates may be others."""
        groups = state["optimizer"]["param_groups"]
        if isinstance(self.lr_scheduler, ReduceLROnPlateau):  # it follows from what was measured, not from a number
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        else:
            with warnings.catch_warnings():
                # what the optimizer did in these steps is in its state
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for _ in range(state["lr_scheduler"]["last_epoch"]):
                    self.lr_scheduler.step()
            groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})

    def _save(self, engine: Engine) -> None:
        if idist.get_rank() != 0:
            return
        self._choose(engine)
        # the checkpoint is last, for an epoch that it does not know is done again; before there is one, it is first,
        # for weights that belong to none would be in the way of the next run, which makes them from the checkpoint
        if (self.save_dir / CHECKPOINT).exists():
            self._save_weights(engine.state.epoch)
            self._save_state(engine)
        else:
            self._save_state(engine)
            self._save_weights(engine.state.epoch)

    def _save_weights(self, epoch: int) -> None:
        names = [snapshot_name(number) for number, last in enumerate(self.snapshot_epochs) if last == epoch]
        for name in [BEST_MODEL] * (self._best_epoch == epoch) + names:
            save_tensors(self.network.state_dict(), self.save_dir / name)

    def _save_state(self, engine: Engine) -> None:
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "scaler": None if engine.scaler is None else engine.scaler.state_dict(),
            "epoch": engine.state.epoch,
            "max_epochs": engine.state.max_epochs,
            "iteration": engine.state.iteration,
            "best_metric": self._best_metric,
            "best_epoch": self._best_epoch,
            "chosen_by": LAST_EPOCH if math.isnan(self._best_metric) else self.evaluator.state.key_metric_name,
        }
        save_tensors(state, self.save_dir / CHECKPOINT)

    def _choose(self, engine: Engine) -> None:
        """Decide whether this epoch is the best so far."""
        epoch, evaluated = engine.state.epoch, self.evaluator.state
        may_win = self.competes is None or self.competes(engine)
        if may_win and evaluated.epoch == epoch and evaluated.key_metric_name is not None:
            value = metric_value(self.evaluator, evaluated.key_metric_name)
            if math.isnan(value):
                self._warn(evaluated.key_metric_name)
            elif math.isnan(self._best_metric) or self.evaluator.metric_cmp_fn(value, self._best_metric):
                self._best_metric, self._best_epoch = value, epoch
        if math.isnan(self._best_metric):
            self._best_epoch = epoch
        self._tell_evaluator()

    def _tell_evaluator(self) -> None:
        """MONAI takes the first value for the best so far, also one that is NaN, which none is greater than."""
        defined = not math.isnan(self._best_metric)
        self.evaluator.state.best_metric = self._best_metric if defined else -1
        self.evaluator.state.best_metric_epoch = self._best_epoch if defined else -1

    def _warn(self, name: str) -> None:
        if not self._warned:
            warnings.warn(
                f"{name} has no value on the validation cases, since none of them has foreground or all are of one "
                f"class, so the weights of the last epoch are kept instead of the best; choose validation cases that "
                f"have what is to be found.",
                stacklevel=2,
            )
        self._warned = True


@dataclass(frozen=True)
class TrainingState:
    """How far a training has come.

    Attributes:
        epochs: number of finished epochs.
        max_epochs: number of epochs that it was to have; None where an earlier version did not write it.
        best_epoch: epoch of the weights in ``model.pt``.
        chosen_by: name of the metric by which this epoch was chosen, or ``last epoch``; None as above.
    """

    epochs: int
    max_epochs: int | None
    best_epoch: int
    chosen_by: str | None

    def is_finished(self, wanted: int) -> bool:
        """Whether it has all epochs that it was to have, and that are wanted now."""
        return self.epochs >= max(self.max_epochs or 0, wanted)


def training_state(save_dir: str | Path) -> TrainingState | None:
    """How far the training in ``save_dir`` has come; None when there is none.

    Raises:
        UserError: the checkpoint is damaged.
    """
    path = Path(save_dir) / CHECKPOINT
    if not path.exists():
        return None
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not state.keys() >= _NEEDED:
        raise UserError(
            f"{path} holds something else than the state of a training, such as weights alone; put the file back that "
            f"the training wrote, or train again with another --seed or --output_dir."
        )
    return TrainingState(int(state["epoch"]), state.get("max_epochs"), int(state["best_epoch"]), state.get("chosen_by"))


def finished_epochs(save_dir: str | Path) -> int:
    """Number of epochs that the training in ``save_dir`` has finished; 0 when there is none.

    Raises:
        UserError: the checkpoint is damaged.
    """
    state = training_state(save_dir)
    return 0 if state is None else state.epochs


def snapshot_name(number: int) -> str:
    """Name of the file of the weights at the end of a cycle, counted from 0."""
    return f"snapshot_{number}.pt"


def restore_weights(save_dir: str | Path, snapshot_epochs: Sequence[int] = ()) -> list[Path]:
    """Write those files of weights again that are missing although their epochs are finished, if it can be done.

    ``checkpoint.pt`` holds the weights of the last finished epoch, so a file of this epoch is made from it.

    Args:
        save_dir: folder of the training, which has a checkpoint.
        snapshot_epochs: epochs at whose end weights are kept.

    Returns:
        The files that are missing and stay so.

    Raises:
        UserError: the checkpoint is damaged.
    """
    folder = Path(save_dir)
    state = read_checkpoint(folder / CHECKPOINT)
    last = state["epoch"]
    epoch_of = {folder / BEST_MODEL: last if state["best_epoch"] == -1 else state["best_epoch"]}
    epoch_of |= {folder / snapshot_name(number): epoch for number, epoch in enumerate(snapshot_epochs)}
    missing = {path: epoch for path, epoch in epoch_of.items() if epoch <= last and not path.exists()}
    for path, epoch in missing.items():
        if epoch == last:
            save_tensors(state["network"], path)
    return [path for path, epoch in missing.items() if epoch < last]
