import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Lambda, RandFlip, RandGaussianNoise

from medcalib.data.caching import SeededCacheDataset, derived_seed


def dataset(seed=0, size=6):
    calls = []
    transform = Compose(
        [
            Compose([Lambda(lambda x: calls.append(1) or x + 1)]),
            RandGaussianNoise(prob=1.0, std=1.0),
            RandFlip(prob=0.5, spatial_axis=0),
        ]
    )
    data = [torch.full((1, 3, 3), float(index)) for index in range(size)]
    made = SeededCacheDataset(data, transform, seed=seed, progress=False, num_workers=1)
    made.calls = calls
    return made


def epoch(made, number, **loader):
    made.set_epoch(number)
    return torch.cat([batch.as_tensor() for batch in DataLoader(made, batch_size=1, **loader)])


def test_only_what_is_deterministic_is_cached():
    made = dataset()
    epoch(made, 1)
    epoch(made, 2)
    assert len(made.calls) == 6


def test_epochs_and_cases_differ():
    made = dataset()
    first, second = epoch(made, 1), epoch(made, 2)
    assert not torch.equal(first, second)
    noise = first - torch.arange(1.0, 7.0).reshape(6, 1, 1, 1)
    assert len({round(float(n.sum()), 4) for n in noise}) == 6


def test_an_epoch_depends_on_nothing_before():
    made, fresh = dataset(), dataset()
    epoch(made, 1)
    made[3]
    assert torch.equal(epoch(made, 2), epoch(fresh, 2))


def test_the_order_does_not_matter():
    made = dataset()
    made.set_epoch(1)
    forwards = [made[index].as_tensor() for index in range(6)]
    backwards = [made[index].as_tensor() for index in reversed(range(6))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_workers_change_nothing():
    assert torch.equal(epoch(dataset(), 2), epoch(dataset(), 2, num_workers=2, multiprocessing_context="fork"))


def test_seeds_differ():
    assert not torch.equal(epoch(dataset(seed=0), 1), epoch(dataset(seed=1), 1))
    seeds = {derived_seed(seed, number, index) for seed in range(5) for number in range(10) for index in range(20)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)
    np.random.RandomState(max(seeds))
