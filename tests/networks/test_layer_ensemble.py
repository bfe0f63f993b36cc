"""Heads at intermediate layers."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.networks import LayerEnsemble, MultiHead, insert_dropout, stochastic_dropout

# layers of the examples in the order in which they run
ORDER = {
    "SegResNetDS": [f"encoder.layers.{i}.blocks" for i in range(3)] + [f"up_layers.{i}.blocks" for i in range(2)],
    "UNet": ["model.0", "model.1.submodule.0", "model.1.submodule.2"],
    "DynUNet": ["downsamples.0", "upsamples.0", "upsamples.1"],
    "BasicUNet": ["down_1", "down_2", "down_3", "down_4", "upcat_4", "upcat_3", "upcat_2", "upcat_1"],
    "DenseNet": ["features.denseblock1", "features.denseblock2"],
    "ResNet": ["layer1", "layer2", "layer3", "layer4"],
}


def ensemble_of(example, **options):
    return LayerEnsemble(example.network, example.layers, 3, example.shape, **options)


@torch.no_grad()
def test_heads_stand_in_the_order_of_running(example):
    network = ensemble_of(example).eval()
    assert network.layers == ORDER[type(example.network).__name__]
    outputs, final = network(example.images()), example.network(example.images())
    assert len(outputs) == len(network.layers) + 1
    assert all(output.shape == final.shape for output in outputs)
    assert torch.equal(outputs[-1], final)


@torch.no_grad()
def test_the_order_of_running_counts_not_that_of_definition():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.repeated, self.first = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(1, 4, 1)

        def forward(self, x):
            return self.last(self.repeated(self.middle(self.repeated(self.first(x)))))

    trunk = Backwards()
    trunk.middle = nn.Conv2d(4, 4, 1)
    network, images = LayerEnsemble(trunk, ["*"], 2, (1, 4, 4), kernel_size=1), torch.randn(1, 1, 4, 4)
    # a layer that runs twice stands where it runs last, and its head sees what it returns there
    assert network.layers == ["first", "middle", "repeated", "last"]
    features = trunk.repeated(trunk.middle(trunk.repeated(trunk.first(images))))
    torch.testing.assert_close(network(images)[2], network.heads[2].conv(features))


@pytest.mark.parametrize("kernel_size", [1, 3])
@torch.no_grad()
def test_heads_equal_convolutions_of_recorded_features(example, kernel_size):
    network, images, recorded = ensemble_of(example, kernel_size=kernel_size).eval(), example.images(), {}
    for name in network.layers:
        layer = example.network.get_submodule(name)
        layer.register_forward_hook(lambda _m, _i, output, name=name: recorded.setdefault(name, output.clone()))
    outputs = network(images)
    dims = images.ndim - 2
    convolve = F.conv2d if dims == 2 else F.conv3d
    for name, head, output in zip(network.layers, network.heads, outputs, strict=False):
        logits = convolve(recorded[name], head.conv.weight, head.conv.bias, padding=kernel_size // 2)
        if output.ndim == 2:
            expected = logits.mean(list(range(2, dims + 2)))
        else:
            expected = F.interpolate(logits, images.shape[2:], mode="bilinear" if dims == 2 else "trilinear")
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert head.conv.kernel_size == (kernel_size,) * dims


def test_all_heads_learn(example):
    network = ensemble_of(example, dropout=0.1).train()
    *heads, final = network(example.images(4))
    example.network.train()
    outputs = [*heads, *(final if isinstance(final, list) else [final])]
    # each alone, so that the gradient of one does not hide that another has none
    for head, output in zip(network.heads, outputs, strict=False):
        network.zero_grad()
        output.square().mean().backward(retain_graph=True)
        assert head.conv.weight.grad.abs().max() > 0
        assert next(example.network.parameters()).grad.abs().max() > 0
    network.zero_grad()
    sum(output.square().mean() for output in outputs).backward()


def test_in_training_the_last_entry_is_what_the_network_returns(segresnet_example):
    *heads, final = ensemble_of(segresnet_example).train()(segresnet_example.images())
    assert all(isinstance(head, torch.Tensor) for head in heads)
    assert [tuple(tensor.shape) for tensor in final] == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 4)]


def test_layers_whose_output_is_overwritten_can_have_heads():
    """The network adds to what upsample returned, and normalisation is followed by an activation in place."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))
    network = LayerEnsemble(trunk, ["0", "1"], 2, (1, 6, 6)).train()
    images = torch.randn(2, 1, 6, 6)
    outputs = network(images)
    features = trunk[0](images)
    torch.testing.assert_close(outputs[0], network.heads[0].conv(features))
    torch.testing.assert_close(outputs[1], network.heads[1].conv(features.relu()))
    sum(output.square().mean() for output in outputs).backward()
    wanted = torch.autograd.grad(
        sum(
            output.square().mean()
            for output in (
                network.heads[0].conv(trunk[0](images)),
                network.heads[1].conv(trunk[0](images).relu()),
                trunk[2](trunk[0](images).relu()),
            )
        ),
        trunk[0].weight,
    )[0]
    torch.testing.assert_close(trunk[0].weight.grad, wanted)


