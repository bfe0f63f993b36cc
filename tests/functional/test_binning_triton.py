"""The Triton kernel against plain torch: on CUDA, or without it in Triton's interpreter."""

from importlib.util import find_spec

import pytest
import torch

from medcalib.functional import _binning_triton, _kernels_triton
from medcalib.functional.backends import bin_volume_backward
from medcalib.functional.binning import _bin_statistics

INTERPRETED = not torch.cuda.is_available()
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cpu" if INTERPRETED else "cuda"


def both(probs, y, num_bins=20, soft=False, mask=None, right=False):
    wanted = _bin_statistics(probs, y, num_bins, soft, mask, right=right, backend="torch")
    probs, y, mask = (None if part is None else part.to(DEVICE) for part in (probs, y, mask))
    result = _bin_statistics(probs, y, num_bins, soft, mask, right=right, backend="triton")
    for mine, theirs in zip(result, wanted, strict=True):
        # float32 rounds the share of a soft bin, and the sums of some thousand voxels.
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-6, atol=1e-4 if soft else 1e-6)


def example(dtype=torch.float32, shape=(5, 5, 5)):
    generator = torch.Generator().manual_seed(0)
    probs = (3 * torch.randn(2, 3, *shape, generator=generator)).softmax(1).to(dtype)
    return probs, torch.randint(0, 3, (2, 1, *shape), generator=generator)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("num_bins", [1, 2, 20, 100])
def test_equals_torch(soft, num_bins):
    probs, labels = example()
    both(probs, labels, num_bins, soft)
    both(probs, torch.rand_like(probs), num_bins, soft, mask=torch.rand(labels.shape) < 0.5)


@pytest.mark.parametrize("soft", [False, True])
def test_several_parts_of_a_row(soft):
    """Tiles begin at multiples of 128 voxels, and some are cut short."""
    both(*example(shape=(300,)), soft=soft)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    both(*example(dtype))
    both(*example(dtype), soft=True)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("num_bins", [3, 20])
def test_boundaries(right, num_bins):
    boundaries = torch.linspace(0, 1 + torch.finfo(torch.float32).eps, num_bins + 1)[:-1]
    around = torch.cat([boundaries, boundaries.nextafter(torch.tensor(2.0)), torch.ones(1)]).reshape(1, 1, -1)
    both(around, (around > 0.3).float(), num_bins, right=right)


def test_grid_has_one_axis(monkeypatch):
    """The others end at 65,535 programs, and there is a row for every case and class."""
    grids = []

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *arguments, **options: None

    monkeypatch.setattr(_kernels_triton, "bin_forward", Kernel())
    probs = torch.zeros(300, 300, 5)
    _binning_triton.forward(probs, torch.zeros(300, 5), 20, use_labels=True, soft=False)
    assert grids == [(90_000,)]


def test_no_rows():
    sums = _binning_triton.forward(torch.zeros(0, 3, 5), torch.zeros(0, 5), 20, use_labels=True, soft=False)
    assert sums.shape == (0, 3, 20, 3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_more_rows_than_an_axis_takes():
    probs = torch.rand(70_000, 1, 3)
    both(probs, (probs > 0.5).float())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_losses_on_cuda_wait_only_once():
    from medcalib.losses import SoftL1ACEandDiceCELoss

    logits, labels = (part.cuda() for part in example())
    params = {"softmax": True}
    loss = SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params=params, dice_params=params)
    first = loss(logits.requires_grad_(), labels)
    wanted = SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params=params, dice_params=params)(logits.cpu(), labels.cpu())
    torch.testing.assert_close(first.cpu(), wanted, rtol=1e-5, atol=1e-6)
    ace = loss.losses[0]
    torch.cuda.set_sync_debug_mode("error")
    try:
        ace(logits, labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert ace(logits, labels + 7).isnan()


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_equals_that_of_torch(soft, labels):
    probs, y = example()
    probs, y = probs.flatten(2), y.flatten(1).to(torch.uint8) if labels else torch.rand(2, 3, 125)
    gradients = torch.randn(2, 2, 3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"use_labels": labels, "soft": soft}
    wanted = bin_volume_backward(probs, y, *gradients, **options, backend="torch")
    gradients = gradients.to(DEVICE)
    found = bin_volume_backward(probs.to(DEVICE), y.to(DEVICE), *gradients, **options, backend="triton")
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-4, atol=1e-4)
