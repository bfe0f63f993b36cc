"""A damaged file of tensors is never read as if it were whole."""

import pickle
from contextlib import suppress

import pytest
import torch

from medcalib.errors import UserError
from medcalib.files.tensors import load_tensors, save_tensors


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    content = {"a": torch.randn(40), "b": {"c": torch.arange(5), "d": "text"}}
    save_tensors(content, tmp_path / "model.pt")
    return tmp_path / "model.pt", content


def same(first, second):
    return (
        torch.equal(first["a"], second["a"])
        and torch.equal(first["b"]["c"], second["b"]["c"])
        and first["b"]["d"] == second["b"]["d"]
    )


@pytest.mark.filterwarnings("ignore:.*has no checksum")
def test_no_flipped_bit_changes_a_number(saved):
    path, content = saved
    whole, accepted = path.read_bytes(), []
    for place in {*range(0, len(whole), 7), *range(len(whole) - 500, len(whole), 2)}:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with suppress(UserError):
            assert same(load_tensors(path), content), f"byte {place} of {len(whole)}"
            accepted.append(place)
    assert len(accepted) <= len("sha256:") + 2, "more than where a checksum is no longer known as one, and its length"


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_refused(saved, part):
    path, _ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=r"model\.pt is not a readable checkpoint \(its? .*\); train again"):
        load_tensors(path, "checkpoint", "train again")


def test_pytorch_reads_the_file(saved):
    path, content = saved
    assert same(torch.load(path, weights_only=True), content)


@pytest.mark.parametrize("new_format", [True, False])
def test_an_older_file_without_checksums_is_taken_with_a_word(saved, new_format):
    path, content = saved
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.warns(UserWarning, match=r"model\.pt has no checksum"):
        assert same(load_tensors(path), content)


@pytest.mark.parametrize("new_format", [True, False])
def test_nobody_is_told_to_switch_safety_off(tmp_path, new_format):
    class Foreign:
        def __reduce__(self):
            return print, ("code of the file ran",)

    torch.save({"a": Foreign()}, tmp_path / "a.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match="holds Python objects, which could run foreign code") as error:
        load_tensors(tmp_path / "a.pt")
    assert "weights_only" not in str(error.value)
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Foreign()))
    with pytest.raises(UserError) as error:
        load_tensors(tmp_path / "b.pt")
    assert "weights_only" not in str(error.value)


def test_a_missing_file_is_the_callers_affair(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none.pt")
