"""Save a training after every epoch and resume it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from medcalib.errors import UserError, plain_reason
from medcalib.networks.weights import load_state, read_checkpoint
from medcalib.tensor_files import save_tensors

__all__ = ["CheckpointHandler", "finished_epochs"]

CHECKPOINT = "checkpoint.pt"
BEST_MODEL = "model.pt"


class CheckpointHandler:
    """Keep ``checkpoint.pt`` (all that a training needs to go on) and ``model.pt`` (the best weights so far).

    Both are written to a temporary name and renamed, so that an interruption leaves the epoch before. When training
    starts and there is a checkpoint, it goes on from there. Best is the epoch with the highest key metric of the
    evaluator; an epoch without validation does not compete, and without any validation the last epoch counts as best.

    Args:
        save_dir: folder of the two files.
        network: the network that is trained.
        optimizer: its optimizer.
        lr_scheduler: its learning rate scheduler.
        evaluator: the validation engine, whose best metric is part of the state.
        snapshot_epochs: the weights at the end of the i-th of these epochs are kept as ``snapshot_<i>.pt``.

    Raises:
        UserError: when training starts, the checkpoint is damaged, or belongs to another architecture.
    """

    def __init__(
        self,
        save_dir: str | Path,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        evaluator: Engine,
        snapshot_epochs: Sequence[int] = (),
    ) -> None:
        self.save_dir = Path(save_dir)
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.snapshot_epochs = tuple(snapshot_epochs)

    def attach(self, engine: Engine) -> None:
        """Register the handler on the trainer; attach it after the validation and the scheduler."""
        engine.add_event_handler(Events.STARTED, self._resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _resume(self, engine: Engine) -> None:
        path = self.save_dir / CHECKPOINT
        if not path.exists():
            return
        state = read_checkpoint(path)
        try:
            load_state(self.network, state["network"], path)
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
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
        self.evaluator.state.best_metric = state["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best_epoch"]
        logging.getLogger(__name__).info("resumed from %s after epoch %d", path, state["epoch"])

    def _save(self, engine: Engine) -> None:
        if idist.get_rank() != 0:
            return
        best_epoch = self.evaluator.state.best_metric_epoch
        if best_epoch in (-1, engine.state.epoch):
            save_tensors(self.network.state_dict(), self.save_dir / BEST_MODEL)
        for number, epoch in enumerate(self.snapshot_epochs):
            if epoch == engine.state.epoch:
                save_tensors(self.network.state_dict(), self.save_dir / f"snapshot_{number}.pt")
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "scaler": None if engine.scaler is None else engine.scaler.state_dict(),
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "best_metric": float(self.evaluator.state.best_metric),
            "best_epoch": best_epoch,
        }
        save_tensors(state, self.save_dir / CHECKPOINT)


def finished_epochs(save_dir: str | Path) -> int:
    """Number of epochs that the training in ``save_dir`` has finished; 0 when there is none.

    Raises:
        UserError: the checkpoint is damaged.
    """
    path = Path(save_dir) / CHECKPOINT
    return int(read_checkpoint(path)["epoch"]) if path.exists() else 0
