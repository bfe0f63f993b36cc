"""A folder of arrays that stays below its bound, whoever uses it."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from medcalib.files import bounded_folder
from medcalib.files.bounded_folder import BoundedFolder

SIZE = 8000


def entry(value, size=SIZE):
    return {"x": np.full(size // 8, value, np.float64)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def aged(folder, *ages):
    for name, age in ages:
        path = folder / f"{name}.npz"
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))


def test_what_is_written_is_read(tmp_path):
    folder = BoundedFolder(tmp_path / "new", 10**6)
    arrays = {"half": np.arange(6, dtype=np.float16).reshape(2, 3), "column": np.arange(6).reshape(2, 3)[:, 1:]}
    assert folder.write("a", arrays)
    found = BoundedFolder(tmp_path / "new", 10**6).read("a")
    assert list(found) == ["half", "column"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert list(folder.read("a", ["column", "absent"])) == ["column"]
    assert folder.read("b") is None


def test_what_was_not_used_for_longest_goes(tmp_path):
    earlier = BoundedFolder(tmp_path, 10**6)
    for name in "abc":
        earlier.write(name, entry(1))
    aged(tmp_path, ("a", 300), ("b", 200), ("c", 100))
    reader = BoundedFolder(tmp_path, 10**6)
    assert reader.read("a")
    assert BoundedFolder(tmp_path, 3.5 * SIZE).write("d", entry(2))
    assert names(tmp_path) == ["a.npz", "c.npz", "d.npz"]


def test_a_run_does_not_replace_its_own_entries(tmp_path):
    """Else a second run that asks in the same order would find none."""
    BoundedFolder(tmp_path, 10**6).write("old", entry(0))
    folder = BoundedFolder(tmp_path, 3.5 * SIZE)
    assert [folder.write(name, entry(1)) for name in "abcde"] == [True, True, True, False, False]
    assert names(tmp_path) == ["a.npz", "b.npz", "c.npz"]
    assert not folder.write("large", entry(1, 4 * SIZE))


def test_the_bound_holds_whoever_writes(tmp_path):
    folders = [BoundedFolder(tmp_path, 10 * SIZE) for _ in range(2)]
    for index in range(40):
        folders[index % 2].write(str(index), entry(index))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10 * SIZE * (1 + 2 / 64) + SIZE


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "replaced"])
def test_damage_is_noticed(tmp_path, damage):
    folder = BoundedFolder(tmp_path, 10**6)
    folder.write("a", entry(1))
    path = tmp_path / "a.npz"
    content = bytearray(path.read_bytes())
    content[SIZE // 2] ^= 1
    path.write_bytes(
        {"flipped": content, "cut": content[: SIZE // 2], "emptied": b"", "replaced": b"text " * 100}[damage]
    )
    with pytest.warns(UserWarning, match="a.npz is damaged"):
        assert folder.read("a") is None
    assert not path.exists()
    assert folder.write("a", entry(1))
    np.testing.assert_array_equal(folder.read("a")["x"], entry(1)["x"])


def test_every_bit_is_checked(tmp_path):
    """Wherever a bit of an array flips, it is not handed out."""
    folder = BoundedFolder(tmp_path, 10**6)
    folder.write("a", entry(1, 64))
    path = tmp_path / "a.npz"
    content = path.read_bytes()
    start = content.index(np.float64(1).tobytes() * 8)
    for place in range(start, start + 64):
        changed = bytearray(content)
        changed[place] ^= 16
        path.write_bytes(changed)
        with pytest.warns(UserWarning, match="damaged"):
            assert folder.read("a") is None


def test_several_writers_and_readers(tmp_path):
    """Whoever reads finds a complete entry or none, while others write and remove."""
    start = threading.Barrier(4)

    def work(number):
        folder = BoundedFolder(tmp_path, 4 * SIZE)
        start.wait()
        for index in range(60):
            name = str(index % 6)
            folder.write(name, entry(index % 6))
            found = folder.read(name)
            assert found is None or (found["x"] == index % 6).all()
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_what_a_killed_run_left_is_removed(tmp_path):
    left = tmp_path / f"{bounded_folder.draft_path(tmp_path / 'a.npz').name}".replace(f"-{os.getpid()}-", "-99999999-")
    left.write_bytes(b"half")
    BoundedFolder(tmp_path, 10**6).write("b", entry(1))
    assert names(tmp_path) == ["b.npz"]


def test_results_have_room(tmp_path, monkeypatch):
    """Where the disk is nearly full, what is left of it is for results."""
    monkeypatch.setattr(bounded_folder, "RESERVE", 1 << 60)
    with pytest.raises(OSError, match="space") as error:
        BoundedFolder(tmp_path, 10**6).write("a", entry(1))
    assert error.value.errno == errno.ENOSPC
    assert names(tmp_path) == []
