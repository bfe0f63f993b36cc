"""Trainings that several processes share: the same as those of one, also after one of them was killed."""

import json
import os
import shutil
import signal

import pytest
import torch
from tests.several import end, in_processes, start

from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.files.tensors import load_tensors
from medcalib.handlers import EpochSeedHandler

RESULTS = "seed_12345"


@pytest.fixture(scope="module")
def few(tiny):
    """Four cases in batches of three, of which the last has one, so that a process has none."""
    return tiny | {
        "data::cases::num_training": 4,
        "data::batch_size": 3,
        "data::patch_size": [16, 16, 16],
        "data::max_epochs": 3,
        # Adam makes steps of one size of gradients that are zero but for rounding
        "train::optimizer::_target_": "torch.optim.SGD",
        "train::optimizer::lr": 0.02,
        "train::dataset::num_workers": 0,
        "validate::dataset::num_workers": 0,
    }


def state(bundle):
    return load_tensors(bundle / RESULTS / "models" / "checkpoint.pt")


def differs(one, other):
    """The greatest difference of the weights of two trainings."""
    return max(
        float((one["network"][name] - value).abs().max()) for name, value in other["network"].items() if value.numel()
    )


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(scope="module")
def alone(tmp_path_factory, make_bundle, few):
    """A bundle trained by one process."""
    bundle = make_bundle(tmp_path_factory.mktemp("alone"), loss="softl1ace_dice_ce")
    run(str(bundle), "train", overrides=few)
    return bundle


@pytest.fixture(scope="module")
def shared(alone, tmp_path_factory, few):
    """The same bundle trained by two processes."""
    folder = tmp_path_factory.mktemp("shared")
    bundle = shutil.copytree(alone, folder / alone.name, ignore=shutil.ignore_patterns("seed_*"))
    in_processes(2, lambda rank: run(str(bundle), "train", overrides=few), folder / "log")
    return bundle


def test_weights_and_the_best_epoch_are_those_of_one_process(alone, shared):
    one, two = state(alone), state(shared)
    assert differs(one, two) < 1e-5
    assert [one[key] for key in ("epoch", "iteration", "best_epoch", "chosen_by")] == [
        two[key] for key in ("epoch", "iteration", "best_epoch", "chosen_by")
    ]
    assert two["best_metric"] == pytest.approx(one["best_metric"], abs=1e-3)


def test_one_process_writes_the_same_files(alone, shared):
    def files(bundle):
        return {str(path.relative_to(bundle)) for path in (bundle / RESULTS).rglob("*") if "tfevents" not in path.name}

    assert files(shared) == files(alone)
    assert len(list((shared / RESULTS).rglob("*tfevents*"))) == len(list((alone / RESULTS).rglob("*tfevents*")))
    records = [json.loads((bundle / RESULTS / "models" / "training.json").read_text()) for bundle in (alone, shared)]
    assert records[0]["settings"] == records[1]["settings"]
    assert records[0]["cases"] == records[1]["cases"]
    cost = json.loads((shared / RESULTS / "cost" / "train.json").read_text())
    assert (cost["processes"], cost["finished"]) == (2, True)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_training_goes_on_after_a_process_was_killed(killed, alone, shared, few, tmp_path, monkeypatch):
    bundle = shutil.copytree(alone, tmp_path / alone.name, ignore=shutil.ignore_patterns("seed_*"))
    seed_epoch = EpochSeedHandler.__call__

    def kill_in_third_epoch(handler, engine):
        seed_epoch(handler, engine)
        if engine.state.epoch == 3 and int(os.environ["RANK"]) == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(EpochSeedHandler, "__call__", kill_in_third_epoch)
        codes = end(start(2, lambda rank: run(str(bundle), "train", overrides=few), tmp_path / "killed"))
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1
    assert (tmp_path / "killed" / f"{1 - killed}.error").read_text().startswith("PeerLostError: Another process")
    assert state(bundle)["epoch"] == 2
    again = shutil.copytree(bundle, tmp_path / "alone" / bundle.name)
    in_processes(2, lambda rank: run(str(bundle), "train", overrides=few), tmp_path / "resumed")
    assert same(state(bundle), state(shared))
    # the global batch is the same, so another number of processes goes on with it, up to rounding
    run(str(again), "train", overrides=few)
    assert differs(state(again), state(alone)) < 1e-5
    assert not [path for path in bundle.rglob(".*") if path.name != ".lock"]


def test_more_processes_than_cases_in_a_batch(alone, few, tmp_path):
    bundle = shutil.copytree(alone, tmp_path / alone.name, ignore=shutil.ignore_patterns("seed_*"))
    codes = end(
        start(2, lambda rank: run(str(bundle), "train", overrides=few | {"data::batch_size": 1}), tmp_path / "x")
    )
    assert codes == [1, 1]
    assert "a batch has 1 cases" in (tmp_path / "x" / "0.error").read_text()
    assert not (bundle / RESULTS).exists()


def test_processes_that_differ_are_refused(alone, few, tmp_path):
    end(start(2, lambda rank: run(str(alone), "train", seed=rank, overrides=few), tmp_path))
    for rank in range(2):
        text = (tmp_path / f"{rank}.error").read_text()
        assert text.startswith(
            "UserError: The processes of this run differ in their seed: 0 in process 0, 1 in process 1"
        )
    assert not (alone / "seed_0").exists()


def test_the_overlay_takes_no_part_in_the_digest(alone):
    (alone / "configs" / "multi_gpu.yaml").write_text("x: 1\n")
    assert not Bundle.open(alone).edited
    shutil.copyfile("bundle_templates/configs/multi_gpu.yaml", alone / "configs" / "multi_gpu.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "method", "files"),
    [
        ("phantom", "mc_dropout_center+temperature_scaling", ["calibrator.pt"]),
        ("phantom", "deep_ensemble", []),
        ("phantom_cells", "mc_dropout", ["checkpoint.pt", "model.pt", "training.json"]),
    ],
)
def test_every_training_of_a_method_is_shared(data, method, files, make_bundle, few, tmp_path):
    """Two stages and a fit, several networks, and whole images with dropout."""
    bundle = make_bundle(tmp_path, data=data, method=method, loss="softl1ace_ce")
    own = {"method::num_networks": 2} if method == "deep_ensemble" else {}
    if data == "phantom_cells":
        options = {
            "data::dataset_dir": str(tmp_path / "cells"),
            "data::max_epochs": 2,
            "data::cases::num_training": 10,
            "data::cases::num_validation": 4,
            "data::cases::num_test": 4,
            "data::batch_size": 4,
        }
    else:
        options = few
    in_processes(2, lambda rank: run(str(bundle), "train", overrides=options | own), tmp_path / "log")
    assert {path.name for path in (bundle / RESULTS / "models").glob("*")} >= set(files)
    finished = [json.loads(path.read_text()) for path in bundle.parent.rglob("cost/train.json")]
    assert finished
    assert all(cost["finished"] for cost in finished)
    assert len(finished) == {"deep_ensemble": 2, "mc_dropout": 1}.get(method, 3)
    assert not [path for path in bundle.parent.rglob(".*") if path.name not in (".lock", ".cache")]
