"""What an epoch shows the network, however many processes prepare it and however long they live."""

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader
from monai.transforms import Compose, RandFlip, RandGaussianNoise

from medcalib.data.caching import SeededCacheDataset, SeededPersistentDataset
from medcalib.handlers import EpochSeedHandler

WORKERS = {
    "none": {"num_workers": 0},
    "two": {"num_workers": 2, "multiprocessing_context": "fork"},
    "two that live on": {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True},
}
MAKERS = {
    "memory": lambda *cases, folder: SeededCacheDataset(*cases, seed=3, progress=False, num_workers=1),
    "disk": lambda *cases, folder: SeededPersistentDataset(*cases, folder, seed=3),
}


def epochs(dataset, number=3, **loader):
    """Batches of each epoch, and what a network with dropout would draw on them."""
    seen = []

    def step(engine, batch):
        seen.append((engine.state.epoch, torch.as_tensor(batch).clone(), torch.rand(1)))

    engine = Engine(step)
    EpochSeedHandler(3, dataset).attach(engine)
    engine.run(DataLoader(dataset, batch_size=2, shuffle=True, **loader), max_epochs=number)
    return seen


@pytest.fixture(scope="module", params=MAKERS)
def seen(request, tmp_path_factory):
    transform = Compose([RandGaussianNoise(prob=1.0, std=1.0), RandFlip(prob=0.5, spatial_axis=0)])
    data = [torch.full((1, 3, 3), 10.0 * index) for index in range(6)]
    folder = tmp_path_factory.mktemp("cache")
    return {
        name: epochs(MAKERS[request.param](data, transform, folder=folder), **loader)
        for name, loader in WORKERS.items()
    }


@pytest.mark.parametrize("workers", WORKERS)
def test_workers_change_no_batch_of_any_epoch(seen, workers):
    for (epoch, batch, drawn), (other_epoch, other, other_drawn) in zip(seen[workers], seen["none"], strict=True):
        assert epoch == other_epoch
        assert torch.equal(batch, other)
        assert torch.equal(drawn, other_drawn)


@pytest.mark.parametrize("workers", WORKERS)
def test_no_epoch_is_like_another(seen, workers):
    batches = [torch.cat([batch for epoch, batch, _ in seen[workers] if epoch == number]) for number in (1, 2, 3)]
    noise = [
        (batch.reshape(6, -1) - 10 * (batch.reshape(6, -1).mean(1, keepdim=True) / 10).round()) for batch in batches
    ]
    noise = [part[batch.reshape(6, -1).mean(1).argsort()] for part, batch in zip(noise, batches, strict=True)]
    assert not torch.allclose(noise[0], noise[1])
    assert not torch.allclose(noise[1], noise[2])
