"""The folder of a comparison."""

import pytest

from medcalib.compare import comparison_folder
from medcalib.errors import UserError


def fill(folder, text="new"):
    (folder / "comparison.csv").write_text(text)
    (folder / "figures").mkdir()
    (folder / "figures" / "forest.pdf").write_text(text)


def write(path, meanwhile=lambda: None, stop=None):
    with comparison_folder(path) as draft:
        fill(draft)
        meanwhile()
        if stop:
            raise stop


def test_an_older_comparison_is_replaced_as_a_whole(tmp_path):
    for text in ("old", "new"):
        with comparison_folder(tmp_path / "out") as draft:
            fill(draft, text)
            if text == "old":
                (draft / "index.html").write_text(text)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.csv", "figures"]
    assert (tmp_path / "out" / "figures" / "forest.pdf").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_after_an_error_the_older_one_is_there(tmp_path):
    with comparison_folder(tmp_path / "out") as draft:
        fill(draft, "old")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", stop=KeyboardInterrupt)
    assert (tmp_path / "out" / "comparison.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["notes.txt", "figures/scan.nii.gz", "seed_1/model.pt"])
def test_what_is_not_its_own_is_never_lost(tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UserError, match="which is no part of a comparison and would be lost"):
        write(tmp_path / "out", stop=AssertionError)
    assert path.read_text() == "mine"


def test_what_came_meanwhile_is_not_lost_either(tmp_path):
    def meanwhile():
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(UserError, match="out holds mine.txt"):
        write(tmp_path / "out", meanwhile)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_file_in_its_place_and_an_impossible_place_are_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file is a file in the place of a folder"):
        write(tmp_path / "file", stop=AssertionError)
    with pytest.raises(UserError, match="out cannot be written"):
        write(tmp_path / "file" / "out", stop=AssertionError)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_a_name(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="No output is given"), comparison_folder(""):
        pass
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with comparison_folder(".") as draft:
        (draft / "comparison.csv").write_text("new")
    assert (tmp_path / "empty" / "comparison.csv").read_text() == "new"
