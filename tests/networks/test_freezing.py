"""What lies before the first dropout does not change in training."""

import copy

import pytest
import torch
from monai.networks.nets import SegResNetDS
from torch import nn

from medcalib.errors import UserError
from medcalib.networks import freeze_before_dropout, insert_dropout

# the first and the last of the modules with weights that run before the first dropout, and after it
BEFORE = {
    "SegResNetDS": ["encoder.conv_init", "up_layers.0.upsample", "up_layers.0.blocks.0.conv2"],
    "UNet": ["model.0.conv.unit0.conv", "model.1.submodule.1.submodule", "model.1.submodule.2.0.conv"],
    "DynUNet": ["input_block.conv1", "bottleneck.conv2", "upsamples.0.transp_conv", "upsamples.0.conv_block.norm2"],
    "BasicUNet": ["conv_0.conv_0.conv", "down_4.convs.conv_1", "upcat_4.upsample", "upcat_4.convs.conv_1"],
    "DenseNet": ["features.conv0", "features.transition1.conv", "features.denseblock2.denselayer1.layers.norm1"],
    "ResNet": ["conv1", "layer3", "layer4.0.conv2", "layer4.0.downsample"],
}
AFTER = {
    "SegResNetDS": ["up_layers.1", "up_layers.0.head"],
    "UNet": ["model.2", "model.1.submodule.2.1"],
    "DynUNet": ["upsamples.1", "output_block"],
    "BasicUNet": ["upcat_3", "upcat_1", "final_conv"],
    "DenseNet": ["features.denseblock2.denselayer2", "features.norm5", "class_layers.out"],
    "ResNet": ["fc"],
}


def parameters_of(network, names):
    return {
        f"{name}.{part}": parameter
        for name in names
        for part, parameter in network.get_submodule(name).named_parameters()
    }


def train(network, example, steps=3):
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        output = network(example.images(4, seed=step))
        outputs = output if isinstance(output, list) else [output]
        sum((tensor - 1).square().mean() for tensor in outputs).backward()
        optimizer.step()


def test_only_what_follows_the_first_dropout_learns(example):
    network = insert_dropout(example.network, example.blocks, 0.3)
    kind = type(network).__name__
    assert freeze_before_dropout(network, example.shape) is network
    frozen, free = parameters_of(network, BEFORE[kind]), parameters_of(network, AFTER[kind])
    assert frozen
    assert not any(parameter.requires_grad for parameter in frozen.values())
    assert all(parameter.requires_grad for parameter in free.values())
    before = copy.deepcopy(network.state_dict())
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    train(network, example)
    after = network.state_dict()
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name]) == (name not in names), name
    # running statistics stay with the weights of their module
    for name, _ in network.named_buffers():
        kept = f"{name.rpartition('.')[0]}.weight" not in names
        assert torch.equal(after[name], before[name]) == kept, name


def test_modes_stay_as_they_were(example):
    network = insert_dropout(example.network.train(), example.blocks, 0.3)
    freeze_before_dropout(network, example.shape)
    assert all(module.training for module in network.modules())


def test_a_copy_is_frozen_too(segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks)
    twin = copy.deepcopy(freeze_before_dropout(network, segresnet_example.shape))
    before = copy.deepcopy(twin.encoder.state_dict())
    train(twin, segresnet_example)
    assert all(torch.equal(value, before[name]) for name, value in twin.encoder.state_dict().items())


def test_the_order_of_running_counts_not_that_of_definition():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.dropout, self.first, self.unused = (
                nn.Linear(2, 2),
                nn.Dropout(0.5),
                nn.Linear(2, 2),
                nn.Linear(2, 2),
            )
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.last(self.dropout(self.first(x) * self.scale))

    network = freeze_before_dropout(Backwards(), (2,))
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == [
        "first.weight",
        "first.bias",
    ]


def test_dropout_with_probability_0_that_a_network_holds_does_not_count():
    network = nn.Sequential(nn.Dropout(0.0), nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2))
    freeze_before_dropout(network, (2,))
    assert [parameter.requires_grad for parameter in network.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("network", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0))])
def test_without_dropout_there_is_nothing_to_freeze(network):
    with pytest.raises(UserError, match="no dropout found in"):
        freeze_before_dropout(network, (2,))


def test_hooks_are_removed(segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks)
    network.encoder = SegResNetDS(3, 4, 1, 3, blocks_down=(1, 1, 1), norm=("instance", {"affine": True})).encoder
    before = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in network.encoder.modules()]
    freeze_before_dropout(network, segresnet_example.shape)
    after = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in network.encoder.modules()]
    assert after == before
