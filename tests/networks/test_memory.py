"""The memory of a training step, found without memory, against what real steps allocate."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks.nets import SegResNetDS
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from medcalib.losses import MultiHeadLoss, SoftL1ACEandDiceCELoss
from medcalib.networks import ImageClassifier, LayerEnsemble, insert_dropout
from medcalib.networks.memory import LiveMemory, training_step_memory


def allocated(function):
    """The most bytes that PyTorch's allocator held at one time during a call, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def size(tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def segresnet(filters=8):
    return SegResNetDS(3, filters, 2, 3, blocks_down=(1, 2, 2), dsdepth=2)


def layer_ensemble():
    return LayerEnsemble(segresnet(), ["encoder.layers.*.blocks", "up_layers.*.blocks"], 3, (2, 24, 24, 16))


def with_dropout():
    return insert_dropout(segresnet(), ["up_layers.*.blocks.*"], 0.2)


def classifier():
    return ImageClassifier(2, 3, spatial_dims=2, block="basic", layers=[1, 1, 1, 1], widths=[8, 16, 32, 64], hidden=[])


DICE_CE = DiceCELoss(to_onehot_y=True, softmax=True)
DEEP = DeepSupervisionLoss(DICE_CE)
L1ACE = SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params={"softmax": True}, dice_params={"softmax": True})
SHAPE = (2, 2, 24, 24, 16)
PLANE = (16, 2, 48, 48)


def class_loss(logits, labels):
    return nn.functional.cross_entropy(logits, labels[:, 0].long())


@pytest.mark.parametrize(
    ("make", "loss", "shape", "label_shape"),
    [
        pytest.param(segresnet, DEEP, SHAPE, (2, 1, *SHAPE[2:]), id="deep supervision"),
        pytest.param(segresnet, DeepSupervisionLoss(L1ACE), SHAPE, (2, 1, *SHAPE[2:]), id="calibration loss"),
        pytest.param(with_dropout, DEEP, SHAPE, (2, 1, *SHAPE[2:]), id="dropout"),
        pytest.param(layer_ensemble, MultiHeadLoss(DEEP, "combined"), SHAPE, (2, 1, *SHAPE[2:]), id="heads"),
        pytest.param(classifier, class_loss, PLANE, (16, 1), id="classifier"),
    ],
)
@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.SGD])
def test_as_much_as_the_allocator_gives_in_a_real_step(make, loss, shape, label_shape, optimizer_class):
    torch.manual_seed(0)
    network = make().train()
    optimizer = optimizer_class(network.parameters(), lr=1e-3)
    images, labels = torch.randn(shape), torch.randint(3, label_shape, dtype=torch.uint8)

    def step():
        loss(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # after which the optimizer has its state
    kept = size([*network.parameters(), *network.buffers(), images])
    state = size(leaf for leaf in tree_leaves(optimizer.state_dict()["state"]) if isinstance(leaf, torch.Tensor))
    real = kept + state + allocated(step)

    with torch.device("meta"):
        imagined = make()
    imagined = imagined.to("meta")
    estimate = training_step_memory(imagined, optimizer_class(imagined.parameters(), lr=1e-3), loss, shape, label_shape)
    # on some processors the kernels of strided convolutions keep a copy of their input in another order
    assert estimate.total == pytest.approx(real, rel=0.2 if make is classifier else 0.1)
    assert estimate.weights == kept - size([images])
    assert estimate.optimizer == pytest.approx(state, rel=1e-3)  # numbers of steps are not counted
    assert estimate.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert max(estimate.activations, estimate.loss) < estimate.total


@pytest.mark.parametrize("loss", [DICE_CE, L1ACE], ids=["dice", "calibration"])
def test_a_loss_of_large_maps(loss):
    shape, label_shape = (2, 3, 48, 40, 56), (2, 1, 48, 40, 56)
    labels = torch.randint(3, label_shape, dtype=torch.uint8)
    logits = torch.randn(shape, requires_grad=True)
    loss(logits, labels).backward()
    with torch.device("meta"):
        network = nn.Conv3d(1, 3, 1)
    optimizer = torch.optim.SGD(network.parameters())
    estimate = training_step_memory(network, optimizer, loss, (2, 1, *shape[2:]), label_shape)
    logits.grad = None
    assert estimate.loss == pytest.approx(allocated(lambda: loss(logits, labels).backward()), rel=0.1)


def test_frozen_weights_need_neither_gradients_nor_activations():
    def estimate(frozen):
        with torch.device("meta"):
            network = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
        network[:3].requires_grad_(not frozen)
        optimizer = torch.optim.AdamW(network.parameters())
        return training_step_memory(network, optimizer, class_loss_of_maps, (1, 8, 32, 32), (1, 1, 32, 32))

    whole, last = estimate(False), estimate(True)
    assert last.parameters == whole.parameters / 4
    assert last.optimizer == whole.optimizer / 4
    assert last.weights == whole.weights
    # what enters the last layer and what leaves it, instead of what enters each
    assert (last.activations, whole.activations) == (2 * 8 * 32 * 32 * 4, 4 * 8 * 32 * 32 * 4)


def class_loss_of_maps(logits, labels):
    return nn.functional.cross_entropy(logits, labels[:, 0].long())


def test_the_estimate_takes_no_memory_itself():
    with torch.device("meta"):
        network = segresnet(filters=64)
    optimizer = torch.optim.AdamW(network.parameters())
    estimates = []
    shape, label_shape = (2, 2, 128, 128, 128), (2, 1, 128, 128, 128)
    taken = allocated(
        lambda: estimates.append(training_step_memory(network, optimizer, DEEP, shape, label_shape)),
    )
    assert estimates[0].total > 1e10
    assert taken < 1e7


def test_a_larger_batch_takes_more_in_proportion():
    def estimate(batch_size):
        with torch.device("meta"):
            network = segresnet()
        optimizer = torch.optim.SGD(network.parameters())
        shape = (batch_size, 2, 32, 24, 16)
        return training_step_memory(network, optimizer, DEEP, shape, (batch_size, 1, *shape[2:]))

    one, two, four = (estimate(size) for size in (1, 2, 4))
    assert four.activations == pytest.approx(2 * two.activations, rel=0.001)
    assert four.activations == pytest.approx(4 * one.activations, rel=0.002)
    assert four.loss == pytest.approx(4 * one.loss, rel=0.02)
    assert four.weights == one.weights


class TestLiveMemory:
    def test_counts_what_the_allocator_gives(self):
        def work():
            first = torch.ones(1000)
            second = first.exp() + 1
            del first
            return second.reshape(10, 100).sum(0)

        with LiveMemory() as memory:
            result = work()
        assert memory.peak == pytest.approx(allocated(work), rel=0.01)
        assert memory.peak == 3 * 4000
        assert memory.current == result.nbytes

    def test_views_and_what_was_there_before_are_free(self):
        before = torch.ones(1000)
        with LiveMemory() as memory:
            views = [before[10:], before.reshape(10, 100), before.add_(1), before.view_as(before)]
        assert (memory.current, memory.peak, len(views)) == (0, 0, 4)
