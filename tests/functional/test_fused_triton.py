"""The fused pass of CUDA against the losses' plain path in float64: on CUDA, or without it in Triton's interpreter."""

from importlib.util import find_spec

import pytest
import torch

import medcalib.losses
from medcalib.functional import sums
from medcalib.functional.sums import softmax_sums

INTERPRETED = not torch.cuda.is_available()
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
DEVICE = "cpu" if INTERPRETED else "cuda"
NAMES = [f"{kind}L1ACE{rest}Loss" for kind in ("Hard", "Soft") for rest in ("", "andCE", "andDice", "andDiceCE")]


@pytest.fixture(autouse=True)
def triton_everywhere(monkeypatch):
    monkeypatch.setattr(sums, "choose_backend", lambda _device: "triton")


def make(name, **ace):
    ace = {"softmax": True, **ace}
    if name.endswith("ACELoss"):
        return getattr(medcalib.losses, name)(to_onehot_y=True, **ace)
    params = {"ace_params": ace} | ({"dice_params": {"softmax": True, "squared_pred": True}} if "Dice" in name else {})
    return getattr(medcalib.losses, name)(to_onehot_y=True, **params)


def example(batch=2, classes=3, shape=(9, 8), scale=2.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(batch, classes, *shape, generator=generator)
    return logits, torch.randint(0, classes, (batch, 1, *shape), generator=generator, dtype=torch.uint8)


def value_and_grad(loss, logits, labels):
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(logits, labels)
    value.sum().backward()
    return value.detach(), logits.grad


def both(name, logits, labels, rtol=1e-5, atol=1e-6, **ace):
    wanted, wanted_grad = value_and_grad(make(name, **ace), logits.double(), labels)
    value, grad = value_and_grad(make(name, **ace), logits.to(DEVICE), labels.to(DEVICE))
    torch.testing.assert_close(value.cpu().double(), wanted.double(), rtol=rtol, atol=atol)
    assert grad.dtype == logits.dtype
    coarse = 0 if logits.dtype == torch.float32 else torch.finfo(logits.dtype).eps
    torch.testing.assert_close(grad.cpu().double(), wanted_grad, rtol=max(1e-4, coarse), atol=atol)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_plain_path(name):
    both(name, *example())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["HardL1ACEandDiceCELoss", "SoftL1ACEandDiceCELoss"])
def test_half_precision_is_read_as_it_is(name, dtype):
    logits, labels = example()
    both(name, logits.to(dtype), labels)


@pytest.mark.parametrize("num_bins", [1, 2, 7, 50])
@pytest.mark.parametrize("name", ["HardL1ACELoss", "SoftL1ACELoss"])
def test_numbers_of_bins(name, num_bins):
    both(name, *example(), num_bins=num_bins, reduction="none", right=num_bins == 7)


@pytest.mark.parametrize("classes", [2, 17])
@pytest.mark.parametrize("name", ["HardL1ACEandDiceCELoss", "SoftL1ACEandDiceCELoss"])
def test_numbers_of_classes(name, classes):
    both(name, *example(1, classes, (11,), scale=4.0), num_bins=10)


def test_several_programs():
    both("SoftL1ACEandDiceCELoss", *example(1, 2, (300,)), num_bins=5)


def test_channels_last_and_labels_of_any_dtype():
    logits, labels = example(2, 3, (4, 5))
    last = logits.to(memory_format=torch.channels_last)
    wanted = value_and_grad(make("HardL1ACEandDiceCELoss"), logits.to(DEVICE), labels.to(DEVICE))
    for dtype in (torch.float32, torch.int64, torch.int16):
        found = value_and_grad(make("HardL1ACEandDiceCELoss"), last.to(DEVICE), labels.to(DEVICE, dtype))
        torch.testing.assert_close(found, wanted)
    two = logits[:, :2]
    truth = labels.to(DEVICE) > 0
    wanted = value_and_grad(make("HardL1ACELoss"), two.to(DEVICE), truth.long())
    torch.testing.assert_close(value_and_grad(make("HardL1ACELoss"), two.to(DEVICE), truth), wanted)


def test_probabilities_on_a_boundary_belong_to_the_lower_bin():
    logits = torch.zeros(1, 4, 8, device=DEVICE)
    counts = softmax_sums(logits, torch.zeros(1, 1, 8, device=DEVICE), 4).bins.counts
    assert counts[0, 0].tolist() == [8, 0, 0, 0]


@pytest.mark.parametrize("wrong", ["nan", "inf", "label"])
def test_invalid_values(wrong):
    """The first call looks and waits; later ones turn into NaN."""
    logits, labels = (part.to(DEVICE) for part in example())
    spoilt, mislabelled = logits.clone(), labels.clone()
    if wrong == "label":
        mislabelled[0, 0, 0, 0] = 3
    else:
        spoilt[0, 1, 0, 0] = float(wrong)
    for name in ("HardL1ACEandDiceCELoss", "SoftL1ACELoss"):
        with pytest.raises(ValueError, match="holds label 3" if wrong == "label" else "NaN or infinity"):
            make(name)(spoilt, mislabelled)
        loss = make(name)
        assert loss(logits, labels).isfinite()
        assert loss(spoilt, mislabelled).isnan()


def test_classes_may_have_no_probability():
    logits, labels = (part.to(DEVICE) for part in example(1, 20, (8,)))
    labels %= 3
    logits[:, 3:] = -torch.inf
    value, grad = value_and_grad(make("SoftL1ACEandDiceCELoss"), logits, labels)
    wanted, wanted_grad = value_and_grad(make("SoftL1ACEandDiceCELoss"), logits.cpu().double(), labels.cpu())
    torch.testing.assert_close(value.cpu().double(), wanted.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.cpu().double()[:, :3], wanted_grad[:, :3], rtol=1e-4, atol=1e-6)


def test_the_same_twice():
    logits, labels = (part.to(DEVICE) for part in example(shape=(20, 20) if INTERPRETED else (400, 300)))
    first, second = (value_and_grad(make("SoftL1ACEandDiceCELoss"), logits, labels) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
