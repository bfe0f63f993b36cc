"""One module gives what inferer, calibrator and activation give one after the other."""

import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import nn

from medcalib.calibrators import TemperatureScaling
from medcalib.inferers import EnsembleSampler, HeadSampler, PortableNetwork, SamplingInferer, TTASampler
from medcalib.networks import LayerEnsemble, MultiHead, NetworkEnsemble


def convolutions(classes=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1)).eval()


def ensemble():
    made = NetworkEnsemble(convolutions(), 3)
    for number, network in enumerate(made.networks):
        network[0].bias.data += number
    return made.eval()


def calibrator(activation="softmax"):
    made = TemperatureScaling(3, activation)
    made.log_temperature.data.fill_(0.7)
    made.mark_fitted()
    return made


CASES = {
    "single": (convolutions, None),
    "tta": (convolutions, TTASampler([0, 1])),
    "rotations": (convolutions, TTASampler([], rotation_axes=[0, 1])),
    "ensemble": (ensemble, EnsembleSampler()),
    "ensemble of views": (ensemble, TTASampler([1], sampler=EnsembleSampler())),
    "multi_head": (lambda: MultiHead(convolutions(), ["2"], 3).eval(), HeadSampler()),
    "layer_ensemble": (lambda: LayerEnsemble(convolutions(), ["0"], 3, (1, 8, 8)).eval(), HeadSampler()),
}


@torch.no_grad()
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("calibrate", ["mean", "members", None])
@pytest.mark.parametrize("case", CASES)
def test_it_equals_inferer_calibrator_and_activation(case, calibrate, activation):
    make, sampler = CASES[case]
    network, of_all = make(), calibrator(activation) if calibrate else None
    images = torch.randn(2, 1, 8, 8)
    portable = PortableNetwork(network, sampler, activation, of_all, calibrate or "mean").eval()
    members = of_all if calibrate == "members" else None
    logits = SamplingInferer(SimpleInferer(), sampler, activation, member_calibrator=members)(images, network)
    if calibrate == "mean":
        logits = of_all(logits)
    expected = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    torch.testing.assert_close(portable(images), expected, atol=1e-6, rtol=0)
    # traced with two windows, it takes any number of them
    traced = torch.jit.trace(portable, images, check_trace=False)
    torch.testing.assert_close(traced(images.repeat(2, 1, 1, 1)), expected.repeat(2, 1, 1, 1), atol=1e-6, rtol=0)


@torch.no_grad()
def test_members_are_averaged_as_probabilities():
    network, images = ensemble(), torch.randn(2, 1, 8, 8)
    mean = torch.stack([one(images).softmax(1) for one in network.networks]).mean(0)
    torch.testing.assert_close(PortableNetwork(network, EnsembleSampler())(images), mean, atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_single_network_can_be_scripted():
    portable, images = PortableNetwork(convolutions(), calibrator=calibrator()).eval(), torch.randn(3, 1, 8, 8)
    assert torch.equal(torch.jit.script(portable)(images), portable(images))


@torch.no_grad()
@pytest.mark.parametrize("case", ["single", "multi_head", "layer_ensemble", "ensemble"])
def test_it_takes_the_weights_of_the_network_alone(case):
    make, sampler = CASES[case]
    trained, images = make(), torch.randn(1, 1, 8, 8)
    for value in trained.parameters():
        value.add_(0.1)
    portable = PortableNetwork(make(), sampler, calibrator=calibrator()).eval()
    portable.load_state_dict(trained.state_dict())
    assert torch.equal(portable(images), PortableNetwork(trained, sampler, calibrator=calibrator()).eval()(images))
    # and its own
    again = PortableNetwork(make(), sampler, calibrator=calibrator()).eval()
    again.load_state_dict(portable.state_dict())
    assert torch.equal(portable(images), again(images))
    with pytest.raises(RuntimeError, match="Missing key"):
        portable.load_state_dict({"other": torch.zeros(1)})


@torch.no_grad()
def test_inferers_predict_with_the_network_inside():
    network, image = convolutions(), torch.randn(1, 1, 20, 20)
    inferer = SamplingInferer(SlidingWindowInferer((8, 8), overlap=0.5))
    portable = PortableNetwork(network, calibrator=calibrator())
    assert torch.equal(inferer(image, portable), inferer(image, network))
    assert torch.equal(inferer.predict(image, portable)["pred"], inferer(image, network))
