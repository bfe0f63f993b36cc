"""Probabilities and decisions of logits."""

import pytest
import torch

from medcalib.functional import to_decisions, to_probabilities


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32(dtype, sigmoid):
    logits = (4 * torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))).to(dtype)
    wide = logits if dtype == torch.float64 else logits.float()
    found = to_probabilities(logits, sigmoid)
    assert torch.equal(found, wide.sigmoid() if sigmoid else wide.softmax(1))


@pytest.mark.parametrize("dim", [0, 1])
def test_the_first_of_equal_classes_is_chosen(dim):
    probs = torch.tensor([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    found = to_decisions(probs if dim else probs.T, dim=dim)
    assert found.squeeze(dim).tolist() == [0, 1]
    assert found.shape[dim] == 1


@pytest.mark.parametrize(("num_classes", "kind"), [(256, torch.uint8), (257, torch.int32)])
def test_indices_have_the_smallest_type(num_classes, kind):
    found = to_decisions(torch.eye(num_classes))
    assert found.dtype == kind
    assert found[:, 0].tolist() == list(range(num_classes))
