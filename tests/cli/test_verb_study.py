"""The command ``medcalib study``."""

import pytest
import yaml

from medcalib.cli.options import call_with_options
from medcalib.cli.verb_study import main
from medcalib.errors import UserError


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump({"data": "phantom", "losses": ["baseline_ce", "focal"], "seeds": [1, 2]}))
    return path


def test_the_plan_says_what_would_be_run_and_writes_nothing(file, tmp_path, capsys):
    call_with_options(main, ["--plan", "some.yaml"], "medcalib study")
    told = capsys.readouterr().out
    assert "2 to compare, with baseline_ce as the reference" in told
    assert "10 runs, of which 0 are done" in told
    for line in ("   4 trainings", "   0 fits of calibrators", "   4 evaluations", "   2 predictions"):
        assert line in told
    assert "time: unknown, since nothing like it was measured yet" in told
    assert list(tmp_path.iterdir()) == [file]


def test_the_status_of_a_study_that_was_not_begun(file, tmp_path, capsys):
    call_with_options(main, ["some.yaml", "--status"], "medcalib study")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state"]
    assert lines[1].split()[-1] == "waiting"
    assert lines[-1] == "10 waiting"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine=slurm"], "--engine 'slurm' is unknown; there is sequential, ray"),
        (["--address=auto"], "it needs --engine ray"),
        (["--engine=ray", "--gpus_per_run=0"], "--gpus_per_run must be a number above 0"),
        (["--engine=ray", "--gpus_per_run=1.5"], "a whole number or below 1"),
        (["--engine=ray", "--cpus_per_run=0.5"], "--cpus_per_run must be a number above 0"),
    ],
)
def test_options_that_cannot_be(file, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        call_with_options(main, ["some.yaml", *options], "medcalib study")
    assert list(tmp_path.iterdir()) == [file]


def test_ray_that_is_not_installed(file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'medcalib\[study\]'"):
        call_with_options(main, ["some.yaml", "--engine=ray"], "medcalib study")
    assert list(tmp_path.iterdir()) == [file]
