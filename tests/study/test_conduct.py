"""Whole studies on a small phantom: one after the other, with Ray, stopped, edited, with runs that fail."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from medcalib.errors import UserError
from medcalib.study.conduct import FailedRunsError, conduct, planned, status_text
from medcalib.study.execution import execute
from medcalib.study.run_states import RunStates, State, is_done

SEED = 3
METHODS = ["deterministic", "temperature_scaling"]


@pytest.fixture(scope="module")
def keys(tiny):
    """A study of four runs."""
    return {
        "losses": "baseline_dice_ce", "methods": METHODS, "seeds": SEED, "predictions": 0,
        "overrides": tiny | {
            "data::max_epochs": 4, "evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False,
        },
    }  # fmt: skip


def results(bundles):
    """Everything that an evaluation and a training left that is a number, by method."""
    found = {}
    for folder in sorted(bundles.glob("settings_*/*")):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        (summary,) = folder.rglob("summary.json")
        with np.load(summary.with_name("bin_statistics.npz")) as arrays:
            statistics = {name: arrays[name].tolist() for name in arrays}
        weights = {path.name: tensors(path) for path in (folder / f"seed_{SEED}" / "models").glob("*.pt")}
        found[folder.name] = {"summary": json.loads(summary.read_text()), "bins": statistics, "weights": weights}
    return found


def tensors(path):
    content = torch.load(path, weights_only=True)
    state = content.get("network", content.get("state", content))
    return {key: value.tolist() for key, value in state.items() if isinstance(value, torch.Tensor)}


@pytest.fixture(scope="module")
def sequential(keys, tmp_path_factory):
    """A study that was run, one run after the other, by the command line."""
    folder = tmp_path_factory.mktemp("sequential")
    (folder / "some.yaml").write_text(yaml.safe_dump({"data": "phantom", **keys}))
    # the page is the last thing that is made, and none is made here
    code = (
        "import sys; from medcalib.study import conduct; from medcalib.cli.__main__ import main;"
        "conduct.write_report = lambda *given: 'page'; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "study", "some.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "page"
    return folder


@pytest.mark.slow
class TestSequential:
    def test_it_trains_once_and_leaves_nothing_to_do(self, sequential, monkeypatch, capsys):
        monkeypatch.chdir(sequential)
        study, plan, output = planned("some.yaml")
        assert [run.trains_network for run in plan.runs.values()].count(True) == 1
        assert len(plan.runs) == 4
        assert all(is_done(run, plan.runs) for run in plan.runs.values())
        assert status_text(plan, output).splitlines()[-1] == "4 done"
        assert study.name == output.name == "some"

    def test_the_report_compares_what_was_evaluated(self, sequential, monkeypatch, page, capsys):
        monkeypatch.chdir(sequential)
        path = conduct("some.yaml")
        assert path.read_text() == "the page"
        ((comparison, context),) = page
        assert list(comparison.evaluations) == METHODS
        assert comparison.reference == "deterministic"
        assert context.commands[0] == "medcalib study some.yaml"
        assert all(command.startswith("medcalib run --bundle ") for command in context.commands[1:])
        assert (path.parent / "comparison.csv").exists()
        assert "4 runs, of which 4 are done" in capsys.readouterr().out

    def test_an_edited_study_says_so_and_keeps_its_report(self, sequential, monkeypatch, page, capsys):
        monkeypatch.chdir(sequential)
        first = conduct("some.yaml")
        kept = first.read_text()
        text = Path("some.yaml").read_text()
        Path("some.yaml").write_text(f"{text}primary: nll\n")
        try:
            conduct("some.yaml")
        finally:
            Path("some.yaml").write_text(text)
        told = capsys.readouterr().out
        assert "some was begun with primary: None, now it is nll; earlier results are kept." in told
        assert "The earlier report is kept in studies_output/some/report_1." in told
        assert (first.parent.with_name("report_1") / "index.html").read_text() == kept
        assert page[-1][0].primary == "nll"

    def test_a_result_that_is_not_what_it_was_is_made_again(self, sequential, monkeypatch):
        monkeypatch.chdir(sequential)
        _, plan, _ = planned("some.yaml")
        (path,) = Path("bundles").glob("settings_*/*deterministic*/**/cases.csv")
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        try:
            left = [run.title for run in plan.runs.values() if not is_done(run, plan.runs)]
        finally:
            path.write_bytes(before)
        assert left == [f"evaluate deterministic, seed {SEED}"]

    def test_what_needs_other_weights_is_made_again(self, sequential, monkeypatch):
        monkeypatch.chdir(sequential)
        _, plan, _ = planned("some.yaml")
        (path,) = Path("bundles").glob("settings_*/*deterministic*/*/models/model.pt")
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        try:
            assert not any(is_done(run, plan.runs) for run in plan.runs.values())
        finally:
            path.write_bytes(before)


@pytest.mark.slow
def test_ray_with_a_worker_that_is_killed_gives_the_same_to_the_last_bit(
    sequential, keys, write_study, tmp_path, page, monkeypatch, capsys
):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(os.cpu_count())))
    monkeypatch.chdir(tmp_path)
    file = write_study(**keys)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    killer = threading.Thread(target=kill_worker_of_training, args=(tmp_path,), daemon=True)
    try:
        killer.start()
        conduct(file, engine="ray")
    finally:
        ray.shutdown()
    killer.join(timeout=10)
    assert not killer.is_alive()
    (log,) = (tmp_path / "studies_output" / "some" / "logs").glob("train-*deterministic*.log")
    assert log.read_text().count("$ medcalib run") == 2
    assert "Resuming after epoch" in log.read_text()
    assert results(tmp_path / "bundles") == results(sequential / "bundles")


def kill_worker_of_training(folder):
    """Wait for the first epoch of the training, then kill the process that started it."""
    while not list((folder / "bundles").glob("settings_*/*/seed_*/models/checkpoint.pt")):
        time.sleep(0.05)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"medcalib.cli" in words and b"train" in words and Path(entry / "cwd").resolve() == folder.resolve():
            os.kill(parent, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others_and_is_named(sequential, monkeypatch, page, capsys):
    monkeypatch.chdir(sequential)
    text = Path("some.yaml").read_text()
    Path("failing.yaml").write_text(
        text.replace("- temperature_scaling\n", "- temperature_scaling\n- platt_scaling\n- tta\n")
    )

    def fail(run, runs, output_dir, **options):
        if "platt" not in run.id:
            return execute(run, runs, output_dir, **options)
        RunStates(output_dir).write(run, State.FAILED)
        return State.FAILED

    monkeypatch.setattr("medcalib.study.sequential_engine.execute", fail)
    with pytest.raises(FailedRunsError) as error:
        conduct("failing.yaml")
    assert error.value.exit_code == 1
    assert "1 of 7 runs failed" in str(error.value)
    assert "logs/train-phantom_baseline_dice_ce_platt_scaling" in str(error.value)
    assert "1 that need them were not run" in str(error.value)
    assert list(page[-1][0].evaluations) == [*METHODS, "tta"]
    told = capsys.readouterr().out
    assert "evaluate platt_scaling, seed 3: not run" in told
    assert "evaluate tta, seed 3: done" in told


def test_two_at_once_are_refused(write_study, tmp_path, monkeypatch, capsys):
    from medcalib.files.locks import locked_folder

    monkeypatch.chdir(tmp_path)
    file = write_study()
    told = "This study is being run already, in studies_output/some"
    with locked_folder(tmp_path / "studies_output" / "some"), pytest.raises(UserError, match=told):
        conduct(file)
    assert not (tmp_path / "bundles").exists()
