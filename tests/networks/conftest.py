"""Small networks of MONAI with the names of the modules that the uncertainty methods need."""

from dataclasses import dataclass

import pytest
import torch
from monai.networks.nets import BasicUNet, DenseNet, DynUNet, ResNet, SegResNetDS, UNet
from torch import nn


@dataclass
class Example:
    network: nn.Module
    shape: tuple
    """(channels, ...) of an image"""
    blocks: list
    """after which dropout is inserted, the last ones of the network"""
    heads: list
    layers: list

    def images(self, batch_size=2, seed=0):
        return torch.randn(batch_size, *self.shape, generator=torch.Generator().manual_seed(seed))


def segresnet(dims):
    network = SegResNetDS(dims, 4, 1, 3, blocks_down=(1, 1, 1), dsdepth=2)
    layers = ["encoder.layers.*.blocks", "up_layers.*.blocks"]
    return Example(network, (1, *[8] * dims), ["up_layers.*.blocks.*"], ["up_layers.*.head"], layers)


def unet():
    # its blocks are sequences and hold batch norm and in-place activations
    network = UNet(2, 1, 3, (4, 8, 16), (2, 2), num_res_units=1, norm="batch", act=("relu", {"inplace": True}))
    layers = ["model.0", "model.1.submodule.2", "model.1.submodule.0"]
    return Example(network, (1, 8, 8), ["model.1.submodule.2.*"], ["model.2.1"], layers)


def dynunet():
    # it holds modules under several names, and returns one tensor of all resolutions in training
    network = DynUNet(3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 16], deep_supervision=True, deep_supr_num=1)
    heads = ["output_block", "deep_supervision_heads.0"]
    return Example(network, (1, 8, 8, 8), ["upsamples.*.conv_block"], heads, ["upsamples.*", "downsamples.*"])


def basic_unet():
    network = BasicUNet(2, 1, 3, (4,) * 6)
    return Example(network, (1, 32, 32), ["upcat_?.convs"], ["final_conv"], ["down_*", "upcat_*"])


def densenet():
    network = DenseNet(2, 1, 3, init_features=4, growth_rate=4, block_config=(2, 2), bn_size=2)
    return Example(network, (1, 32, 32), ["features.denseblock2.**"], ["class_layers.out"], ["features.denseblock*"])


def resnet():
    network = ResNet("basic", [1] * 4, [4, 4, 8, 8], 3, 1, num_classes=3, conv1_t_size=3)
    return Example(network, (1, 16, 16, 16), ["layer4.0", "avgpool"], ["fc"], ["layer?"])


EXAMPLES = {
    "segresnet_3d": lambda: segresnet(3),
    "segresnet_2d": lambda: segresnet(2),
    "unet": unet,
    "dynunet": dynunet,
    "basic_unet": basic_unet,
    "densenet": densenet,
    "resnet": resnet,
}


@pytest.fixture(params=EXAMPLES)
def example(request):
    """Each of the networks in turn, in evaluation mode."""
    torch.manual_seed(0)
    made = EXAMPLES[request.param]()
    made.network.eval()
    return made


@pytest.fixture
def segresnet_example():
    """The default network of the bundles."""
    torch.manual_seed(0)
    made = segresnet(3)
    made.network.eval()
    return made
