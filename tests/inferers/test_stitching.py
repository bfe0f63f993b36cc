"""Sliding windows are put together where there is memory."""

import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer

from medcalib.inferers import MCDropoutSampler, SamplingInferer, stitching

NUM_CLASSES = 5
SIZE = (11, 9, 10)
BYTES = 4 * NUM_CLASSES * 11 * 9 * 10


@pytest.fixture
def windows():
    return SlidingWindowInferer(roi_size=(6, 6, 6), sw_batch_size=2, overlap=0.5, mode="gaussian")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.Dropout(0.3), torch.nn.Conv3d(8, 5, 1))


@pytest.fixture
def image():
    return torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def stitched_on(monkeypatch):
    """Give the device so much free memory; the devices on which windows were put together, in order."""

    def limit(free):
        monkeypatch.setattr(stitching, "free_memory", lambda device: free)
        seen, call = [], SlidingWindowInferer.__call__

        def seeing(self, *args, **kwargs):
            seen.append(str(self.device))
            return call(self, *args, **kwargs)

        monkeypatch.setattr(SlidingWindowInferer, "__call__", seeing)
        return seen

    return limit


@torch.no_grad()
@pytest.mark.parametrize("num_members", [1, 3])
def test_a_prediction_that_does_not_fit_is_the_same_on_the_cpu(stitched_on, windows, network, image, num_members):
    network.eval()
    sampler = MCDropoutSampler(num_members=num_members) if num_members > 1 else None
    inferer = SamplingInferer(windows, sampler, measure_agreement=True)
    expected = inferer.predict(image, network)
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    inferer.predict(image, network)
    num_calls = len(calls)
    seen = stitched_on(2 * BYTES)
    found = inferer.predict(image, network)
    assert "cpu" in seen
    assert len(calls) == 2 * num_calls
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@torch.no_grad()
@pytest.mark.parametrize("free", [3 * BYTES, None])
def test_what_fits_stays(stitched_on, windows, network, image, free):
    seen = stitched_on(free)
    SamplingInferer(windows)(image, network.eval())
    assert seen == ["None"]


@torch.no_grad()
def test_a_device_that_is_named_is_used(stitched_on, windows, network, image):
    seen = stitched_on(0)
    windows.device = torch.device("cpu")
    SamplingInferer(windows)(image, network.eval())
    assert seen == ["cpu"]


@torch.no_grad()
def test_other_inferers_are_left_alone(stitched_on, network, image):
    stitched_on(0)
    assert SamplingInferer(SimpleInferer())(image, network.eval()).shape == (1, NUM_CLASSES, *SIZE)
