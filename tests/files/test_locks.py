"""One process at a time writes to a folder, also where the file system has no locks."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medcalib.errors import UserError
from medcalib.files.locks import HOLDER, LOCK, locked_folder
from medcalib.processes import process_name

pytestmark = pytest.mark.filterwarnings("ignore:The file system of")


@pytest.fixture(params=["locks", "no_locks"])
def folder(request, tmp_path, monkeypatch):
    """A folder of a file system with locks, and of one without."""
    if request.param == "no_locks":

        def flock(_file, _operation):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", flock)
    return tmp_path / "results"


def ended_process():
    code = "from medcalib.processes import process_name; print(process_name())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_second_run_is_refused_and_told_who_writes(folder):
    with locked_folder(folder) as made:
        assert made
        with pytest.raises(UserError, match=rf"is writing to .*results \(process {os.getpid()} on .*, since 2"):
            locked_folder(folder).__enter__()
    with locked_folder(folder) as made:
        assert not made


def test_a_run_that_waits_goes_on_when_the_other_ends(folder, capsys, monkeypatch):
    monkeypatch.setattr("medcalib.files.locks.INTERVAL", 0.01)
    first, waits = threading.Event(), threading.Event()

    def write():
        with locked_folder(folder):
            first.set()
            waits.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    first.wait(60)
    monkeypatch.setattr("medcalib.files.locks.time.sleep", lambda _seconds: (waits.set(), thread.join()))
    with locked_folder(folder, wait=True) as made:
        assert not made, "what the other run wrote is not this one's to remove"
    assert f"process {os.getpid()}" in capsys.readouterr().out


def test_a_folder_that_is_removed_while_it_is_waited_for(folder, monkeypatch):
    """The lock of a folder that is gone is no lock of the folder that takes its place."""
    import shutil

    holder = locked_folder(folder)
    holder.__enter__()

    def removed(_seconds):
        if folder.exists():
            shutil.rmtree(folder)
            holder.__exit__(None, None, None)

    monkeypatch.setattr("medcalib.files.locks.time.sleep", removed)
    with locked_folder(folder, wait=True):
        assert (folder / LOCK).exists()
        with pytest.raises(UserError, match="Another run"):
            locked_folder(folder).__enter__()


class TestWithoutLocks:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        def flock(_file, _operation):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(fcntl, "flock", flock)
        return tmp_path

    def test_it_is_said_and_the_file_goes_at_the_end(self, folder):
        with pytest.warns(UserWarning, match=r"has no locks, so .*\.lock_holder"), locked_folder(folder):
            assert json.loads((folder / HOLDER).read_text())["pid"] == os.getpid()
        assert [path.name for path in folder.iterdir()] == [LOCK]

    def test_what_a_dead_process_left_is_taken_away(self, folder):
        (folder / HOLDER).write_text(json.dumps({"process": ended_process()}))
        with locked_folder(folder):
            assert json.loads((folder / HOLDER).read_text())["process"] == process_name()
        assert [path.name for path in folder.iterdir()] == [LOCK]

    def test_what_another_machine_left_is_named(self, folder):
        (folder / HOLDER).write_text(json.dumps({"process": "ffffffff-1-1", "host": "node7", "pid": 1}))
        with pytest.raises(UserError, match=r"process 1 on node7.*\.lock_holder, to be deleted then"):
            locked_folder(folder).__enter__()


def test_the_lock_of_another_user_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / LOCK).touch()
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)

    def denied(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("medcalib.files.locks._try_lock", denied)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\), since .*\.lock belongs to .*output"):
        locked_folder(tmp_path).__enter__()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system in which no folder can be made")
def test_a_place_where_no_folder_can_be_made_is_named():
    with (
        pytest.raises(UserError, match="/proc/results cannot be written .*--output_dir"),
        locked_folder(Path("/proc/results")),
    ):
        pass


def test_a_lock_that_points_nowhere_is_named(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "missing" / "lock")
    with pytest.raises(UserError, match="cannot be written"), locked_folder(tmp_path):
        pass
