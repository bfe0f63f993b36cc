"""Laws that every implementation of the bins keeps, and what happens where one cannot run."""

import warnings
from importlib.util import find_spec

import pytest
import torch

from medcalib.functional import _binning_triton, backends
from medcalib.functional.backends import bin_volume, choose_backend

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
NAMES = ["torch", "numba", pytest.param("triton", marks=needs_triton)]


@pytest.fixture(params=NAMES)
def backend(request):
    """Each backend, on the device that it is for; Triton in its interpreter where there is no CUDA."""
    return request.param, "cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu"


def binned(backend, probs, y, mask=None, **options):
    name, device = backend
    options = {"use_labels": y.ndim == 2, "soft": False, "backend": name} | options
    parts = (None if part is None else part.to(device) for part in (probs, y, mask))
    probs, y, mask = parts
    return bin_volume(probs, y, 5, mask, **options).cpu()


NOTHING = [float("nan"), float("inf"), -float("inf"), 7.0]


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("labels", [True, False])
def test_what_the_mask_leaves_out_may_be_anything(backend, labels, soft, check):
    """And the rest counts as if it stood alone."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(2, 3, 40, generator=generator)
    y = torch.randint(0, 3, (2, 40), generator=generator, dtype=torch.uint8) if labels else probs.flip(0).clone()
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[:, ::3] = False
    alone = binned(backend, probs[..., mask[0]], y[..., mask[0]], soft=soft)
    assert alone.isfinite().all()
    for value in NOTHING:
        probs[..., ~mask[0]] = value
        y[..., ~mask[0]] = 250 if labels else value
        sums = binned(backend, probs, y, mask, soft=soft, check=check)
        torch.testing.assert_close(sums, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_an_empty_mask_counts_nothing(backend, soft):
    probs = torch.full((1, 2, 6), torch.nan)
    sums = binned(backend, probs, torch.zeros(1, 6, dtype=torch.uint8), torch.zeros(1, 6, dtype=torch.bool), soft=soft)
    assert (sums == 0).all()


@pytest.mark.parametrize("value", [float("nan"), 1.5])
def test_what_the_mask_keeps_is_checked(backend, value):
    probs, y = torch.full((1, 1, 6), 0.5), torch.zeros(1, 6, dtype=torch.uint8)
    probs[..., 2] = value
    with pytest.raises(ValueError, match="batch element 0"):
        binned(backend, probs, y, torch.ones(1, 6, dtype=torch.bool))
    if backend[0] != "numba":  # checks always, since that costs it nothing
        assert binned(backend, probs, y, check=False).isnan().all()


@pytest.fixture
def broken(monkeypatch):
    """Triton as the backend of this machine, raising what it is told to."""
    monkeypatch.setattr(backends, "_unusable", set())
    monkeypatch.setattr(backends, "_is_installed", lambda package: True)
    monkeypatch.setattr(backends, "choose_backend", lambda device_type: choose_backend("cuda"))

    def use(error):
        def fail(*arguments, **options):
            raise error

        monkeypatch.setattr(_binning_triton, "forward", fail)

    return use


ERRORS = [
    RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore"),
    PermissionError(13, "Permission denied", "/home/ada/.triton"),
    ImportError("libcuda.so.1: cannot open shared object file"),
    AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_torch_takes_over_with_one_warning(broken, error):
    broken(error)
    probs, y = torch.rand(1, 2, 30), torch.zeros(1, 30, dtype=torch.uint8)
    options = {"use_labels": True, "soft": False}
    wanted = bin_volume(probs, y, 5, backend="torch", **options)
    with pytest.warns(RuntimeWarning, match="plain torch.*triton cannot be used") as caught:
        first = bin_volume(probs, y, 5, **options)
    assert len(caught) == 1
    reason = (str(error).splitlines() or ["AssertionError"])[0]
    assert reason in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = bin_volume(probs, y, 5, **options)
    assert torch.equal(first, wanted)
    assert torch.equal(second, wanted)
    assert choose_backend("cuda") == "torch"


def test_a_full_memory_is_no_reason_to_take_another_backend(broken):
    broken(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        bin_volume(torch.rand(1, 2, 9), torch.zeros(1, 9, dtype=torch.uint8), 5, use_labels=True, soft=False)
    assert choose_backend("cuda") == "triton"


def test_a_backend_that_was_named_fails(broken):
    broken(RuntimeError("no compiler"))
    with pytest.raises(RuntimeError, match="no compiler"):
        bin_volume(torch.rand(1, 2, 9), torch.zeros(1, 9), 5, use_labels=True, soft=False, backend="triton")


def test_numba_on_cpu():
    assert choose_backend("cpu") == "numba"
    assert choose_backend("mps") == "torch"
