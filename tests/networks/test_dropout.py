"""Dropout in any network."""

import copy
import pickle

import pytest
import torch
from monai.networks.blocks import DenseBlock
from monai.networks.layers import DropPath
from monai.networks.nets import UNet
from torch import nn

from medcalib.errors import UserError
from medcalib.networks import insert_dropout, load_weights, stochastic_dropout
from medcalib.networks.dropout import ChannelDropout, ElementDropout, active_dropouts, find_dropouts
from medcalib.networks.module_names import match_modules

KINDS = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, DropPath]


def state_of(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal_states(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Zero(nn.Module):
    """Stands for a dropout that drops everything."""

    def forward(self, input):  # noqa: A002
        return torch.zeros_like(input)


@torch.no_grad()
def test_weights_and_random_state_stay_as_they_are(example, tmp_path):
    plain = copy.deepcopy(example.network)
    before, random_state = state_of(example.network), torch.random.get_rng_state()
    names = [name for name, _ in example.network.named_parameters()]
    network = insert_dropout(example.network, example.blocks, 0.5)
    assert network is example.network
    assert equal_states(before, network.state_dict())
    assert [name for name, _ in network.named_parameters()] == names
    assert torch.equal(torch.random.get_rng_state(), random_state)
    torch.save(plain.state_dict(), tmp_path / "model.pt")
    load_weights(network, tmp_path / "model.pt")
    images = example.images()
    assert torch.equal(network(images), plain(images))


@torch.no_grad()
def test_every_matched_module_is_followed_by_dropout(example):
    """Checked by hooks of our own around each: with everything dropped, what comes out is zero."""
    names = list(match_modules(example.network, example.blocks))
    network = insert_dropout(example.network, example.blocks, 0.5)
    assert set(find_dropouts(network)) == {f"{name}.inserted_dropout" for name in names}
    results = []
    for name in names:
        module = network.get_submodule(name)
        module.inserted_dropout = Zero()
        module.register_forward_hook(lambda _module, _inputs, output: results.append(output.abs().max().item()))
    network(example.images())
    assert results == [0.0] * len(names)


@pytest.mark.parametrize("channelwise", [False, True])
@torch.no_grad()
def test_p_0_is_the_plain_path(example, channelwise):
    images = example.images()
    plain = example.network(images)
    network = insert_dropout(example.network, example.blocks, 0.0, channelwise)
    state = torch.random.get_rng_state()
    with stochastic_dropout(network):
        assert torch.equal(network(images), plain)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("channelwise", [False, True])
@torch.no_grad()
def test_members_differ_and_follow_the_seed(example, channelwise):
    network, images = insert_dropout(example.network, example.blocks, 0.5, channelwise), example.images()
    with stochastic_dropout(network):
        first, second, again = (torch.manual_seed(seed) and network(images) for seed in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
@torch.no_grad()
def test_a_copy_uses_its_own_dropout(example, duplicate):
    network, images = insert_dropout(example.network, example.blocks, 0.5), example.images()
    twin = duplicate(network)
    plain = network(images)
    with stochastic_dropout(network):
        assert torch.equal(twin(images), plain)
    with stochastic_dropout(twin):
        assert not torch.equal(twin(images), plain)
        assert torch.equal(network(images), plain)


def test_training_drops_too(example):
    network, images = insert_dropout(example.network, example.blocks, 0.5), example.images()
    assert not active_dropouts(network)
    network.train()
    assert active_dropouts(network) == find_dropouts(network)
    output = network(images)
    (output[0] if isinstance(output, list) else output).sum().backward()
    assert any(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_elements_are_dropped_with_probability_p_and_the_expectation_is_kept(p, layout):
    torch.manual_seed(0)
    images = torch.full((2, 5, 31, 32, 33), 2.0).contiguous(memory_format=layout)
    dropped = ElementDropout(p)(images)
    assert dropped.stride() == images.stride()
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / images.numel()) ** 0.5)
    assert dropped[~zero].unique().numpy() == pytest.approx([2 / (1 - p)], rel=1e-3)
    assert dropped.mean().item() == pytest.approx(2, rel=0.02)
    # neighbours share a random number of 64 bits, and must not share their fate
    flat = zero.flatten().float() - p
    for shift in (1, 2, 3, 4):
        assert (flat[:-shift] * flat[shift:]).mean().abs() < 5 * p * (1 - p) / flat.numel() ** 0.5


def test_the_gradient_is_that_of_the_mask():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 7, 5, requires_grad=True)
    dropped = ElementDropout(0.5)(images)
    dropped.sum().backward()
    torch.testing.assert_close(images.grad * images.detach(), dropped.detach())


@pytest.mark.parametrize("dropout", [ElementDropout(0.5), ChannelDropout(0.5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 5), (1, 1, 1)])
def test_dropout_keeps_type_and_shape(dropout, dtype, shape):
    images = torch.ones(shape, dtype=dtype)
    dropped = dropout(images)
    assert (dropped.dtype, dropped.shape) == (dtype, images.shape)
    assert set(dropped.unique().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("shape", [(4, 50), (4, 50, 6), (4, 50, 3, 4), (4, 50, 2, 3, 2)])
def test_channels_are_dropped_as_a_whole(shape):
    torch.manual_seed(0)
    dropped = ChannelDropout(0.5)(torch.ones(shape)).reshape(4, 50, -1)
    assert (dropped == dropped[..., :1]).all()
    assert 60 < (dropped[..., 0] == 0).sum() < 140


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_dropout_are_found(kind):
    network = nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), nn.Sequential(kind(0.5)), kind(0.0)).train()
    assert list(find_dropouts(network)) == list(active_dropouts(network)) == ["2.0"]
    network[2].eval()
    assert list(find_dropouts(network)) == ["2.0"]
    assert active_dropouts(network) == {}


