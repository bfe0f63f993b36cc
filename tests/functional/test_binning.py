"""Laws and oracles of the bin statistics."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import monai.metrics
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medcalib.functional import BinStatistics, bin_statistics
from medcalib.functional.binning import _bin_statistics

sys.path.insert(0, str(Path(__file__).parents[1]))
import _reference as reference

BACKENDS = ["torch", pytest.param("numba", marks=pytest.mark.skipif(find_spec("numba") is None, reason="needs numba"))]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def example(batch=2, classes=3, shape=(7, 6, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    probs = (3 * torch.randn(batch, classes, *shape, generator=generator)).softmax(1)
    labels = torch.randint(0, classes, (batch, 1, *shape), generator=generator)
    return probs, labels


def one_hot(labels, classes):
    return (labels == torch.arange(classes).reshape(1, -1, *[1] * (labels.ndim - 2))).float()


def assert_same(a, b, **tolerance):
    for mine, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(torch.as_tensor(mine).double(), torch.as_tensor(theirs).double(), **tolerance)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("num_bins", [1, 2, 20, 64])
@pytest.mark.parametrize("target", ["labels", "one_hot", "soft", "masked"])
def test_equals_the_loops(backend, soft, num_bins, target):
    probs, labels = example()
    y, mask = labels, None
    truth = reference.one_hot(labels.flatten(2).numpy(), 3)
    if target == "one_hot":
        y = one_hot(labels, 3)
    elif target == "soft":
        y = torch.rand(probs.shape, generator=torch.Generator().manual_seed(1))
        truth = y.flatten(2).double().numpy()
    elif target == "masked":
        mask = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < 0.6
    wanted = reference.bin_statistics(
        probs.flatten(2).double().numpy(), truth, num_bins, soft, None if mask is None else mask.flatten(2).numpy()
    )
    statistics = _bin_statistics(probs, y, num_bins, soft, mask, backend=backend)
    # Soft centres are those of the published loss, float32 on [0, 1 + eps]; 64 of them amplify that.
    assert_same(statistics, wanted, rtol=1e-6, atol=1e-4 if soft else 1e-9)
    assert statistics.counts.dtype == (torch.float64 if soft else torch.int64)
    assert statistics.sum_pred.dtype == statistics.sum_true.dtype == torch.float64


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("num_bins", [1, 3, 10, 20, 37])
def test_every_boundary_goes_where_monai_puts_it(backend, num_bins, right):
    boundaries = torch.linspace(0, 1 + torch.finfo(torch.float32).eps, num_bins + 1)
    around = torch.cat([boundaries, boundaries.nextafter(torch.tensor(0.0)), boundaries.nextafter(torch.tensor(2.0))])
    probs = around[(around >= 0) & (around <= 1)].reshape(1, 1, -1)
    y = torch.arange(probs.numel()).remainder(2).reshape(probs.shape).float()
    mean_pred, mean_true, counts = monai.metrics.calibration_binning(probs, y, num_bins, right=right)
    statistics = _bin_statistics(probs, y, num_bins, False, None, right=right, backend=backend)
    assert torch.equal(statistics.counts, counts.long())
    torch.testing.assert_close(statistics.mean_pred.float(), mean_pred, equal_nan=True)
    torch.testing.assert_close(statistics.mean_true.float(), mean_true, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (40,), (8, 5), (4, 5, 3), (2, 3, 4, 2)])
def test_dtypes_and_ranks_equal_monai(backend, dtype, shape):
    probs, labels = example(shape=shape)
    probs = probs.to(dtype)
    statistics = _bin_statistics(probs, labels, 20, False, None, backend=backend)
    monai_probs = probs.flatten(2) if shape else probs[..., None]
    truth = one_hot(labels, 3).reshape(monai_probs.shape)
    mean_pred, mean_true, counts = monai.metrics.calibration_binning(monai_probs, truth, 20)
    assert torch.equal(statistics.counts, counts.long())
    torch.testing.assert_close(statistics.mean_pred.float(), mean_pred, equal_nan=True)
    torch.testing.assert_close(statistics.mean_true.float(), mean_true, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.float32])
def test_label_dtypes(backend, dtype):
    probs, labels = example(classes=2)
    wanted = _bin_statistics(probs, labels, 20, False, None, backend="torch")
    assert_same(_bin_statistics(probs, labels.to(dtype), 20, False, None, backend=backend), wanted, rtol=0, atol=1e-10)
    multi_label = one_hot(labels, 2).to(dtype)
    assert_same(_bin_statistics(probs, multi_label, 20, False, None, backend=backend), wanted, rtol=0, atol=1e-10)


def test_metatensor_and_views(backend):
    probs, labels = example()
    wanted = _bin_statistics(probs, labels, 20, True, None, backend=backend)
    views = MetaTensor(probs.permute(1, 2, 3, 4, 0).contiguous()).permute(4, 0, 1, 2, 3), MetaTensor(labels)
    result = _bin_statistics(*views, 20, True, None, backend=backend)
    assert_same(result, wanted)
    assert all(type(part) is torch.Tensor and not part.requires_grad for part in result)


def test_many_classes_beyond_a_byte(backend):
    probs, labels = example(batch=1, classes=300, shape=(50,))
    wanted = reference.bin_statistics(probs.double().numpy(), reference.one_hot(labels.numpy(), 300), 4)
    assert_same(_bin_statistics(probs, labels, 4, False, None, backend=backend), wanted)


@pytest.mark.parametrize("soft", [False, True])
def test_batch_is_its_cases_and_merge_is_the_whole(backend, soft):
    probs, labels = example(batch=3)
    whole = _bin_statistics(probs, labels, 20, soft, None, backend=backend)
    cases = [_bin_statistics(probs[b : b + 1], labels[b : b + 1], 20, soft, None, backend=backend) for b in range(3)]
    assert_same(whole, (torch.cat(parts) for parts in zip(*cases, strict=True)))
    pooled = cases[0].merge(cases[1]).merge(cases[2])
    assert_same(whole.pool(), pooled)
    halves = [
        _bin_statistics(probs[..., part], labels[..., part], 20, soft, None, backend=backend)
        for part in (slice(0, 2), slice(2, None))
    ]
    assert_same(halves[0].merge(halves[1]), whole)


def test_threads_change_nothing_but_rounding():
    probs, labels = example(batch=1, classes=2, shape=(200, 300))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = bin_statistics(probs, labels)
        torch.set_num_threads(3)
        three = bin_statistics(probs, labels)
        assert_same(three, bin_statistics(probs, labels), rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)
    assert_same(one, three, rtol=1e-12, atol=0)


def test_mean_of_empty_bins_is_nan():
    statistics = bin_statistics(torch.full((1, 1, 3), 0.9), torch.ones(1, 1, 3), num_bins=2)
    assert statistics.mean_pred.isnan().tolist() == statistics.mean_true.isnan().tolist() == [[[True, False]]]
    assert statistics.num_bins == 2


def test_merge_refuses_other_bins():
    probs, labels = example()
    with pytest.raises(ValueError, match="one shape"):
        bin_statistics(probs, labels, 10).merge(bin_statistics(probs, labels, 20))


def test_to_moves_all_parts():
    moved = BinStatistics(*torch.zeros(3, 1, 1, 4)).to("meta")
    assert {part.device.type for part in moved} == {"meta"}


@pytest.mark.slow
def test_counts_past_24_bits():
    voxels = 2**24 + 3
    probs = torch.full((1, 1, 1), 0.9).expand(1, 1, voxels)
    statistics = bin_statistics(probs, torch.ones(1, 1, 1, dtype=torch.uint8).expand(1, 1, voxels), num_bins=10)
    assert statistics.counts.max() == statistics.counts.sum() == voxels
    assert statistics.sum_true.sum() == voxels
    assert statistics.sum_pred.sum().item() == pytest.approx(voxels * float(np.float32(0.9)), rel=1e-9)


BAD = {
    "NaN": (torch.tensor([[[0.5, float("nan")]]]), torch.zeros(1, 1, 2), "NaN in batch element 0"),
    "above 1": (torch.tensor([[[0.5, 0.5]], [[0.5, 1.001]]]), torch.zeros(2, 1, 2), "batch element 1"),
    "below 0": (torch.tensor([[[0.5, -0.001]]]), torch.zeros(1, 1, 2), r"\[0, 1\]"),
    "infinite": (torch.tensor([[[0.5, float("inf")]]]), torch.zeros(1, 1, 2), r"\[0, 1\]"),
    "label too large": (torch.rand(1, 3, 2), torch.tensor([[[0, 3]]]), "label 3, but y_pred has 3 classes"),
    "label negative": (torch.rand(1, 3, 2), torch.tensor([[[0, -1]]]), "label -1"),
    "label not whole": (torch.rand(1, 3, 2), torch.tensor([[[0, 0.5]]]), "not whole"),
    "label NaN": (torch.rand(1, 3, 2), torch.tensor([[[0, float("nan")]]]), "label nan"),
    "labels as target": (torch.rand(1, 1, 2), torch.tensor([[[0, 3]]]), r"must lie in \[0, 1\]"),
    "target NaN": (torch.rand(1, 3, 1), torch.full((1, 3, 1), float("nan")), r"must lie in \[0, 1\]"),
    "other voxels": (torch.rand(1, 3, 4), torch.zeros(1, 1, 5), "to fit y_pred"),
    "other classes": (torch.rand(1, 3, 4), torch.zeros(1, 2, 4), "to fit y_pred"),
    "no channel": (torch.rand(1, 3, 4), torch.zeros(1, 4), "to fit y_pred"),
    "one axis": (torch.rand(3), torch.zeros(3), "shape"),
    "integers": (torch.ones(1, 3, 4, dtype=torch.int64), torch.zeros(1, 1, 4), "floating-point"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named(backend, name):
    y_pred, y, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        _bin_statistics(y_pred, y, 20, False, None, backend=backend)


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_bins"):
        bin_statistics(torch.rand(1, 1, 2), torch.zeros(1, 1, 2), num_bins=0)
    with pytest.raises(ValueError, match="mask"):
        bin_statistics(torch.rand(1, 2, 4), torch.zeros(1, 1, 4), mask=torch.ones(1, 2, 4))


def test_what_the_mask_leaves_out_is_not_checked(backend):
    probs, labels = example(batch=1)
    mask = torch.ones_like(labels)
    mask[0, 0, 0] = 0
    wanted = _bin_statistics(probs, labels, 20, False, mask, backend=backend)
    probs[:, :, 0], labels[:, :, 0] = float("nan"), 255
    assert_same(_bin_statistics(probs, labels, 20, False, mask, backend=backend), wanted)


def test_rounding_past_one_is_no_error(backend):
    probs = torch.tensor([[[1 + 3e-7, -1e-8]]])
    assert _bin_statistics(probs, torch.ones(1, 1, 2), 20, False, None, backend=backend).counts.sum() == 2


def test_importing_loads_no_compiler():
    code = "import sys, medcalib.functional; sys.exit(bool({'numba', 'triton'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_works_where_nothing_can_be_cached(monkeypatch):
    from medcalib.functional import _numba_runtime

    real, calls = _numba_runtime.numba.njit, []

    def njit(*, cache=False, **options):
        calls.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(_numba_runtime.numba, "njit", njit)
    assert _numba_runtime.compiled()(lambda x: x + 1)(1) == 2
    assert calls == [True, False]
