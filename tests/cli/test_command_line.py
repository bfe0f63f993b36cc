"""The command line a user types: killed runs, mistakes, and MONAI's own runner."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tests.conftest import REPOSITORY

from medcalib.bundle.layout import Mode, config_files
from medcalib.handlers.checkpoint import finished_epochs


def options(overrides):
    return [f"--{id_}={value}" for id_, value in overrides.items()]


def command(*arguments):
    return [sys.executable, str(REPOSITORY / "run_bundle.py"), *arguments]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(make_bundle, tiny, tmp_path):
    """Killed without warning after the first epoch and started again, it ends with the weights of a run left alone."""
    longer = options(tiny | {"data::max_epochs": 6})
    whole, killed = (make_bundle(tmp_path / name) for name in ("whole", "killed"))
    subprocess.run(command("--bundle", str(whole), "--mode", "train", *longer), check=True, capture_output=True)
    process = subprocess.Popen(command("--bundle", str(killed), "--mode", "train", *longer), stderr=subprocess.DEVNULL)
    models = killed / "seed_12345" / "models"
    while not (models / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 1 <= finished_epochs(models) < 6
    again = command("--bundle", str(killed), "--mode", "train", *longer)
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert "Resuming after epoch" in done.stdout
    for name in ("model.pt", "checkpoint.pt"):
        first, second = (
            torch.load(bundle / "seed_12345" / "models" / name, weights_only=True) for bundle in (whole, killed)
        )
        first, second = (state.get("network", state) for state in (first, second))
        for key, tensor in first.items():
            assert torch.equal(tensor, second[key]), f"{name}: {key}"


@pytest.mark.slow
def test_monai_bundle_run_gives_the_same_numbers(trained, tiny, tmp_path):
    """The commands of the bundle's docs/README.md, with MONAI's own runner."""
    bundle = tmp_path / trained.name
    shutil.copytree(trained, bundle, ignore=shutil.ignore_patterns("seed_*"))
    readme = (bundle / "docs" / "README.md").read_text()
    for mode in (Mode.TRAIN, Mode.INFERENCE_EVAL):
        paths = config_files(bundle / "configs", mode)
        assert all(f"configs/{path.name}" in readme for path in paths), mode
        files = "[" + ",".join(f"'{path}'" for path in paths) + "]"
        subprocess.run(
            [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--bundle_root", str(bundle),
             "--meta_file", str(bundle / "configs" / "metadata.json"),
             "--logging_file", str(bundle / "configs" / "logging.conf"), *options(tiny)],
            check=True, capture_output=True,
        )  # fmt: skip
    texts = [(b / "seed_12345" / "evaluation" / "summary.json").read_text() for b in (trained, bundle)]
    assert texts[0] == texts[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode", "train"], "--bundle is missing"),
        (["--bundle", "{bundle}", "--mode", "trian"], "did you mean train"),
        (["--bundle", "{bundle}", "--mode", "train", "--seed", "abc"], "--seed must be a whole number"),
        (["--bundle", "{bundle}", "--mode", "train", "--data::dataset_di=x"], "did you mean data::dataset_dir"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(bundle, arguments, message):
    before = sorted(bundle.rglob("*"))
    done = subprocess.run(
        command(*(argument.format(bundle=bundle) for argument in arguments)), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted(bundle.rglob("*")) == before


@pytest.mark.slow
def test_two_runs_at_the_same_time(bundle, tiny):
    """The second one is refused and does not disturb the first."""
    train = command("--bundle", str(bundle), "--mode", "train", *options(tiny | {"data::max_epochs": 3}))
    first = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (bundle / "seed_12345" / "models" / "training.json").exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)
    second = subprocess.run(train, capture_output=True, text=True)
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 2
    assert "Another run of this bundle and seed" in second.stderr
    assert first.wait() == 0
    assert json.loads((bundle / "seed_12345" / "models" / "training.json").read_text())["seed"] == 12345


@pytest.mark.slow
def test_an_error_amid_an_evaluation_is_one_sentence(trained, tiny, phantom_dir, tmp_path):
    """The damaged case is met after others were evaluated; engines log nothing to the terminal."""
    data = shutil.copytree(phantom_dir, tmp_path / "phantom")
    bundle = shutil.copytree(trained, tmp_path / trained.name)
    image = sorted((data / "images").iterdir())[-1]
    image.write_bytes(image.read_bytes()[:3000])
    before = (bundle / "seed_12345" / "evaluation" / "summary.json").read_text()
    done = subprocess.run(
        command("--bundle", str(bundle), "--mode", "inference_eval", *options(tiny | {"data::dataset_dir": str(data)})),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("evaluating:")]
    assert len(errors) == 1, done.stderr
    assert f"Case {image.name.removesuffix('.nii.gz')}" in errors[0]
    assert (bundle / "seed_12345" / "evaluation" / "summary.json").read_text() == before
    assert not list(bundle.rglob("*.unfinished*"))
