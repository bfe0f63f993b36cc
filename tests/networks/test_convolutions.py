"""Convolutions that are as fast on one window as on many."""

import copy
import pickle

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DynUNet, SegResNetDS
from torch import nn
from torch.profiler import ProfilerActivity, profile

from medcalib.inferers import MCDropoutSampler, SamplingInferer
from medcalib.networks import fast_convolutions, insert_dropout
from medcalib.networks.convolutions import OneDNNConv3d

SLOW = "aten::slow_conv3d_forward"
CONVOLUTIONS = {
    "plain": {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1},
    "bias": {"in_channels": 1, "out_channels": 8, "kernel_size": 3, "padding": 1, "bias": True},
    "stride": {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1, "stride": 2},
    "axes": {"in_channels": 4, "out_channels": 8, "kernel_size": (1, 3, 3), "padding": (0, 1, 1), "stride": (1, 2, 2)},
    "dilation": {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 2, "dilation": 2},
    "groups": {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1, "groups": 4},
    "one": {"in_channels": 4, "out_channels": 3, "kernel_size": 1},
    "same": {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": "same"},
    "reflected": {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}
LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def pair(**arguments):
    torch.manual_seed(0)
    plain = nn.Conv3d(**arguments)
    return plain, fast_convolutions(copy.deepcopy(plain))


def images(batch_size, channels=4):
    return torch.rand(batch_size, channels, 6, 8, 7, generator=torch.Generator().manual_seed(1)) - 0.5


def segresnet():
    torch.manual_seed(0)
    return SegResNetDS(spatial_dims=3, in_channels=1, out_channels=3, init_filters=8, blocks_down=(1, 1), dsdepth=1)


def operations(function):
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    return {event.key for event in profiler.key_averages()}


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("name", CONVOLUTIONS)
@torch.no_grad()
def test_the_numbers_are_those_of_exact_convolutions(name, batch_size, layout):
    plain, fast = pair(**CONVOLUTIONS[name])
    inputs = images(batch_size, plain.in_channels)
    exact = copy.deepcopy(plain).double()(inputs.double()).float()
    outputs = fast.to(memory_format=layout)(inputs.contiguous(memory_format=layout))
    assert_close(outputs, exact)
    assert_close(outputs, plain.to(memory_format=layout)(inputs.contiguous(memory_format=layout)))


@torch.no_grad()
def test_a_single_small_window_takes_the_fast_path():
    network = segresnet().eval().to(memory_format=torch.channels_last_3d)
    window = torch.rand(1, 1, 16, 16, 16)
    assert SLOW in operations(lambda: network(window))
    expected = network(window)
    fast_convolutions(network)
    assert SLOW not in operations(lambda: network(window))
    assert_close(network(window), expected)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
@torch.no_grad()
def test_results_repeat_and_a_batch_equals_its_cases(layout):
    network = fast_convolutions(segresnet()).eval().to(memory_format=layout)
    windows = torch.rand(3, 1, 16, 16, 16)
    together = network(windows)
    alone = torch.cat([network(window[None]) for window in windows])
    assert torch.equal(together, network(windows))
    assert torch.equal(alone, torch.cat([network(window[None]) for window in windows]))
    assert_close(alone, together)


@torch.no_grad()
def test_strided_windows_and_meta_tensors_are_taken():
    plain, fast = pair(**CONVOLUTIONS["plain"])
    volume = torch.rand(1, 4, 20, 20, 20)
    windows = [
        volume[..., 3:9, 2:12:2, 1:8],
        volume.permute(0, 1, 4, 2, 3)[..., :6, :6, :6],
        volume[:, :, :1].expand(1, 4, 7, 20, 20),
    ]
    for window in windows:
        assert_close(fast(window), plain(window.contiguous()))
    meta = fast(MetaTensor(windows[0], meta={"filename_or_obj": "case"}))
    assert isinstance(meta, MetaTensor)
    assert meta.meta["filename_or_obj"] == "case"


def test_training_steps_stay_as_they_are_to_the_last_bit():
    network = segresnet()
    steps = []
    for trained in (copy.deepcopy(network), fast_convolutions(network)):
        outputs = trained.train()(torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)))
        outputs.square().mean().backward()
        steps.append([outputs.detach(), *(parameter.grad for parameter in trained.parameters()), *trained.buffers()])
    assert all(map(torch.equal, *steps))


