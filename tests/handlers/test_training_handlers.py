import math

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import default_metric_cmp_fn
from monai.utils import CommonKeys
from torch import nn

from medcalib.errors import UserError
from medcalib.handlers import CheckpointHandler, ProgressBarHandler
from medcalib.handlers.checkpoint import TrainingState, finished_epochs, restore_weights, training_state
from medcalib.handlers.key_metric import metric_value


class Validation(Engine):
    """An evaluator whose metric is given for every epoch."""

    def __init__(self, metrics):
        super().__init__(lambda _engine, _batch: None)
        self.given = metrics
        self.metric_cmp_fn = default_metric_cmp_fn
        self.state.key_metric_name = "mean_dice"
        self.state.best_metric, self.state.best_metric_epoch = -1, -1
        self.state.metrics = {}

    def validate(self, trainer):
        epoch = trainer.state.epoch
        metric = self.given.get(epoch)
        if metric is None:
            return
        self.state.epoch = epoch
        self.state.metrics = {"mean_dice": metric}
        if self.state.best_metric_epoch == -1 or metric > self.state.best_metric:
            self.state.best_metric, self.state.best_metric_epoch = metric, epoch


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def train(folder, epochs, metrics, network=None, stop_after=None, more=(), schedule=halved, watch=None, competes=None):
    torch.manual_seed(0)
    network = network or nn.Linear(2, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    scheduler = schedule(optimizer)
    evaluator = Validation(metrics)
    batch = {CommonKeys.IMAGE: torch.ones(1, 2), CommonKeys.LABEL: torch.zeros(1, 1)}
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=[batch, batch],
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        decollate=False,
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, evaluator.validate)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _engine: scheduler.step())
    CheckpointHandler(folder, network, optimizer, scheduler, evaluator, competes=competes).attach(trainer)
    for handler in more:
        handler(evaluator).attach(trainer)
    if watch:
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda _engine: watch(optimizer))
    if stop_after:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop_after), lambda engine: engine.terminate())
    trainer.run()
    return trainer, optimizer, evaluator


def weights(path):
    return torch.load(path, weights_only=True)["weight"]


def test_resumed_training_equals_the_uninterrupted(tmp_path):
    metrics = {1: 0.1, 2: 0.5, 3: 0.2, 4: 0.3}
    train(tmp_path / "whole", 4, metrics)
    train(tmp_path / "parts", 4, metrics, stop_after=2)
    assert finished_epochs(tmp_path / "parts") == 2
    trainer, optimizer, evaluator = train(tmp_path / "parts", 4, metrics)
    assert trainer.state.iteration == 8
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**4)
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (0.5, 2)
    for name in ("model.pt", "checkpoint.pt"):
        one, other = (torch.load(tmp_path / f / name, weights_only=True) for f in ("whole", "parts"))
        one, other = (state.get("network", state) for state in (one, other))
        assert torch.equal(one["weight"], other["weight"]), name


def test_model_is_the_best_epoch_and_checkpoint_the_last(tmp_path):
    train(tmp_path / "a", 3, {1: 0.1, 2: 0.5, 3: 0.2})
    train(tmp_path / "b", 2, {1: 0.1, 2: 0.5})
    assert torch.equal(weights(tmp_path / "a" / "model.pt"), weights(tmp_path / "b" / "model.pt"))
    last = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    assert (last["epoch"], last["best_epoch"]) == (3, 2)
    assert not torch.equal(last["network"]["weight"], weights(tmp_path / "a" / "model.pt"))


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    train(tmp_path, 3, {})
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.equal(last["network"]["weight"], weights(tmp_path / "model.pt"))


def test_an_epoch_without_validation_does_not_compete(tmp_path):
    train(tmp_path / "a", 3, {2: 0.4})
    train(tmp_path / "b", 2, {2: 0.4})
    assert torch.equal(weights(tmp_path / "a" / "model.pt"), weights(tmp_path / "b" / "model.pt"))


@pytest.mark.parametrize(("epochs", "best"), [(2, 2), (4, 3)])
def test_only_epochs_that_compete_are_chosen(tmp_path, epochs, best):
    """As long as there is none, the last one is kept; an interruption changes nothing."""
    metrics, later = {1: 0.9, 2: 0.1, 3: 0.5, 4: 0.3}, lambda trainer: trainer.state.epoch > 2
    _, _, evaluator = train(tmp_path / "whole", epochs, metrics, competes=later)
    train(tmp_path / "parts", epochs, metrics, competes=later, stop_after=1)
    train(tmp_path / "parts", epochs, metrics, competes=later)
    state = training_state(tmp_path / "whole")
    assert state.best_epoch == best
    assert state.chosen_by == ("last epoch" if epochs == 2 else "mean_dice")
    assert evaluator.state.best_metric == (-1 if epochs == 2 else 0.5)
    train(tmp_path / "best", best, metrics)
    kept = [weights(tmp_path / folder / "model.pt") for folder in ("whole", "parts")]
    wanted = torch.load(tmp_path / "best" / "checkpoint.pt", weights_only=True)["network"]["weight"]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], wanted)


