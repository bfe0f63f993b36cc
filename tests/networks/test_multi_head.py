"""Several heads on one trunk."""

import copy

import pytest
import torch
from monai.networks.nets import SegResNetDS
from torch import nn

from medcalib.errors import UserError
from medcalib.networks import MultiHead
from medcalib.networks.module_names import match_modules


def single(network, names, number):
    """The plain network with head ``number`` of the banks in it."""
    network = copy.deepcopy(network)
    for name in names:
        network.set_submodule(name, network.get_submodule(name).heads[number])
    return network


def flat(output):
    return output if isinstance(output, list) else [output]


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_each_head_is_a_network_of_its_own(example, training):
    """The slow way: one whole network for every head."""
    plain = copy.deepcopy(example.network).train(training)
    network = MultiHead(example.network, example.heads, 3).train(training)
    names = [name for name, head in match_modules(plain, example.heads).items() if list(head.parameters())]
    images = example.images(4)
    slow = []
    for number in range(3):
        for name in names:
            plain.set_submodule(name, network.network.get_submodule(name).heads[number])
        if type(plain).__name__ == "DynUNet":
            plain.skip_layers.next_layer.super_head = plain.skip_layers.super_head = plain.deep_supervision_heads[0]
        slow.append(copy.deepcopy(plain)(images))
    heads = network(images)
    assert len(heads) == 3
    for head, expected in zip(heads, slow, strict=True):
        assert isinstance(head, list) == isinstance(expected, list)
        for tensor, other in zip(flat(head), flat(expected), strict=True):
            torch.testing.assert_close(tensor, other, rtol=1e-5, atol=1e-6)
    assert all(
        not torch.equal(flat(heads[0])[i], flat(heads[n])[i]) for i in range(len(flat(heads[0]))) for n in (1, 2)
    )


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_one_head_is_the_plain_network(example, training):
    plain = copy.deepcopy(example.network).train(training)
    (head,) = MultiHead(example.network, example.heads, 1).train(training)(example.images(4))
    assert all(map(torch.equal, flat(head), flat(plain(example.images(4)))))


def test_the_trunk_runs_once(segresnet_example):
    runs = []
    segresnet_example.network.encoder.register_forward_hook(lambda *_: runs.append(1))
    MultiHead(segresnet_example.network, segresnet_example.heads, 5)(segresnet_example.images())
    assert len(runs) == 1


def test_the_gradient_of_a_head_reaches_itself_and_the_trunk(segresnet_example):
    network = MultiHead(segresnet_example.network, segresnet_example.heads, 3).train()
    sum(tensor.square().mean() for tensor in network(segresnet_example.images())[1]).backward()
    for level in (0, 1):
        heads = network.network.up_layers[level]["head"].heads
        assert [head.weight.grad.abs().max() > 0 for head in heads] == [False, True, False]
    assert network.network.encoder.conv_init.weight.grad.abs().max() > 0


def test_heads_have_weights_of_their_own_and_the_first_keeps_its(segresnet_example):
    before = segresnet_example.network.up_layers[1]["head"].weight.clone()
    network = MultiHead(segresnet_example.network, segresnet_example.heads, 3)
    weights = [head.weight for head in network.network.up_layers[1]["head"].heads]
    assert torch.equal(weights[0], before)
    assert len({weight.sum().item() for weight in weights}) == 3
    bound = before.shape[1] ** -0.5
    assert all(0.5 * bound < weight.abs().max() <= bound for weight in weights)


def test_heads_without_weights_stay_as_they_are():
    network = SegResNetDS(2, 4, 1, 3, blocks_down=(1, 1, 1), dsdepth=1)
    MultiHead(network, ["up_layers.*.head"], 2)
    assert isinstance(network.up_layers[0]["head"], nn.Identity)


def test_mistakes(segresnet_example):
    network, images = segresnet_example.network, segresnet_example.images()
    with pytest.raises(UserError, match="num_heads must be at least 1, not 0"):
        MultiHead(network, segresnet_example.heads, 0)
    with pytest.raises(UserError, match="heads matches no module"):
        MultiHead(network, ["up_layers.*.heads"], 2)
    with pytest.raises(UserError, match="only modules without weights"):
        MultiHead(network, ["**.act1"], 2)
    with pytest.raises(UserError, match=r"blocks\.0 lies in up_layers\.0\.blocks"):
        MultiHead(network, ["up_layers.*.blocks", "up_layers.0.blocks.*"], 2)
    with pytest.raises(UserError, match="Scale .*has no reset_parameters"):
        MultiHead(nn.Sequential(Scale()), ["0"], 2)
    incomplete = MultiHead(copy.deepcopy(network), ["up_layers.1.head"], 2)
    assert len(incomplete(images)) == 2
    with pytest.raises(UserError, match=r"for 2 heads and 2 images its shape is \(2, 3, 4, 4, 4\)"):
        incomplete.train()(images)
    chained = MultiHead(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["0", "1"], 2)
    with pytest.raises(UserError, match="exactly one of the heads"):
        chained(torch.zeros(1, 2))


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
