"""A run in a process of its own: how it may end."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from medcalib.bundle.layout import Mode
from medcalib.study import execution
from medcalib.study.ends_with_parent import command
from medcalib.study.execution import KilledRunError, execute
from medcalib.study.planned_runs import Run
from medcalib.study.run_states import RunStates, State, is_done


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """A run that executes some code instead."""

    def make(code):
        monkeypatch.setattr(Run, "command", property(lambda run: [sys.executable, "-c", code]))
        return Run("a", "a run", Mode.TRAIN, tmp_path, "0", {}, 1, False, {}, tmp_path / "seed_1")

    return make


LEAVE = "from pathlib import Path; p = Path('seed_1/models'); p.mkdir(parents=True); (p / 'model.pt').write_text('x')"


def test_done(run_of, tmp_path):
    run = run_of(LEAVE + "; print('hello')")
    runs = {"a": run}
    assert not is_done(run, runs)
    assert execute(run, runs, tmp_path, folder=tmp_path) is State.DONE
    assert is_done(run, runs)
    assert RunStates(tmp_path).read(run, runs) is State.DONE
    log = RunStates(tmp_path).log(run).read_text()
    assert log == f"\n$ {run.typed}\nhello\n"
    assert execute(run, runs, tmp_path, folder=tmp_path) is State.DONE
    assert RunStates(tmp_path).log(run).read_text() == log, "what is done is not done again"
    assert not is_done(replace(run, overrides={"num_bins": 5}), runs)
    assert is_done(replace(run, overrides={"device": "cuda"}), runs)


def test_failed(run_of, tmp_path):
    run = run_of("print('error: no'); raise SystemExit(2)")
    assert execute(run, {"a": run}, tmp_path, folder=tmp_path) is State.FAILED
    assert RunStates(tmp_path).read(run, {"a": run}) is State.FAILED
    assert "error: no" in RunStates(tmp_path).log(run).read_text()


def test_killed(run_of, tmp_path):
    run = run_of("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(KilledRunError, match="a run was killed by SIGKILL"):
        execute(run, {"a": run}, tmp_path, folder=tmp_path)
    assert RunStates(tmp_path).read(run, {"a": run}) is State.FAILED


def test_stopped(run_of, tmp_path):
    """What stops this process asks the run to end, and waits for that."""
    run = run_of(
        "import signal, time, sys\n"
        "def end(*_): print('ended'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(60)"
    )
    log = RunStates(tmp_path).log(run)

    def stop():
        if "ready" in log.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, {"a": run}, tmp_path, folder=tmp_path, watch=stop)
    assert "ended" in log.read_text()
    assert RunStates(tmp_path).read(run, {"a": run}) is State.STOPPED


def test_one_that_does_not_end_is_killed(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "PATIENCE", 0.2)
    run = run_of(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    log = RunStates(tmp_path).log(run)

    def stop():
        if "\n1\n" in log.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, {"a": run}, tmp_path, folder=tmp_path, watch=stop)
    assert RunStates(tmp_path).read(run, {"a": run}) is State.STOPPED


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells a process that its parent died")
def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """Even if that one is killed, so that it cannot ask."""
    own = command([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
    starter = f"import subprocess, sys, os\nwords = {own!r}\nwords[3] = str(os.getpid())\nsubprocess.run(words)"
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the process outlived its parent")


def test_the_variables_of_the_environment_reach_it(run_of, tmp_path):
    run = run_of(LEAVE + "; import os; print('threads', os.environ['OMP_NUM_THREADS'])")
    execute(run, {"a": run}, tmp_path, {"OMP_NUM_THREADS": "7"}, folder=tmp_path)
    assert "threads 7" in RunStates(tmp_path).log(run).read_text()
