"""Averages of members, window by window."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import Activations, AsDiscrete, Compose
from torch import nn

from medcalib.functional.agreement import member_agreement
from medcalib.inferers import EnsembleSampler, SamplingInferer, TTASampler
from medcalib.networks import NetworkEnsemble


def sliding(overlap=0.5, **kwargs):
    return SlidingWindowInferer(roi_size=(8, 8), sw_batch_size=3, overlap=overlap, mode="gaussian", **kwargs)


def convolution(seed=0, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, classes, 3, padding=1)).eval()


def ensemble(num_members=4, equal=False):
    made = NetworkEnsemble(convolution(), num_members)
    for index, member in enumerate(made.networks):
        member.load_state_dict(convolution(0 if equal else index).state_dict())
    return made.eval()


@pytest.fixture
def image():
    return torch.rand(2, 1, 13, 19, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("base", [sliding(), sliding(0.0), SimpleInferer()], ids=["gaussian", "disjoint", "whole"])
@torch.no_grad()
def test_one_member_is_the_plain_path(base, image):
    network = convolution()
    plain = base(image, network)
    for sampler in (None, TTASampler()):
        inferer = SamplingInferer(base, sampler, measure_agreement=True)
        assert torch.equal(inferer(image, network), plain)
        predicted = inferer.predict(image, network)
        assert torch.equal(predicted["pred"], plain)
        # nothing is said of several members, also where a sampler happens to draw one
        assert list(predicted) == ["pred"]


@torch.no_grad()
def test_equal_members_give_the_plain_path(image):
    """Blending the logs of means gives what blending logits gives, and nothing disagrees."""
    inferer = SamplingInferer(sliding(), EnsembleSampler(), measure_agreement=True)
    predicted = inferer.predict(image, ensemble(equal=True))
    torch.testing.assert_close(predicted["pred"].softmax(1), sliding()(image, convolution()).softmax(1))
    assert not predicted["mutual_information"].any()
    assert not predicted["variance"].any()
    agreement = predicted["agreement"]
    torch.testing.assert_close(agreement, agreement[..., :1, :1].expand_as(agreement))


@torch.no_grad()
def test_one_window_against_loops(image):
    """Means over members of probabilities, entropies and squares, by NumPy."""
    members = ensemble()
    predicted = SamplingInferer(SimpleInferer(), EnsembleSampler()).predict(image, members)
    probs = np.stack([network(image).double().softmax(1).numpy() for network in members.networks])
    mean = probs.mean(0)
    np.testing.assert_allclose(predicted["pred"].softmax(1), mean, atol=1e-6)

    def entropy(p):
        return -(p * np.log(p)).sum(-3, keepdims=True)

    np.testing.assert_allclose(predicted["mutual_information"], entropy(mean) - entropy(probs).mean(0), atol=1e-6)
    np.testing.assert_allclose(predicted["variance"], probs.var(0).mean(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@torch.no_grad()
def test_agreement_counts_every_voxel_once(image, overlap):
    members = ensemble()
    inferer = SamplingInferer(sliding(overlap), EnsembleSampler(), measure_agreement=True)
    agreement = inferer.predict(image, members)["agreement"]
    assert agreement.shape == (2, 3, 4, 4)
    voxels = image[0].numel()
    np.testing.assert_allclose(agreement.diagonal(dim1=-2, dim2=-1).sum(1), voxels, rtol=1e-5)


@torch.no_grad()
def test_agreement_of_one_window_against_loops(image):
    members = ensemble()
    agreement = SamplingInferer(SimpleInferer(), EnsembleSampler(), measure_agreement=True).predict(image, members)[
        "agreement"
    ]
    labels = [network(image).argmax(1) for network in members.networks]
    for case in range(2):
        for c in range(3):
            for i in range(4):
                for j in range(4):
                    both = ((labels[i][case] == c) & (labels[j][case] == c)).sum()
                    assert agreement[case, c, i, j] == both


@torch.no_grad()
def test_agreement_ignores_padding():
    small = torch.rand(1, 1, 5, 6)
    inferer = SamplingInferer(sliding(), EnsembleSampler(), measure_agreement=True)
    agreement = inferer.predict(small, ensemble())["agreement"]
    np.testing.assert_allclose(agreement.diagonal(dim1=-2, dim2=-1).sum(1), 30, rtol=1e-5)


@torch.no_grad()
def test_a_batch_equals_its_cases(image):
    inferer = SamplingInferer(sliding(), EnsembleSampler(), measure_agreement=True)
    whole = inferer.predict(image, ensemble())
    for case in range(2):
        alone = inferer.predict(image[case : case + 1], ensemble())
        for key, value in alone.items():
            torch.testing.assert_close(whole[key][case : case + 1], value)


@torch.no_grad()
def test_maps_carry_the_meta_data_of_the_image():
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 1, 13, 19), affine=affine)
    predicted = SamplingInferer(sliding(), EnsembleSampler()).predict(image, ensemble())
    for key in ("pred", "mutual_information", "variance"):
        torch.testing.assert_close(predicted[key].affine, affine)


@torch.no_grad()
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_members_are_compared_by_the_labels_that_would_be_exported(activation):
    """Also where a probability is exactly 0.5 or two are equal, which rounding makes of logits that are near."""
    near = torch.tensor([0.0, -0.0, 1e-9, -1e-9, -5e-8, 1e-4, -1e-4, 3.0, -3.0])
    members = [torch.stack([near, torch.zeros_like(near)])[None], torch.stack([-near, near])[None]]
    inferer = SamplingInferer(
        SimpleInferer(), lambda _image, _network: iter(members), activation=activation, measure_agreement=True
    )
    agreement = inferer.predict(torch.zeros(1, 1, len(near)), nn.Identity())["agreement"][0]
    sigmoid = activation == "sigmoid"
    to_segmentation = Compose(
        [
            Activations(softmax=not sigmoid, sigmoid=sigmoid),
            AsDiscrete(argmax=not sigmoid, threshold=0.5 if sigmoid else None),
        ]
    )
    segmentations = [to_segmentation(member[0]) for member in members]
    labels = torch.stack([seg.bool() if sigmoid else seg[0].long() for seg in segmentations])
    torch.testing.assert_close(agreement, member_agreement(labels, num_classes=2))
    if sigmoid:
        assert segmentations[0][0, :5].all()


def test_sigmoid(image):
    members = ensemble()
    inferer = SamplingInferer(SimpleInferer(), EnsembleSampler(), activation="sigmoid", measure_agreement=True)
    predicted = inferer.predict(image, members)
    mean = torch.stack([network(image).sigmoid() for network in members.networks]).mean(0)
    torch.testing.assert_close(predicted["pred"].sigmoid(), mean)
    first, second = (members.networks[i](image) > 0 for i in (0, 1))
    np.testing.assert_allclose(predicted["agreement"][:, :, 0, 1], (first & second).sum((2, 3)))
