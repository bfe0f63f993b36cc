"""The command that calibrates predictions in files."""

import json
import re
import shlex
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import REPOSITORY
from tests.predictions.nnunet_on_disk import MEMBERS, NEW, results_dir, write_nnunet
from tests.predictions.predictions_on_disk import AFFINE, labels, save, write_archives, write_labels, write_volumes

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_calibrate import main
from medcalib.predictions import calibrate_predictions

COMMAND = [sys.executable, "-m", "medcalib.cli", "calibrate"]
FIT, USE = ["007", "1_2"], ["1e3", "NA"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_labels(root / "labels", [*FIT, *USE])
    write_archives(root / "nnunet", [*FIT, *USE])
    (root / "calibration.txt").write_text("# validation fold\n007\n1_2\n")
    return root


def options(data, output_dir, /, **changes):
    wanted = {
        "predictions_dir": data / "nnunet",
        "labels_dir": data / "labels",
        "kind": "probabilities",
        "calibration_cases": data / "calibration.txt",
        "cases": "1e3,NA",
        "output_dir": output_dir,
    } | changes
    return [f"--{name}={value}" for name, value in wanted.items() if value is not None]


def command(*arguments):
    """Run the command in this process."""
    run_command(call_with_options, main, arguments, "calibrate")


def test_an_export_of_nnunet_is_calibrated(data, tmp_path, capsys):
    command(*options(data, tmp_path / "out", class_names="back, left,right"))
    out = tmp_path / "out"
    printed = capsys.readouterr().out
    assert "temperature_scaling: fitted on 420 voxels of 2 cases" in printed
    assert printed.splitlines()[-1] == f"Results: {out}"
    calibrate_predictions(
        data / "nnunet",
        data / "labels",
        tmp_path / "python",
        kind="probabilities",
        calibration_cases=FIT,
        cases=USE,
        class_names=["back", "left", "right"],
    )
    for case in USE:
        mine, theirs = (
            nib.load(root / "predictions" / case / f"{case}_prob.nii.gz") for root in (out, tmp_path / "python")
        )
        np.testing.assert_array_equal(mine.get_fdata(), theirs.get_fdata())
        np.testing.assert_array_equal(mine.affine, AFFINE)
    # ids stay what was typed
    table = pd.read_csv(out / "before" / "mean_dice_raw.csv", dtype=str, keep_default_na=False)
    assert table["filename"].tolist() == USE
    assert list(table.columns) == ["filename", "left", "right", "mean"]
    assert json.loads((out / "summary.json").read_text())["split"] == {"calibration": FIT, "test": USE}


@pytest.mark.parametrize("calibrator", ["temperature_scaling", "isotonic", "auxiliary"])
def test_a_device_is_chosen(calibrator, data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # which would be taken otherwise
    command(*options(data, tmp_path / "out", device="cpu", calibrator=calibrator))
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_device_that_is_not_there_is_named_before_anything_is_read(data, tmp_path, capsys):
    for device in ("cuda:99", "gpu", "meta"):
        with pytest.raises(SystemExit) as stopped:
            command(*options(data, tmp_path / "out", device=device))
        assert stopped.value.code == 2
        assert f"--device={device} is not there: this machine has cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_of_the_page_runs_as_it_stands(tmp_path):
    """The first command of docs/your_own_probabilities.md, word by word, on files that are called as it says."""
    page = (REPOSITORY / "docs" / "your_own_probabilities.md").read_text()
    typed = re.search(r"    (medcalib calibrate (?:.*\\\n)*.*)", page)[1].replace("\\\n", " ")
    given = dict(word.removeprefix("--").split("=", 1) for word in shlex.split(typed)[2:])
    cases = ["a", "b", "c", "d"]
    write_archives(tmp_path / given["predictions_dir"], cases)
    write_labels(tmp_path / given["labels_dir"], cases)
    (tmp_path / given["calibration_cases"]).write_text("a\nb\n")
    (tmp_path / given["cases"]).write_text("c\nd\n")
    words = [*COMMAND, *shlex.split(typed)[2:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / given["output_dir"] / "after" / "summary.json").exists()


@pytest.mark.slow
def test_a_mistake_is_one_sentence_and_exit_code_2(data, tmp_path):
    words = [*COMMAND, *options(data, tmp_path / "out", cases="1e3,b")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert "nnunet holds no prediction of case b" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, "--kind is missing"),
        ({"cases": None}, "--cases is missing"),
        ({"output_dir": None}, "--output_dir is missing"),
        ({"kind": "softmax"}, "kind is 'softmax', but must be probabilities or logits"),
        ({"kind": "logits"}, "is an archive of nnU-Net, which holds probabilities"),
        ({"cases": "1e3,007"}, "The case 007 is in both calibration_cases and cases"),
        ({"calibration_cases": "none.txt"}, "none.txt does not exist; calibration_cases is a file"),
        ({"calibrator": "isotone"}, "no calibrator called 'isotone'; did you mean isotonic?"),
        ({"labels_dir": "nowhere"}, "labels_dir nowhere is not a folder"),
        ({"class_names": "back,organ"}, "class_names lists back, organ, but 3 classes are predicted"),
        ({"calibrater": "isotonic"}, "has no option --calibrater; did you mean calibrator"),
        ({"regions": "{'whole': [1, 2]}"}, "regions are for activation sigmoid"),
        ({"num_bins": 0}, "num_bins must be a whole number from 1 on, not 0"),
        ({"seed": "x"}, "seed must be a whole number from 0 on, not 'x'"),
    ],
)
def test_every_mistake_is_named(changes, message, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*options(data, tmp_path / "out", **changes))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_option_without_value_is_missing(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(*options(data, tmp_path / "out", kind=None), "--kind")
    assert "--kind is missing" in capsys.readouterr().err


def test_options_reach_the_function(data, tmp_path):
    root = write_volumes(tmp_path / "p", [*FIT, *USE], name="{}.nii.gz")
    for case in [*FIT, *USE]:
        channels = [labels(case) > 0, labels(case) == 2]
        save(root / f"{case}.nii.gz", np.stack(channels, -1).astype(np.float32) * 0.8 + 0.1)
    words = options(data, tmp_path / "out", predictions_dir=root, activation="sigmoid", num_bins=5)
    command(*words, "--regions={'whole': [1, 2], 'core': [2]}", "--include_background", "--calibrator=isotonic")
    after = json.loads((tmp_path / "out" / "after" / "summary.json").read_text())
    assert list(after["per_class"]["mean_dice"]) == ["whole", "core"]
    assert after["provenance"]["num_bins"] == 5
    assert after["provenance"]["include_background"] is True
    assert after["mean_dice"] == 1


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory):
    root = tmp_path_factory.mktemp("cross_validation")
    write_nnunet(root)
    return root


def test_folds_and_members_of_nnunet(nnunet, tmp_path, capsys):
    members = ",".join(str(nnunet / name) for name in MEMBERS[:2])
    words = [f"--nnunet_results={results_dir(nnunet)}", f"--predictions={members}", "--folds=0,fold_1"]
    command(*words, f"--output_dir={tmp_path / 'out'}", "--evaluate=False", "--calibrator=vector_scaling")
    assert "vector_scaling: fitted on 768 voxels of 4 cases" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["test"]["members"] == {name: str(nnunet / name) for name in MEMBERS[:2]}
    assert summary["test"]["cases"] == NEW
    assert list(summary["folds"]) == ["fold_0", "fold_1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nnunet_results=x"], "--output_dir is missing; medcalib calibrate --help"),
        (["--nnunet_results=x", "--kind=probabilities"], "--kind does not go with --nnunet_results; leave it out"),
        (["--predictions=x", "--cases=a"], "--cases does not go with --predictions; leave it out"),
        (["--predictions_dir=x", "--folds=0"], "--folds does not go with --predictions_dir; leave it out"),
        (["--predictions=x", "--output_dir=y"], "nnunet_results is missing: the folder of the training"),
        (["--nnunet_results=x", "--output_dir=y", "--folds=all"], "The fold all was trained on all cases"),
        (["--nnunet_results=x", "--output_dir=y", "--folds=0;1"], "folds lists '0;1', but they are numbers"),
        (["--nnunet_results=x", "--output_dir=y"], "nnunet_results x is not a folder"),
    ],
)
def test_the_two_kinds_of_predictions_are_told_apart(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
