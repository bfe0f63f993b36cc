"""The command that gives guarantees to predictions in files, and what goes with it."""

import numpy as np
import pytest
from tests.predictions.predictions_on_disk import labels, save

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_calibrate import main

FIT, USE = [f"fit_{n}" for n in range(10)], ["new_1", "new_2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for case in [*FIT, *USE]:
        save(root / "labels" / f"{case}.nii.gz", labels(case))
        # a voxel to the side
        save(root / "masks" / f"{case}.nii.gz", np.roll(labels(case), 1, axis=0))
    (root / "fit.txt").write_text("\n".join(FIT))
    return root


def options(data, output_dir, /, **changes):
    wanted = {
        "guarantee": "margin_control",
        "predictions_dir": data / "masks",
        "labels_dir": data / "labels",
        "calibration_cases": data / "fit.txt",
        "cases": "new_1,new_2",
        "output_dir": output_dir,
    } | changes
    return [f"--{name}={value}" for name, value in wanted.items() if value is not None]


def command(*arguments):
    run_command(call_with_options, main, arguments, "calibrate")


def test_masks_are_grown_and_grown_again_by_the_stored_guarantee(data, tmp_path, capsys):
    command(*options(data, tmp_path / "out", class_names="background,left,right", alpha=0.2))
    printed = capsys.readouterr().out
    assert (
        "Guarantee margin_control, fitted on 10 cases: at most 20 % of the class is missed by the grown mask" in printed
    )
    assert "  left: masks are grown by " in printed
    assert "left   promised: at most 20 %; on 2 test cases" in printed
    assert printed.splitlines()[-1] == f"Results: {tmp_path / 'out'}"
    assert str(tmp_path / ".") not in printed.replace(f"Results: {tmp_path / 'out'}", "")
    stored = tmp_path / "out" / "guarantee.json"
    command(*options(data, tmp_path / "new", guarantee=stored, labels_dir=None, calibration_cases=None))
    for case in USE:
        name = f"predictions/{case}/{case}_outer_left.nii.gz"
        assert (tmp_path / "out" / name).read_bytes()[50:] == (tmp_path / "new" / name).read_bytes()[50:]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guarantee": None, "alpha": 0.2}, "--alpha goes with --guarantee"),
        ({"guarantee": None, "kind": "masks"}, "--kind=masks goes with --guarantee=margin_control"),
        ({"calibrator": "isotonic"}, "--calibrator does not go with --guarantee"),
        ({"cases": None}, "--cases is missing"),
        ({"guarantee": "margin_contrl"}, "did you mean margin_control"),
        ({"alpha": 0.01}, "margin_control at alpha 0.01 needs 99 calibration cases"),
        ({"alpha": "much"}, "alpha"),
    ],
)
def test_every_mistake_is_one_sentence(changes, message, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*options(data, tmp_path / "out", **changes))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
