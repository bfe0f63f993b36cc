"""Whether a process still runs is known of this machine's, and of no other's."""

import os
import subprocess
import sys

import pytest

from medcalib.errors import UserError
from medcalib.processes import has_ended, process_name, refuse_several_processes


def test_this_process_runs_and_one_that_was_killed_does_not():
    assert has_ended(process_name()) is False
    child = subprocess.Popen(
        [sys.executable, "-c", "from medcalib import processes; print(processes.process_name(), flush=True); input()"],
        stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
    )  # fmt: skip
    name = child.stdout.readline().strip()
    assert has_ended(name) is False
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(name), "not yet taken notice of by its parent"
    child.communicate()
    assert has_ended(name)


def test_another_process_of_the_same_number_is_another():
    place, pid, start = process_name().split("-")
    assert has_ended(f"{place}-{pid}-{int(start) + 1}") is True


@pytest.mark.parametrize("name", ["ffffffff-1-1", "", "x", "a-b-c"])
def test_of_other_machines_nothing_is_known(name):
    assert has_ended(name) is None


def test_one_of_several_processes_is_refused(monkeypatch):
    for alone in ("", "1"):
        monkeypatch.setenv("WORLD_SIZE", alone)
        refuse_several_processes()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one of 2 processes.*torchrun"):
        refuse_several_processes()
