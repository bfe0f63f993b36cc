"""Results appear when they are complete, and older ones are replaced or kept, never lost."""

import os
from pathlib import Path

import pytest
from ignite.engine import Engine, Events
from tests.killed import killed_at

from medcalib.errors import UserError
from medcalib.handlers import ResultFolder


def write(path, text, provenance="same", at_work=lambda: None):
    """Run an engine that writes two cases."""
    folder = ResultFolder(path, {"stems from": provenance})

    def step(_engine, number):
        at_work()
        folder.file(f"case_{number}/case_{number}.txt").write_text(text)

    engine = Engine(step)
    engine.logger.disabled = True
    folder.attach(engine)
    engine.run([1, 2])
    return folder


def texts(path):
    return [file.read_text() for file in sorted(path.glob("case_*/*.txt"))]


def names(path):
    return sorted(one.name for one in path.iterdir())


def test_a_kill_at_any_moment_loses_nothing_and_the_next_run_is_as_any(tmp_path):
    number = 0
    while True:
        path = tmp_path / str(number) / "predictions"
        write(path, "old")
        killed = killed_at(number, lambda path=path: write(path, "new"))
        if path.exists():
            assert texts(path) in (["old"] * 2, ["new"] * 2), number
        with pytest.raises(RuntimeError):
            write(path, "third", at_work=lambda: (_ for _ in ()).throw(RuntimeError))
        assert texts(path) in (["old"] * 2, ["new"] * 2), number
        assert write(path, "fourth").is_complete
        assert texts(path) == ["fourth"] * 2
        assert names(path.parent) == ["predictions"]
        if not killed:
            break
        number += 1
    assert number > 15


def test_results_of_something_else_are_kept_and_it_is_said(tmp_path, capsys):
    write(tmp_path / "predictions", "old", "weights A")
    assert capsys.readouterr().out == ""
    write(tmp_path / "predictions", "new", "weights B")
    assert "are kept in " + str(tmp_path / "predictions_1") in capsys.readouterr().out
    assert texts(tmp_path / "predictions_1") == ["old"] * 2
    assert texts(tmp_path / "predictions") == ["new"] * 2


def test_a_file_in_the_place_of_results_is_kept_and_it_is_said(tmp_path, capsys):
    (tmp_path / "predictions").write_text("notes")
    write(tmp_path / "predictions", "new")
    assert texts(tmp_path / "predictions") == ["new"] * 2
    assert (tmp_path / "predictions_1").read_text() == "notes"
    assert f"is kept as {tmp_path / 'predictions_1'}" in capsys.readouterr().out


def test_a_link_to_a_larger_disk_stays_one(tmp_path):
    disk = tmp_path / "disk" / "here"
    disk.mkdir(parents=True)
    (tmp_path / "predictions").symlink_to(disk)
    for text in ("old", "new"):
        write(tmp_path / "predictions", text)
        assert (tmp_path / "predictions").is_symlink()
        assert texts(disk) == [text] * 2
    assert names(tmp_path) == ["disk", "predictions"]
    assert names(disk.parent) == ["here"]


def test_what_cannot_be_replaced_is_found_out_before_the_work(tmp_path, monkeypatch):
    path = tmp_path / "predictions"
    write(path, "old")
    worked = []
    monkeypatch.setattr(os, "access", lambda folder, _mode: Path(folder).name != "case_2")
    with pytest.raises(UserError, match="case_2 belongs to"):
        write(path, "new", at_work=lambda: worked.append(1))
    assert not worked
    assert texts(path) == ["old"] * 2
    assert names(tmp_path) == ["predictions"]


def test_a_full_disk_names_the_results(tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    write(tmp_path / "predictions", "old")
    with pytest.raises(UserError, match=r"predictions cannot be written \(No space left on device\)"):
        write(tmp_path / "predictions", "new", at_work=full)
    assert texts(tmp_path / "predictions") == ["old"] * 2


def test_an_engine_without_cases_completes_nothing(tmp_path):
    folder = ResultFolder(tmp_path / "predictions")
    engine = Engine(lambda *_args: None)
    folder.attach(engine)
    engine.fire_event(Events.STARTED)
    assert not folder.is_complete
