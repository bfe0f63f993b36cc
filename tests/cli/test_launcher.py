"""Runs on several processes that ``--num_gpus`` starts."""

import json
import os
import signal

import pytest
from torch.distributed import HashStore

from medcalib.cli import failures, launcher
from medcalib.cli.command_line import run_command
from medcalib.cli.verb_run import main
from medcalib.errors import StoppedError, UserError
from medcalib.process_group import PeerLostError, join_group

# what a process does, and what the command then says; process 0 waits for one that does not come any more
WORK = """
import json, os, signal, sys, time
from medcalib.cli.command_line import run_command
from medcalib.errors import UserError
from medcalib.process_group import first_decides, joined_group

def work(what):
    with joined_group("cpu"):
        if what == "both":
            raise UserError("There is no such bundle.")
        if os.environ["RANK"] == "1":
            if what == "mistake":
                raise UserError("Case 7 is damaged.")
            if what == "fault":
                raise ZeroDivisionError("by nothing")
            os.kill(os.getpid(), signal.SIGKILL)
        first_decides(lambda: None)
        first_decides(lambda: None)
        time.sleep(60)

run_command(work, json.loads(sys.argv[1])["what"])
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that the processes run."""
    (tmp_path / "work_of_ranks.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return "work_of_ranks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        ("both", 2, "error: There is no such bundle."),
        ("mistake", 2, "error: Case 7 is damaged."),
        ("killed", 1, "error: Process 1 of 2 was killed (SIGKILL), so the others were stopped; give the same command"),
    ],
)
def test_an_error_of_a_process_is_told_once(work, what, code, told, capfd):
    before = dict(os.environ)
    with pytest.raises(SystemExit) as end:
        run_command(launcher.launch, work, {"what": what}, 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(told)
    assert end.value.code == code
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_fault_of_a_process_is_told_with_its_traceback_once(work, capfd):
    with pytest.raises(SystemExit) as end:
        run_command(launcher.launch, work, {"what": "fault"}, 2)
    text = capfd.readouterr().err
    assert end.value.code == 1
    assert text.count("ZeroDivisionError: by nothing") == text.count("Traceback") == 1
    assert "torch/distributed" not in text


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "all"])
def test_a_number_of_processes_that_is_none(number):
    with pytest.raises(UserError, match="--num_gpus must be a whole number from 1"):
        main(bundle="x", mode="train", num_gpus=number)


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="--num_gpus is 3, but this machine has 2 GPUs; give a number up to 2"):
        main(bundle="x", mode="train", num_gpus=3)
    launcher.check_number(3, "cpu")
    launcher.check_number(2, None)
    with pytest.raises(UserError, match="--device=cuda:1 is one GPU"):
        launcher.check_number(2, "cuda:1")


def test_one_process_needs_no_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match="There is no bundle"):
        main(bundle="x", mode="train", num_gpus=1)


def test_what_is_wrong_is_told_before_what_follows_from_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(failures.FOLDER, str(tmp_path))
    failures.tell(StoppedError("Another process of this run ended; go on."))
    (path,) = tmp_path.glob("*.json")
    path.rename(tmp_path / "first.json")
    failures.tell(UserError("Case 7 is damaged."))
    found = failures.reported_failures(tmp_path)
    assert [failure.message for failure in found] == [
        "error: Case 7 is damaged.",
        "error: Another process of this run ended; go on.",
    ]
    assert capsys.readouterr().err == ""
    assert json.loads((tmp_path / "first.json").read_text())[0] is False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_launcher_that_is_stopped_says_how_to_go_on(tmp_path, number, code):
    error = launcher._stopped(tmp_path, number)
    assert (error.exit_code, str(error).partition("; ")[2]) == (code, "give the same command again to go on.")


def test_a_process_that_ends_while_others_join_is_not_a_fault_of_theirs(monkeypatch):
    """Else what the launcher tells is the traceback of a process that only lost another one."""

    def lose(*_args, **_options):
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4321")

    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.rendezvous", lambda *_args, **_options: iter([(HashStore(), 0, 2)]))
    monkeypatch.setattr("torch.distributed.init_process_group", lose)
    with pytest.raises(PeerLostError, match="Another process of this run ended"):
        join_group("cpu")


def test_torch_does_not_tell_of_lost_connections_beside_the_error(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    with launcher._environment(str(tmp_path), 2):
        assert os.environ["TORCH_CPP_LOG_LEVEL"] == "ERROR"
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "INFO")
    with launcher._environment(str(tmp_path), 2):
        assert os.environ["TORCH_CPP_LOG_LEVEL"] == "INFO"
