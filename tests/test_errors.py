"""What is said about errors of the machine and of other libraries."""

import errno
import os

import numpy as np
import pytest
import torch

from medcalib.errors import StoppedError, Terminated, environment_message, plain_reason


def full(path=None):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def wrapped(error):
    """As MONAI wraps what a transform raises."""
    try:
        try:
            raise error
        except BaseException as inner:
            raise RuntimeError("applying transform <X>") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (full(), "/out cannot be written (No space left on device)"),
        (wrapped(full("/out/a")), "/out/a cannot be written (No space left on device)"),
        (full("/out/.unfinished.1-1-1-a.predictions/predictions/a"), "/out/predictions/a cannot be written"),
        (
            OSError("Caught OSError ...\nOSError: [Errno 28] No space left on device"),
            "/out cannot be written",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/in/a"), "/in/a cannot be used (Permission denied)"),
        (MemoryError(), "There is not enough memory"),
        (wrapped(np.exceptions.AxisError(3, 2)), None),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"), "not enough"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), None),
        (KeyError("x"), None),
    ],
)
def test_errors_of_the_machine_are_one_sentence_and_others_are_not(error, message):
    told = environment_message(error, "/out")
    if message is None:
        assert told is None
    else:
        assert message in told
        assert ".unfinished" not in told


def test_advice_to_switch_safety_off_is_not_passed_on(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(b"not NumPy")
    for name in ("a.npy", "b.npy"):
        with pytest.raises(ValueError, match="pickle") as error:
            np.load(tmp_path / name, allow_pickle=False)
        assert plain_reason(error.value) == "it holds Python objects, which could run foreign code"


def test_exit_codes_say_what_stopped_a_run():
    assert StoppedError.by(KeyboardInterrupt(), "nothing was written").exit_code == 130
    assert StoppedError.by(Terminated(), "nothing was written").exit_code == 143
