"""Expected sizes of classes, and their interval against draws of labels that err together."""

import pytest
import torch

from medcalib.functional.class_sizes import class_volumes


@pytest.fixture
def probs():
    generator = torch.Generator().manual_seed(0)
    return torch.softmax(3 * torch.randn(3, 6, 7, 8, generator=generator), 0)


def test_the_interval_is_that_of_sizes_drawn_with_one_number_for_all_voxels(probs):
    sizes = class_volumes(probs, confidence=0.9)
    levels = torch.linspace(0, 1, 20001)[:-1] + 0.5 / 20000
    drawn = torch.stack([(probs.flatten(1) > level).sum(1) for level in levels]).double()
    torch.testing.assert_close(drawn.mean(0), sizes.expected, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(drawn.quantile(0.05, 0), sizes.low, rtol=0, atol=1.01)
    torch.testing.assert_close(drawn.quantile(0.95, 0), sizes.high, rtol=0, atol=1.01)


def test_it_holds_the_expected_size_and_that_of_the_segmentation(probs):
    sizes = class_volumes(probs)
    exported = torch.bincount(probs.argmax(0).flatten(), minlength=3)
    assert (sizes.low <= exported).all()
    assert (exported <= sizes.high).all()


def test_certain_voxels_leave_no_interval():
    sizes = class_volumes(torch.tensor([[1.0, 1.0, 0.0]]))
    assert sizes.expected.item() == sizes.low.item() == sizes.high.item() == 2


@pytest.mark.parametrize("confidence", [0, 1, 1.5])
def test_a_confidence_outside_of_its_range_is_refused(probs, confidence):
    with pytest.raises(ValueError, match="confidence"):
        class_volumes(probs, confidence)
