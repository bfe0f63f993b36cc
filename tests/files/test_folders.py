"""Folders are complete or not there, also while a newer one takes the place of an older."""

import errno
import os
from pathlib import Path

import pytest
from tests.killed import killed_at

from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft, complete_folder

OLD, NEW = {"a": "old", "b": "old"}, {"a": "new", "c": "new"}


def fill(folder, contents):
    folder.mkdir(parents=True)
    for name, text in contents.items():
        (folder / name).write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def replace(path, new):
    with FolderDraft(path) as draft:
        draft.check_replaceable()
        fill(draft.folder, new)
        draft.replace()


def test_a_kill_at_any_moment_loses_nothing(tmp_path):
    """Under the final name lies the old or the new, complete; or nothing, until the next run brings the old back."""
    number, absent = 0, 0
    while True:
        path = tmp_path / str(number) / "results"
        fill(path, OLD)
        killed = killed_at(number, lambda path=path: replace(path, NEW))
        if path.exists():
            assert contents(path) in (OLD, NEW)
        else:
            absent += 1
        with FolderDraft(path):
            assert contents(path) in (OLD, NEW)
        replace(path, NEW)
        assert contents(path) == NEW
        assert names(path.parent) == ["results"]
        if not killed:
            break
        number += 1
    assert number > 10
    assert absent > 0, "the moment between the two renamings was not among those tried"


def test_an_error_brings_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "results"
    fill(path, OLD)
    rename = os.rename

    def fail(source, target):
        if Path(target) == path and Path(source).name == "results":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        replace(path, NEW)
    assert contents(path) == OLD
    assert names(tmp_path) == ["results"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    fill(tmp_path / "disk" / "results", OLD)
    (tmp_path / "results").symlink_to(tmp_path / "disk" / "results")
    replace(tmp_path / "results", NEW)
    assert (tmp_path / "results").is_symlink()
    assert contents(tmp_path / "disk" / "results") == NEW
    assert names(tmp_path) == ["disk", "results"]
    assert names(tmp_path / "disk") == ["results"]


def test_what_cannot_be_replaced_is_said_before_the_work(tmp_path, monkeypatch):
    path = tmp_path / "results"
    fill(path / "case_1", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda folder, _mode: Path(folder).name != "case_1")
        with pytest.raises(UserError, match=r"case_1 belongs to \w+ or is write-protected.*output_dir"):
            FolderDraft(path).check_replaceable()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_mount", lambda folder: folder == path)
        with pytest.raises(UserError, match="results is the root of a disk"):
            FolderDraft(path).check_replaceable()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file in the place"):
        FolderDraft(tmp_path / "file").check_replaceable()
    FolderDraft(path).check_replaceable()


def test_what_cannot_be_removed_is_named(tmp_path, monkeypatch):
    path = tmp_path / "results"
    fill(path, OLD)
    with FolderDraft(path) as draft:
        fill(draft.folder, NEW)
        monkeypatch.setattr("shutil.rmtree", lambda *_args, **_kwargs: None)
        with pytest.warns(UserWarning, match=r"cannot be removed; delete .*results"):
            draft.replace()
    assert contents(path) == NEW


def test_the_first_of_two_is_kept(tmp_path):
    first, second = FolderDraft(tmp_path / "results"), FolderDraft(tmp_path / "results")
    for draft, content in ((first, OLD), (second, NEW)):
        draft.start()
        fill(draft.folder, content)
    first.publish()
    with pytest.raises(FileExistsError):
        second.publish()
    second.discard()
    assert contents(tmp_path / "results") == OLD
    assert names(tmp_path) == ["results"]


def test_old_results_are_kept_under_a_free_name(tmp_path):
    fill(tmp_path / "results", OLD)
    fill(tmp_path / "results_1", NEW)
    assert FolderDraft(tmp_path / "results").keep_old() == tmp_path / "results_2"
    assert contents(tmp_path / "results_2") == OLD


def test_a_folder_that_exists_is_never_overwritten(tmp_path):
    fill(tmp_path / "results", OLD)
    with pytest.raises(UserError, match="results exists, and results are never overwritten"):
        complete_folder(tmp_path / "results").__enter__()

    def meet_another():
        with complete_folder(tmp_path / "late") as draft:
            fill(draft, NEW)
            fill(tmp_path / "late", OLD)

    with pytest.raises(UserError, match="exists"):
        meet_another()
    assert contents(tmp_path / "late") == OLD
    assert names(tmp_path) == ["late", "results"]


def test_a_full_disk_is_one_sentence_with_the_folder(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match=r"results cannot be written \(No space"), complete_folder(tmp_path / "results"):
        raise full
    assert names(tmp_path) == []
