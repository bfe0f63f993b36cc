"""A training that is given more epochs than it was to have."""

import json
import shutil

import pytest
import torch
from monai.optimizers import WarmupCosineSchedule

from medcalib.bundle.run import run
from medcalib.errors import UserError
from medcalib.handlers.checkpoint import training_state
from medcalib.handlers.training_record import read_record

RESULTS = "seed_12345"
NO_FIGURES = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}
CONSTANT = {"train::lr_scheduler": {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 1.0,
            "optimizer": "@train::optimizer"}}  # fmt: skip


def read(bundle, name="checkpoint.pt", models="models"):
    return torch.load(bundle / RESULTS / models / name, weights_only=True)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained bundle, to be changed."""
    return shutil.copytree(trained, tmp_path / "bundles" / trained.name)


@pytest.mark.slow
def test_two_and_two_epochs_are_four(make_bundle, tiny, tmp_path, capsys):
    """With a learning rate that does not depend on the number of epochs, nobody can tell."""
    parts, whole = make_bundle(tmp_path / "parts"), make_bundle(tmp_path / "whole")
    settings = tiny | CONSTANT
    run(str(parts), "train", overrides=settings)
    capsys.readouterr()
    run(str(parts), "train", overrides=settings | {"max_epochs": 4})
    assert "Going on after epoch 2 to 4, as a training of 4 epochs would." in capsys.readouterr().out
    run(str(whole), "train", overrides=settings | {"data::max_epochs": 4})
    one, other = read(parts), read(whole)
    assert (one["epoch"], one["max_epochs"], one["iteration"]) == (4, 4, other["iteration"])
    assert (one["best_epoch"], one["best_metric"]) == (other["best_epoch"], other["best_metric"])
    assert equal(one["network"], other["network"])
    assert equal(read(parts, "model.pt"), read(whole, "model.pt"))
    record = read_record(parts / RESULTS / "models")
    assert record.trained_on == [{"after_epoch": 2, "planned": 2, "max_epochs": 4}]
    assert record.settings["train::trainer::max_epochs"] == 4
    assert read_record(whole / RESULTS / "models").trained_on == []


class TestAFinishedTraining:
    def test_goes_on_with_the_rates_of_a_longer_one_also_after_a_stop(
        self, copy, tiny, tmp_path, stopped_in_epoch, capsys
    ):
        longer = tiny | {"max_epochs": 4}
        again = shutil.copytree(copy, tmp_path / "again" / copy.name)
        before = {name: read(copy, name) for name in ("model.pt", "checkpoint.pt")}
        run(str(copy), "train", overrides=longer)
        state = read(copy)
        batches = state["iteration"] // 4
        plan = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.002)
        schedule = WarmupCosineSchedule(plan, batches, 4 * batches, end_lr=1e-6, warmup_multiplier=0.1)
        for _ in range(4 * batches):
            plan.step()
            schedule.step()
        assert state["optimizer"]["param_groups"][0]["lr"] == schedule.get_last_lr()[0]
        assert state["lr_scheduler"]["t_total"] == 4 * batches

        # the weights of before are kept, and told
        assert equal(read(copy, "model.pt", "models_2_epochs"), before["model.pt"])
        assert read(copy, models="models_2_epochs")["epoch"] == 2
        assert f"is kept in {copy / RESULTS / 'models_2_epochs'}" in capsys.readouterr().out

        # stopped amid what was added, or before any of it was finished, it ends with the same weights
        for epoch in (3, 4):
            with stopped_in_epoch(epoch):
                run(str(again), "train", overrides=longer)
            with pytest.raises(UserError, match=f"has finished {epoch - 1} of 4 epochs; go on with it: .*max_epochs=4"):
                run(str(again), "inference_eval", overrides=longer)
        run(str(again), "train", overrides=longer)
        assert "Resuming after epoch 3 of 4" in capsys.readouterr().out
        assert equal(read(again)["network"], state["network"])
        assert equal(read(again, "model.pt"), read(copy, "model.pt"))
        assert len(read_record(again / RESULTS / "models").trained_on) == 1
        run(str(again), "train", overrides=longer)
        assert "finished 4 of 4 epochs already" in capsys.readouterr().out

    def test_leaves_its_evaluation_beside_the_new_one(self, copy, tiny):
        longer = tiny | {"max_epochs": 3}
        before = json.loads((copy / RESULTS / "evaluation" / "summary.json").read_text())
        run(str(copy), "train", overrides=longer)
        run(str(copy), "inference_eval", overrides=longer | NO_FIGURES)
        now = json.loads((copy / RESULTS / "evaluation" / "summary.json").read_text())["provenance"]["trainings"][0]
        assert (now["epochs"], now["trained_on"]) == (3, [{"after_epoch": 2, "planned": 2, "max_epochs": 3}])
        kept = json.loads((copy / RESULTS / "evaluation_1" / "summary.json").read_text())
        assert kept == before

    @pytest.mark.parametrize(
        ("epochs", "message"),
        [
            ({"max_epochs": 1}, "2 of 2 epochs, and 1 are asked for, but none can be taken back; give --max_epochs=2,"),
            ({"data::max_epochs": 1}, "none can be taken back"),
        ],
    )  # fmt: skip
    def test_is_not_made_shorter(self, trained, tiny, epochs, message):
        with pytest.raises(UserError, match=message):
            run(str(trained), "train", overrides=tiny | epochs)

    def test_is_not_made_longer_by_an_option_that_was_left_out(self, trained, tiny):
        """Else whoever forgets it, such as when a calibrator is fitted, would change the weights."""
        left_out = {id_: value for id_, value in tiny.items() if id_ != "data::max_epochs"}
        message = (
            "2 of 2 epochs, and [0-9]+ are asked for by the bundle itself.*; give --max_epochs=2, or --max_epochs="
        )
        with pytest.raises(UserError, match=message):
            run(str(trained), "train", overrides=left_out)

    def test_goes_on_with_the_same_settings_only(self, trained, tiny):
        with pytest.raises(UserError, match="was started with num_bins=20, not 15"):
            run(str(trained), "train", overrides=tiny | {"max_epochs": 3, "num_bins": 15})

    def test_may_go_on_twice(self, copy, tiny):
        for epochs in (3, 4):
            run(str(copy), "train", overrides=tiny | {"data::max_epochs": epochs})
        assert [step["max_epochs"] for step in read_record(copy / RESULTS / "models").trained_on] == [3, 4]
        assert {path.name for path in (copy / RESULTS).glob("models*")} == {
            "models", "models_2_epochs", "models_3_epochs",
        }  # fmt: skip


def test_an_interrupted_training_may_be_made_longer(make_bundle, tiny, tmp_path, stopped_in_second_epoch):
    bundle = make_bundle(tmp_path)
    with stopped_in_second_epoch():
        run(str(bundle), "train", overrides=tiny)
    run(str(bundle), "train", overrides=tiny | {"max_epochs": 3})
    assert training_state(bundle / RESULTS / "models").epochs == 3
    assert not list((bundle / RESULTS).glob("models_*")), "there was no result to keep"


@pytest.mark.slow
def test_siblings_mean_the_same_by_it(copy, tiny, make_bundle, capsys):
    """A calibrator of other weights is not used, and is fitted anew."""
    scaled = make_bundle(copy.parent.parent, method="temperature_scaling")
    run(str(scaled), "train", overrides=tiny)
    first = (scaled / RESULTS / "models" / "calibrator.pt").read_bytes()
    longer = tiny | {"max_epochs": 4}
    run(str(copy), "train", overrides=longer)
    before = read(copy, "model.pt", "models_2_epochs")
    if not equal(before, read(copy, "model.pt")):
        with pytest.raises(UserError, match="was fitted on other weights"):
            run(str(scaled), "inference_eval", overrides=longer | NO_FIGURES)
    capsys.readouterr()
    run(str(scaled), "train", overrides=longer)
    assert "finished 4 of 4 epochs already" in capsys.readouterr().out
    run(str(scaled), "inference_eval", overrides=longer | NO_FIGURES)
    kept = scaled / RESULTS / "models" / "calibrator_1.pt"
    assert kept.read_bytes() == first
    run(str(scaled), "train", overrides=tiny | {"max_epochs": 5})
    assert training_state(copy / RESULTS / "models").epochs == 5


@pytest.mark.slow
def test_a_second_stage_goes_on_from_its_own_weights(make_bundle, tiny, tmp_path):
    bundle = make_bundle(tmp_path, method="mc_dropout_center")
    few = tiny | {"method::sampler::num_members": 2, "data::max_epochs": 1}
    run(str(bundle), "train", overrides=few)
    with pytest.raises(UserError, match="second stage in .* has finished 1 epochs .*with the weights of the first"):
        run(str(bundle), "train", overrides=few | {"data::max_epochs": 2})
    run(str(bundle), "train", overrides=few | {"max_epochs": 2})
    assert training_state(bundle / RESULTS / "models").epochs == 2
    (other,) = (path for path in bundle.parent.iterdir() if path != bundle)
    assert training_state(other / RESULTS / "models").epochs == 1


@pytest.mark.slow
def test_snapshots_at_epochs_that_are_past(make_bundle, tiny, tmp_path):
    bundle = make_bundle(tmp_path, method="checkpoint_ensemble")
    few = tiny | {"method::num_networks": 2}
    run(str(bundle), "train", overrides=few)
    with pytest.raises(UserError, match=r"epoch 2, .*--cycle_epochs=1 --snapshot_epochs=\[3,4\]"):
        run(str(bundle), "train", overrides=few | {"max_epochs": 4})
    last = {"max_epochs": 4, "cycle_epochs": 1, "snapshot_epochs": [3, 4]}
    run(str(bundle), "train", overrides=few | last)
    assert equal(read(bundle, "snapshot_1.pt"), read(bundle)["network"])
    assert not equal(read(bundle, "snapshot_0.pt"), read(bundle, "snapshot_0.pt", "models_2_epochs"))