def test_nothing_is_kept(segresnet_example):
    network, images = ensemble_of(segresnet_example), segresnet_example.images()
    kept = []
    for layer in ("encoder", "up_layers.1.blocks"):
        module = segresnet_example.network.get_submodule(layer)
        module.register_forward_hook(
            lambda _m, _i, output: kept.extend(map(weakref.ref, output if isinstance(output, list) else [output]))
        )
    with torch.no_grad():
        network(images)
    gc.collect()
    assert len(kept) == 4
    assert all(reference() is None for reference in kept)
    assert all(
        len(network.network.get_submodule(name)._forward_hooks) == (name == "up_layers.1.blocks")
        for name in network.layers
    )


def test_hooks_are_removed_after_an_error(segresnet_example):
    network = ensemble_of(segresnet_example)
    with pytest.raises(ValueError, match="divisible"):
        network(torch.zeros(1, 1, 5, 5, 5))
    assert not any(module._forward_hooks for module in network.modules())


@torch.no_grad()
def test_a_copy_is_independent(example):
    network, images = ensemble_of(example).eval(), example.images()
    twin, before = copy.deepcopy(network), network(images)
    for parameter in twin.parameters():
        parameter.zero_()
    assert all(output.abs().max() == 0 for output in twin(images))
    assert all(map(torch.equal, network(images), before))


@torch.no_grad()
def test_dropout_of_the_heads_is_stochastic(segresnet_example):
    network, images = ensemble_of(segresnet_example, dropout=0.5).eval(), segresnet_example.images()
    with stochastic_dropout(network):
        first, second = network(images), network(images)
    assert [torch.equal(*pair) for pair in zip(first, second, strict=True)] == [False] * 5 + [True]
    with pytest.raises(UserError, match="no dropout"), stochastic_dropout(ensemble_of(segresnet_example)):
        pass


@torch.no_grad()
def test_methods_can_be_put_into_one_another(segresnet_example):
    insert_dropout(segresnet_example.network, segresnet_example.blocks)
    segresnet_example.network = MultiHead(segresnet_example.network, segresnet_example.heads, 2)
    network = LayerEnsemble(segresnet_example.network, ["network.encoder.layers.*.blocks"], 3, (1, 8, 8, 8)).eval()
    outputs = network(segresnet_example.images())
    assert [len(output) for output in outputs] == [2, 2, 2, 2]


def test_mistakes(segresnet_example):
    network = segresnet_example.network
    with pytest.raises(UserError, match=r"matches no module of SegResNetDS; .*encoder\.layers\.0\.blocks"):
        LayerEnsemble(network, ["encoder.layer.0.blocks"], 3, (1, 8, 8, 8))
    with pytest.raises(UserError, match="encoder returns list"):
        LayerEnsemble(network, ["encoder"], 3, (1, 8, 8, 8))
    with pytest.raises(UserError, match="0.0 of Unused did not run"):
        LayerEnsemble(Unused(nn.Sequential(nn.Conv2d(1, 1, 1))), ["0.0", "1"], 2, (1, 8, 8))
    layers = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match=r"2 returns \(1, 3\), not features of 2 spatial dimensions"):
        LayerEnsemble(layers, ["2"], 3, (1, 8, 8))
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        ensemble_of(segresnet_example, kernel_size=2)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
        ensemble_of(segresnet_example, dropout=1.0)
    assert not any(module._forward_hooks for module in network.modules())


class Unused(nn.Sequential):
    def __init__(self, unused):
        super().__init__(unused, nn.Conv2d(1, 2, 1))

    def forward(self, x):
        return self[1](x)
