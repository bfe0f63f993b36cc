"""A run of a network that changes nothing."""

import pytest
import torch

from medcalib.networks.trial_run import trial_run


def test_nothing_changes(example):
    network = example.network.train()
    for number, module in enumerate(network.modules()):
        module.training = number % 3 == 0
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.random.get_rng_state()
    output = trial_run(network, example.shape)
    assert torch.equal(output, network.eval()(torch.zeros(1, *example.shape)))
    assert not output.requires_grad
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    trial_run(network, example.shape)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_modes_are_restored_after_an_error(segresnet_example):
    network = segresnet_example.network.train()
    with pytest.raises(ValueError, match="divisible"):
        trial_run(network, (1, 5, 5, 5))
    assert all(module.training for module in network.modules())


def test_the_image_has_the_type_of_the_weights(segresnet_example):
    assert trial_run(segresnet_example.network.double(), (1, 8, 8, 8)).dtype == torch.float64
