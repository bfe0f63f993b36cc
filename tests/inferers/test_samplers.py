"""What draws the members of a prediction."""

import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.networks.nets import SegResNetDS
from monai.transforms import RandGaussianNoise
from torch import nn

from medcalib.errors import UserError
from medcalib.inferers import EnsembleSampler, HeadSampler, MCDropoutSampler, SamplingInferer, TTASampler
from medcalib.networks import NetworkEnsemble, insert_dropout

IMAGE = torch.rand(2, 1, 8, 12, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def segresnet():
    torch.manual_seed(0)
    return SegResNetDS(in_channels=1, out_channels=3, init_filters=4, blocks_down=(1, 1), dsdepth=1).eval()


def with_dropout(network, p=0.5):
    return insert_dropout(network, ["up_layers.*.blocks.*"], p)


@torch.no_grad()
def test_dropout_members_differ_and_repeat(segresnet):
    network = with_dropout(segresnet)
    first = list(MCDropoutSampler(3, seed=1)(IMAGE, network))
    again = list(MCDropoutSampler(3, seed=1)(IMAGE, network))
    other = list(MCDropoutSampler(3, seed=2)(IMAGE, network))
    assert not torch.equal(first[0], first[1])
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


@torch.no_grad()
def test_reuse_changes_nothing(segresnet):
    network = with_dropout(segresnet)
    fast = list(MCDropoutSampler(4)(IMAGE, network))
    plain = list(MCDropoutSampler(4, reuse=False)(IMAGE, network))
    assert all(map(torch.equal, fast, plain))


@torch.no_grad()
def test_dropout_with_p_0_is_the_plain_path(segresnet):
    plain = segresnet(IMAGE)
    members = MCDropoutSampler(2)(IMAGE, with_dropout(segresnet, p=0.0))
    assert all(torch.equal(member, plain) for member in members)


@torch.no_grad()
def test_modes_and_random_state_are_restored(segresnet):
    network = with_dropout(segresnet)
    modes = {name: module.training for name, module in network.named_modules()}
    state = torch.random.get_rng_state()
    list(MCDropoutSampler(2)(IMAGE, network))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {name: module.training for name, module in network.named_modules()} == modes


@torch.no_grad()
def test_only_dropout_is_stochastic(segresnet):
    """Batch norm keeps its statistics."""
    network = with_dropout(segresnet)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    list(MCDropoutSampler(2)(IMAGE, network))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_without_dropout(segresnet):
    with pytest.raises(UserError, match="dropout"):
        next(MCDropoutSampler(2)(IMAGE, segresnet))


@pytest.mark.parametrize("number", [0, -1])
def test_members_must_be_positive(number):
    with pytest.raises(UserError, match="num_members must be at least 1"):
        MCDropoutSampler(number)


@torch.no_grad()
def test_views_of_an_equivariant_network_are_equal():
    """A network that looks at single voxels does not care how the window is turned."""
    network = nn.Conv3d(1, 2, 1)
    plain = network(IMAGE)
    views = list(TTASampler(flip_axes=[0, 1, 2], rotation_axes=[0, 1])(IMAGE, network))
    assert len(views) == 32
    for view in views:
        torch.testing.assert_close(view, plain)


@torch.no_grad()
def test_views_see_what_they_should():
    """Against flips written out by hand, on a network that cares."""
    network = nn.Conv3d(1, 2, 3, padding=1)
    identity, first, second, both = TTASampler(flip_axes=[0, 2])(IMAGE, network)
    torch.testing.assert_close(identity, network(IMAGE))
    torch.testing.assert_close(first, network(IMAGE.flip(2)).flip(2))
    torch.testing.assert_close(second, network(IMAGE.flip(4)).flip(4))
    torch.testing.assert_close(both, network(IMAGE.flip(2, 4)).flip(2, 4))
    turned = list(TTASampler(rotation_axes=[1, 2])(IMAGE, network))[1]
    torch.testing.assert_close(turned, network(IMAGE.rot90(1, [3, 4])).rot90(-1, [3, 4]))


@torch.no_grad()
def test_predictions_without_axes_are_not_turned_back():
    """A classifier gives logits (B, C), in which nothing can be flipped."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(8 * 12 * 12, 3))
    image = IMAGE[..., :12]
    views = list(TTASampler(flip_axes=[0, 1, 2], rotation_axes=[1, 2])(image, network))
    assert len(views) == 32
    assert all(view.shape == (2, 3) for view in views)
    torch.testing.assert_close(views[1], network(image.flip(2)))
    torch.testing.assert_close(views[7], network(image.flip(2, 3, 4)))
    torch.testing.assert_close(views[8], network(image.rot90(1, [3, 4])))
    mean = SamplingInferer(SimpleInferer(), TTASampler(flip_axes=[1, 2]))(image, network)
    torch.testing.assert_close(
        mean.softmax(1),
        torch.stack([network(image.flip(axes)).softmax(1) for axes in ([], [3], [4], [3, 4])]).mean(0),
    )


@torch.no_grad()
def test_intensity_views_double_and_repeat():
    network = nn.Conv3d(1, 2, 3, padding=1)
    sampler = TTASampler(flip_axes=[0], intensity=[RandGaussianNoise(prob=1.0, std=0.1)], seed=3)
    first, again = list(sampler(IMAGE, network)), list(sampler(IMAGE, network))
    assert len(first) == 4
    assert all(map(torch.equal, first, again))
    assert torch.equal(first[0], network(IMAGE))
    assert not torch.equal(first[2], first[0])


@pytest.mark.parametrize("arguments", [{"flip_axes": [3]}, {"rotation_axes": [1, 3]}])
def test_axes_the_data_lacks(arguments):
    with pytest.raises(UserError, match="names axis 3, but the data has 3 spatial axes"):
        next(TTASampler(**arguments)(IMAGE, nn.Identity()))


@pytest.mark.parametrize("arguments", [{"flip_axes": [-1]}, {"flip_axes": [0, 0]}, {"rotation_axes": [0]}])
def test_axes_that_make_no_sense(arguments):
    with pytest.raises(UserError, match="must be"):
        TTASampler(**arguments)


@torch.no_grad()
def test_views_of_an_ensemble(segresnet):
    """A combination is a configuration: every network sees every view."""
    network = NetworkEnsemble(segresnet, 3).eval()
    assert len(list(TTASampler(flip_axes=[0], sampler=EnsembleSampler())(IMAGE, network))) == 6


def test_an_ensemble_sampler_needs_an_ensemble(segresnet):
    with pytest.raises(UserError, match="needs a NetworkEnsemble"):
        next(EnsembleSampler()(IMAGE, segresnet))


def test_heads():
    def network(_inputs):
        return [torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)]

    assert [head.item() for head in HeadSampler()(IMAGE, network)] == [0, 1, 2]
    assert [head.item() for head in HeadSampler(skip_heads=2)(IMAGE, network)] == [2]
    with pytest.raises(UserError, match="skip_heads is 3, but the network has 3 heads"):
        next(HeadSampler(skip_heads=3)(IMAGE, network))
    with pytest.raises(UserError, match="must not be negative"):
        HeadSampler(skip_heads=-1)
    with pytest.raises(UserError, match="several heads"):
        next(HeadSampler()(IMAGE, nn.Identity()))


@torch.no_grad()
def test_dropout_does_not_depend_on_the_order_of_cases(segresnet):
    network = with_dropout(segresnet)
    window = SlidingWindowInferer(roi_size=(8, 8, 8), overlap=0.0)
    inferer = SamplingInferer(window, MCDropoutSampler(2))
    second = inferer(IMAGE[1:], network)
    inferer(IMAGE[:1], network)
    assert torch.equal(inferer(IMAGE[1:], network), second)