def test_dropout_that_monai_builds_is_found():
    assert find_dropouts(UNet(3, 1, 2, (4, 8), (2,), dropout=0.2))
    assert not find_dropouts(UNet(3, 1, 2, (4, 8), (2,)))


@pytest.mark.parametrize("fail", [False, True])
def test_only_dropout_is_stochastic_and_modes_are_restored(example, fail):
    network, images = insert_dropout(example.network, example.blocks, 0.5), example.images()
    # modes that neither train() nor eval() would give
    for number, module in enumerate(network.modules()):
        module.training = number % 3 == 0
    modes = {name: module.training for name, module in network.named_modules()}
    before = state_of(network)
    try:
        with torch.no_grad(), stochastic_dropout(network):
            inside = {name for name, module in network.named_modules() if module.training}
            network(images)
            if fail:
                raise KeyError
    except KeyError:
        pass
    assert inside == set(find_dropouts(network))
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert equal_states(before, network.state_dict())


def test_a_network_without_dropout_is_an_error(example):
    with pytest.raises(UserError, match="no dropout found in"), stochastic_dropout(example.network):
        pass


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_p_must_be_a_probability_below_1(p, segresnet_example):
    with pytest.raises(UserError, match=r"must be in \[0, 1\)"):
        insert_dropout(segresnet_example.network, segresnet_example.blocks, p)


def test_nothing_is_inserted_where_something_is_wrong(segresnet_example):
    network = segresnet_example.network
    with pytest.raises(UserError, match=r"up_layers\.9\.blocks matches no module of SegResNetDS"):
        insert_dropout(network, ["up_layers.*.blocks", "up_layers.9.blocks"])
    assert not find_dropouts(network)
    insert_dropout(network, ["up_layers.0.blocks"])
    with pytest.raises(UserError, match=r"up_layers\.0\.blocks is followed by inserted dropout already"):
        insert_dropout(network, ["up_layers.1.blocks", "up_layers.0.blocks"])
    assert list(find_dropouts(network)) == ["up_layers.0.blocks.inserted_dropout"]
    with pytest.raises(UserError, match="0 is a DenseBlock, which runs its modules in a way of its own"):
        insert_dropout(nn.Sequential(DenseBlock([nn.Identity()])), ["0"])
    with pytest.raises(UserError, match="SegResEncoder, which returns a list"):
        insert_dropout(network, ["encoder"])(segresnet_example.images())
