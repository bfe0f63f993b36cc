"""Files are complete or not there, and what killed runs left goes."""

import errno
import json
import os
import time
from pathlib import Path

import pytest
from tests.killed import killed_at

from medcalib.errors import UserError
from medcalib.files import writing
from medcalib.files.writing import UNFINISHED, complete_file, draft_path, read_json, remove_abandoned, write_text


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    class OwnError(Exception):
        pass

    def fail():
        with complete_file(tmp_path / "a.txt") as draft:
            draft.write_text("half")
            raise OwnError

    with pytest.raises(OwnError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.txt cannot be written \(No space left on device\)"):
        write_text(tmp_path / "a.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    path, number = tmp_path / "a.txt", 0
    while True:
        path.write_text("old")
        killed = killed_at(number, lambda: write_text(path, "new"))
        assert path.read_text() in ("old", "new")
        remove_abandoned(tmp_path)
        assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]
        if not killed:
            assert path.read_text() == "new"
            break
        number += 1
    assert number >= 3


def test_a_long_name_leaves_room_for_that_of_the_draft(tmp_path):
    name = "x" * 240 + ".nii.gz"
    with complete_file(tmp_path / name) as draft:
        assert draft.name.endswith(".nii.gz")
        draft.touch()
    assert (tmp_path / name).exists()


class TestAbandoned:
    def test_what_this_process_writes_stays(self, tmp_path):
        draft = draft_path(tmp_path / "a")
        draft.touch()
        remove_abandoned(tmp_path, held=True)
        assert draft.exists()

    def test_what_another_machine_writes_stays_for_a_day_unless_nobody_else_may_write(self, tmp_path):
        draft = tmp_path / f"{UNFINISHED}ffffffff-1-1-00000000.a"
        draft.mkdir()
        remove_abandoned(tmp_path)
        assert draft.exists()
        remove_abandoned(tmp_path, held=True)
        assert not draft.exists()
        draft.touch()
        old = time.time() - writing.ABANDONED - 1
        os.utime(draft, (old, old))
        remove_abandoned(tmp_path)
        assert not draft.exists()

    def test_nothing_else_is_touched(self, tmp_path):
        for name in (".hidden", "unfinished", "results"):
            (tmp_path / name).touch()
        remove_abandoned(tmp_path, held=True)
        remove_abandoned(tmp_path / "missing")
        assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    path = tmp_path / "training.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"training\.json is damaged \(.+\); train again\.") as error:
        read_json(path, "train again")
    assert len(str(error.value)) < 300


def test_a_record_is_read_as_it_was_written(tmp_path):
    writing.write_json(tmp_path / "a.json", {"a": [1, None]})
    assert read_json(Path(tmp_path, "a.json"), "") == {"a": [1, None]} == json.loads((tmp_path / "a.json").read_text())