def test_layers_that_are_frozen_are_as_fast_as_in_a_prediction():
    """And those behind them get the gradients that they would get."""
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 2, 3, padding=1))
    network[0].requires_grad_(False)
    window = torch.rand(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    features, gradients = [], []
    for trained in (copy.deepcopy(network), fast_convolutions(network)):
        features.append(trained[0](window))
        trained[1](features[-1]).square().mean().backward()
        gradients.append(trained[1].weight.grad)
    with torch.no_grad():
        assert torch.equal(network[0](window), features[1])
    assert not torch.equal(*features)  # the two ways differ in their last bits
    assert_close(*features)
    assert_close(*gradients)


@torch.no_grad()
def test_dropout_draws_the_masks_that_it_drew():
    plain = insert_dropout(segresnet(), ["up_layers.*.blocks.*"], p=0.5).eval()
    fast = fast_convolutions(copy.deepcopy(plain))
    image = MetaTensor(torch.rand(1, 1, 16, 16, 24))
    inferer = SamplingInferer(SlidingWindowInferer((16, 16, 16), sw_batch_size=1), MCDropoutSampler(3))
    expected, outputs = inferer.predict(image, plain), inferer.predict(image, fast)
    assert torch.equal(outputs["pred"], inferer.predict(image, fast)["pred"])
    for key, value in expected.items():
        assert (outputs[key] - value).abs().max() <= 1e-5 * value.abs().max(), key


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")]
)
@torch.no_grad()
def test_other_types_and_devices_are_left_to_torch(monkeypatch, dtype, device):
    plain, fast = pair(**CONVOLUTIONS["plain"])
    monkeypatch.delattr(torch, "mkldnn_convolution")
    inputs = images(1).to(device, dtype)
    outputs, expected = fast.to(device, dtype)(inputs), plain.to(device, dtype)(inputs)
    assert outputs.device == expected.device
    assert outputs.dtype == dtype
    assert device == "meta" or torch.equal(outputs, expected)


@torch.no_grad()
def test_autocast_and_a_switched_off_library_are_left_to_torch(monkeypatch):
    plain, fast = pair(**CONVOLUTIONS["plain"])
    monkeypatch.delattr(torch, "mkldnn_convolution")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(images(1)), plain(images(1)))
        assert fast(images(1)).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(fast(images(1)), plain(images(1)))


@pytest.mark.parametrize("shape", [(4, 6, 6, 6), (0, 4, 6, 6, 6)])
@torch.no_grad()
def test_images_without_a_batch_and_batches_without_an_image(shape):
    plain, fast = pair(**CONVOLUTIONS["plain"])
    assert torch.equal(fast(torch.ones(shape)), plain(torch.ones(shape)))


@pytest.mark.parametrize("shape", [(1, 3, 6, 6, 6), (1, 4, 6, 6), (1, 4, 1, 1, 1)])
@torch.no_grad()
def test_wrong_shapes_are_errors_as_before(shape):
    plain, fast = pair(in_channels=4, out_channels=8, kernel_size=3)
    with pytest.raises(RuntimeError):
        plain(torch.ones(shape))
    with pytest.raises(RuntimeError):
        fast(torch.ones(shape))


@torch.no_grad()
def test_traced_networks_hold_no_operation_of_one_device():
    _, fast = pair(**CONVOLUTIONS["plain"])
    traced = torch.jit.trace(fast, images(1))
    assert "mkldnn" not in str(traced.graph)


@torch.no_grad()
def test_copies_and_pickles_stay_fast_and_weights_keep_their_names():
    network = DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8])
    names = list(network.state_dict())
    fast_convolutions(network)
    assert list(network.state_dict()) == names
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), fast_convolutions(network)):
        convolutions = [module for module in other.modules() if isinstance(module, nn.Conv3d)]
        assert convolutions
        assert {type(convolution) for convolution in convolutions} == {OneDNNConv3d}


def test_subclasses_and_other_axes_stay_as_they_are():
    class Own(nn.Conv3d):
        pass

    network = fast_convolutions(nn.Sequential(Own(1, 2, 3), nn.Conv2d(1, 2, 3), nn.ConvTranspose3d(1, 2, 2)))
    assert [type(module) for module in network] == [Own, nn.Conv2d, nn.ConvTranspose3d]