def test_an_epoch_whose_metric_has_no_value_is_no_best_one(tmp_path):
    """MONAI takes the first value whatever it is, and nothing is greater than NaN."""
    with pytest.warns(UserWarning, match="mean_dice has no value on the validation cases"):
        train(tmp_path / "a", 3, {1: math.nan, 2: 0.4, 3: 0.3})
    train(tmp_path / "b", 2, {2: 0.4})
    assert torch.equal(weights(tmp_path / "a" / "model.pt"), weights(tmp_path / "b" / "model.pt"))
    state = training_state(tmp_path / "a")
    assert (state.best_epoch, state.chosen_by) == (2, "mean_dice")


def test_where_the_metric_never_has_a_value_the_last_epoch_is_kept(tmp_path, capsys):
    def bar(evaluator):
        return ProgressBarHandler("training", evaluator, {"mean_dice": "val Dice"})

    nothing = dict.fromkeys((1, 2, 3), math.nan)
    with pytest.warns(UserWarning, match="the weights of the last epoch are kept") as told:
        train(tmp_path, 3, nothing, stop_after=2, more=[bar])
    assert len(told) == 1, "once for all epochs"
    with pytest.warns(UserWarning, match="the weights of the last epoch are kept"):
        train(tmp_path, 3, nothing)
    last = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert torch.equal(last["network"]["weight"], weights(tmp_path / "model.pt"))
    assert training_state(tmp_path) == TrainingState(3, 3, 3, "last epoch")
    assert "val Dice -" in capsys.readouterr().err


def test_a_mean_over_no_case_at_all_is_no_value():
    """MONAI's Dice of labels without foreground: NaN for every case and class, and 0 as their mean."""
    evaluator = Validation({})
    evaluator.state.metrics = {"mean_dice": 0.0, "other": 0.0}
    evaluator.state.metric_details = {"mean_dice": torch.full((2, 2), torch.nan), "other": torch.zeros(2, 2)}
    assert math.isnan(metric_value(evaluator, "mean_dice"))
    assert metric_value(evaluator, "other") == 0


def test_lost_weights_are_restored_where_they_can_be(tmp_path):
    train(tmp_path / "last", 2, {1: 0.1, 2: 0.5})
    before = weights(tmp_path / "last" / "model.pt")
    (tmp_path / "last" / "model.pt").unlink()
    assert restore_weights(tmp_path / "last", snapshot_epochs=[2, 4]) == []
    for name in ("model.pt", "snapshot_0.pt"):
        assert torch.equal(weights(tmp_path / "last" / name), before)
    assert not (tmp_path / "last" / "snapshot_1.pt").exists()
    train(tmp_path / "first", 2, {1: 0.5, 2: 0.1})
    (tmp_path / "first" / "model.pt").unlink()
    assert restore_weights(tmp_path / "first", [1]) == [tmp_path / "first" / n for n in ("model.pt", "snapshot_0.pt")]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(tmp_path, 1, {1: 0.1})
    with pytest.raises(UserError, match=r"checkpoint.pt holds the weights of another architecture"):
        train(tmp_path, 2, {1: 0.1}, network=nn.Sequential(nn.Linear(2, 1)))


def test_progress_tells_epoch_loss_dice_and_time(tmp_path, capsys):
    def bar(evaluator):
        return ProgressBarHandler("training", evaluator, {"mean_dice": "val Dice"})

    train(tmp_path, 2, {1: 0.25, 2: 0.5}, more=[bar])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("training: epoch 1/2, loss ")
    assert "val Dice 0.2500" in lines[0]
    assert lines[1].endswith("00:00 left")


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "LinearLR", "OneCycleLR", "PolynomialLR"])
def test_more_epochs_have_the_learning_rates_of_a_longer_training(tmp_path, name):
    """Whatever the schedule makes of the number of epochs: from there on, it is that of the longer training."""

    def rates(folder, epochs):
        schedules = {
            "CosineAnnealingLR": {"T_max": epochs},
            "LinearLR": {"total_iters": epochs},
            "OneCycleLR": {"max_lr": 0.2, "total_steps": epochs + 1},
            "PolynomialLR": {"total_iters": epochs, "power": 0.9},
        }
        found = []
        train(
            tmp_path / folder,
            epochs,
            {},
            schedule=lambda optimizer: getattr(torch.optim.lr_scheduler, name)(optimizer, **schedules[name]),
            watch=lambda optimizer: found.append({k: v for k, v in optimizer.param_groups[0].items() if k != "params"}),
        )
        return found

    rates("on", 3)
    assert rates("on", 6) == rates("whole", 6)[3:]
