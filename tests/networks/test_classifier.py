"""The classifier of whole images."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.networks import ImageClassifier, MultiHead, insert_dropout, load_features, stochastic_dropout
from medcalib.networks.dropout import find_dropouts

IMAGES = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def small(seed=0, **arguments):
    torch.manual_seed(seed)
    given = {"block": "basic", "layers": [1, 1, 1, 1], "widths": [4, 8, 8, 16], "hidden": [8]} | arguments
    return ImageClassifier(3, 2, **given)


def norm(x, state, name):
    parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *parts)


def resnet(x, state, layers):
    """A ResNet of bottlenecks in evaluation mode, written down from its definition, with torchvision's names."""
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(x, state, "bn1").relu(), 3, 2, 1)
    for stage, number in enumerate(layers, start=1):
        for block in range(number):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            out = norm(F.conv2d(x, state[f"{name}.conv1.weight"]), state, f"{name}.bn1").relu()
            out = F.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            out = norm(out, state, f"{name}.bn2").relu()
            out = norm(F.conv2d(out, state[f"{name}.conv3.weight"]), state, f"{name}.bn3")
            if block == 0:
                x = norm(
                    F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), state, f"{name}.downsample.1"
                )
            x = (x + out).relu()
    return x.mean((2, 3))


def torchvision_names(layers):
    names = ["conv1.weight", *(f"bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var"))]
    for stage, number in enumerate(layers, start=1):
        for block in range(number):
            parts = [f"conv{i}.weight" for i in (1, 2, 3)]
            parts += [f"bn{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias", "running_mean", "running_var")]
            if block == 0:
                parts += ["downsample.0.weight"]
                parts += [f"downsample.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            names += [f"layer{stage}.{block}.{part}" for part in parts]
    return names


@torch.no_grad()
def test_features_are_those_of_a_resnet_50_with_the_same_weights():
    network = ImageClassifier(3, 2).eval()
    state = network.features.state_dict()
    assert sorted(n for n in state if not n.endswith("num_batches_tracked")) == sorted(torchvision_names([3, 4, 6, 3]))
    generator = torch.Generator().manual_seed(1)
    for name, value in state.items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(generator=generator).mul_(0.1)
    features = network.features(IMAGES)
    assert features.shape == (3, 2048)
    torch.testing.assert_close(features, resnet(IMAGES, state, [3, 4, 6, 3]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_head_is_a_perceptron():
    network = ImageClassifier(3, 5, layers=[1, 1, 1, 1]).eval()
    sizes = [(m.in_features, m.out_features) for m in network.head.modules() if isinstance(m, nn.Linear)]
    assert sizes == [(2048, 1024), (1024, 512), (512, 256), (256, 128), (128, 5)]
    values = torch.rand(3, 2048)
    expected = values
    *hidden, last = (m for m in network.head.modules() if isinstance(m, nn.Linear))
    for layer in hidden:
        expected = layer(expected).relu()
    torch.testing.assert_close(network.head(values), last(expected))


@torch.no_grad()
def test_without_hidden_layers_the_head_is_linear():
    network = small(hidden=[]).eval()
    torch.testing.assert_close(
        network(IMAGES), F.linear(network.features(IMAGES), network.head.output.weight, network.head.output.bias)
    )


@torch.no_grad()
def test_the_heads_dropout_acts_in_training_alone():
    network = small(dropout=0.5)
    values = torch.rand(3, 16)
    assert not torch.equal(network.head(values), network.head(values))
    network.eval()
    assert torch.equal(network.head(values), network.head(values))


@torch.no_grad()
def test_mc_dropout_draws_at_the_features_alone():
    network = insert_dropout(small(dropout=0.5).eval(), ["features"], p=0.5)
    assert list(find_dropouts(network)) == ["features.inserted_dropout"]
    with stochastic_dropout(network):
        features = [network.features(IMAGES) for _ in range(2)]
        assert not torch.equal(*features)
        assert torch.equal(network.head(features[0]), network.head(features[0]))


def test_weights_of_another_training(tmp_path):
    """A state dict in torchvision's form: another last layer, and no numbers of batches."""
    source, network = small(seed=1), small(seed=2)
    state = {n: v for n, v in source.features.state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(state | {"fc.weight": torch.zeros(1000, 16), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet.pth")
    head = network.head.output.weight.clone()
    assert load_features(network, tmp_path / "resnet.pth") is network
    for name, value in state.items():
        assert torch.equal(network.features.state_dict()[name], value)
    assert torch.equal(network.head.output.weight, head)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_weights_of_an_image_classifier_with_other_classes(tmp_path):
    source = small(seed=1, hidden=[4])
    torch.save(source.state_dict(), tmp_path / "model.pt")
    network = MultiHead(small(seed=2), ["head"], num_heads=2)
    load_features(network, tmp_path / "model.pt")
    assert torch.equal(network.network.features.conv1.weight, source.features.conv1.weight)


def test_frozen_features_stay_and_the_head_learns():
    network = load_features(small(), None, frozen=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(2):
        network.train()
        optimizer.zero_grad()
        F.cross_entropy(network(IMAGES), torch.tensor([0, 1, 1])).backward()
        optimizer.step()
    changed = {
        name.partition(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"head"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; network::weights names"),
        (b"not a checkpoint", "is not a readable state dict"),
        ({"conv1.weight": 3}, "is not a readable state dict"),
        ({"conv1.weight": torch.zeros(1)}, "another architecture"),
    ],
)
def test_wrong_weights_are_named(tmp_path, content, message):
    path = tmp_path / "resnet50.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=f"resnet50.pth.*{message}"):
        load_features(small(), path)


def test_other_networks_have_no_features():
    with pytest.raises(UserError, match="Linear holds no ImageClassifier"):
        load_features(nn.Linear(1, 1), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "dense"}, "The block of a ResNet must be basic or bottleneck, not 'dense'"),
        ({"dropout": 1.0}, "dropout of the head must be a number in .*, not 1.0"),
        ({"dropout": "1e-1"}, "dropout of the head must be a number in .*, not '1e-1'"),
        ({"layers": [1, 1, 1]}, "The layers of a ResNet must be four whole numbers"),
        ({"widths": [4, 8, 16, 0]}, "The widths of a ResNet must be four whole numbers"),
        ({"widths": 8}, "The widths of a ResNet must be four whole numbers of at least 1, not 8"),
        ({"hidden": 16}, "hidden layers of the head must be a list of their widths, not 16"),
        ({"hidden": [16.0]}, "hidden layers of the head must be a list of their widths"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        small(**arguments)
