"""The check of the device says what works, and what takes the place of what does not."""

import pytest
import torch

from medcalib import device_check as module
from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_check import main
from medcalib.device_check import check_device
from medcalib.errors import UserError
from medcalib.functional import _binning_numba
from medcalib.losses import SoftL1ACEandDiceCELoss


@pytest.fixture
def command(capsys):
    """Run the command in this process: its exit code, and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            run_command(call_with_options, main, ["--device_only", *arguments], "check")
        printed = capsys.readouterr()
        return end.value.code, printed.out + printed.err

    return run


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--bundle=x"], "bundle"),
        (["--seed=0"], "seed"),
        (["--num_bins=3"], "num_bins"),
        (["--allow_edited"], "allow_edited"),
    ],
)
def test_a_bundle_is_not_checked_beside_it(command, arguments, name):
    code, printed = command(*arguments)
    assert code == 2
    assert f"so --{name} means nothing beside it" in printed


def test_cpu_works(command):
    code, printed = command("--device", "cpu")
    assert code == 0
    assert printed.splitlines() == [
        f"Device: cpu, torch {torch.__version__}",
        "  binning with torch: works",
        "  binning with numba: works",
        "  binning: works",
        "  training step: works",
        "Bins are summed by numba.",
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_says_that_it_is_the_cpu(command):
    code, printed = command()
    assert code == 0
    assert "no CUDA device" in printed


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_works():
    check = check_device("cuda")
    assert set(check.results.values()) == {None}
    assert "binning with triton: works" in check.text


def test_what_fails_is_said(command, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("\nFailed to find C compiler.\nSet CC.")

    monkeypatch.setattr(SoftL1ACEandDiceCELoss, "forward", fail)
    code, printed = command("--device=cpu")
    assert code == 2
    assert "  training step: fails, RuntimeError: Failed to find C compiler.\n" in printed


def test_wrong_sums_are_found(monkeypatch):
    forward = _binning_numba.forward
    monkeypatch.setattr(_binning_numba, "forward", lambda *args, **options: (forward(*args, **options)[0] + 1, True))
    check = check_device("cpu")
    assert not check.works
    assert "differ from those of plain torch" in check.results["binning with numba"]


def test_what_has_a_substitute_may_fail(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "numba" else name)
    check = check_device("cpu")
    assert check.works
    assert check.results["binning with numba"] == "it is not installed"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps", "meta"])
def test_no_such_device(device):
    with pytest.raises(UserError, match=f"--device={device} is not there"):
        check_device(device)
