"""What is computed slab by slab is what is computed of the whole."""

import pytest
import torch

from medcalib.functional.activation import case_decisions, to_decisions, to_probabilities, to_probabilities_
from medcalib.functional.slabs import can_overwrite, slabs

# odd sizes, so that no plane ends where a vector of the CPU does
SHAPES = [(5,), (3, 7), (4, 67, 5), (3, 131, 9, 7), (2, 200, 8, 8)]


def logits(*shape):
    return 6 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    """Let slabs be so small that these volumes have several."""
    monkeypatch.setattr(slabs, "__defaults__", (1024,))


@pytest.mark.parametrize("shape", SHAPES)
def test_slabs_hold_every_voxel_once(shape):
    values = torch.zeros(shape)
    for part in slabs(values):
        values[part] += 1
    assert (values == 1).all()


def test_big_volumes_have_several_slabs_and_all_end_where_vectors_do():
    volume = torch.zeros(3, 131, 9, 7)
    sizes = [volume[part][0].numel() for part in slabs(volume)]
    assert len(sizes) > 2
    assert all(size % 64 == 0 for size in sizes[:-1])


@pytest.mark.parametrize("size", [64, 1000, 1 << 22])
@pytest.mark.parametrize("shape", [(3, 131, 9, 7), (16, 64, 33)])
def test_sums_over_classes_are_the_same_bit_by_bit(shape, size):
    values = logits(*shape).softmax(0)
    found = torch.cat([values[part].sum(0) for part in slabs(values, size)])
    assert torch.equal(found, values.sum(0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_take_the_place_of_logits_bit_by_bit(shape, sigmoid, dtype):
    values = logits(*shape).to(dtype)
    whole = to_probabilities(values, sigmoid, dim=0)
    found = to_probabilities_(values, sigmoid)
    assert found is values
    assert torch.equal(found, whole)


def test_logits_that_do_not_lie_one_after_the_other():
    values = logits(3, 140, 12, 10)[:, 3:-2, :, 1:-1]
    whole = to_probabilities(values, dim=0)
    assert torch.equal(to_probabilities_(values), whole)


@pytest.mark.parametrize(
    "values",
    [
        logits(3, 8).half(),
        logits(3, 1).expand(3, 8),
        logits(3, 8).requires_grad_(),
    ],
    ids=["half", "expanded", "remembered"],
)
def test_logits_that_cannot_be_written_over_stay(values):
    before = values.detach().clone()
    found = to_probabilities_(values)
    assert torch.equal(found, to_probabilities(before, dim=0))
    assert torch.equal(values, before)


def test_what_was_inferred_cannot_be_written_over():
    with torch.inference_mode():
        values = torch.zeros(2, 3)
    assert not can_overwrite(values)
    assert to_probabilities_(values).tolist() == [[0.5] * 3] * 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigmoid", [False, True])
def test_decisions_of_a_case(shape, sigmoid):
    probs = logits(*shape).softmax(0)
    found = case_decisions(probs, sigmoid)
    assert torch.equal(found, to_decisions(probs, sigmoid, dim=0))
    assert found.dtype == to_decisions(probs, sigmoid, dim=0).dtype
