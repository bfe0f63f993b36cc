"""The loss of a network with several heads."""

import math

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.losses import CrossEntropyLoss, MultiHeadLoss

SIZES = [(7, 6), (4, 5, 6)]
MODES = ["combined", "individual", "average", "meta"]


def example(size=(7, 6), heads=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = [2 * torch.randn(batch, 3, *size, generator=generator) for _ in range(heads)]
    return [tensor.requires_grad_() for tensor in logits], torch.randint(
        3, (batch, 1, *size), generator=generator
    ).float()


def resolutions(size=(8, 8), heads=3):
    fine, target = example(size, heads)
    coarse, _ = example([length // 2 for length in size], heads, seed=1)
    return [list(pair) for pair in zip(fine, coarse, strict=True)], target


def gradients(loss, heads):
    return torch.autograd.grad(loss, heads)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["combined", "individual"])
def test_combined_is_the_sum_and_has_the_gradient_of_separate_passes(size, mode):
    heads, target = example(size)
    plain = CrossEntropyLoss()
    value = MultiHeadLoss(plain, mode)(heads, target)
    assert value.item() == pytest.approx(sum(plain(head, target).item() for head in heads), rel=1e-6)
    combined = gradients(value, heads)
    for head in heads:
        plain(head, target).backward()
    assert all(torch.equal(head.grad, gradient) for head, gradient in zip(heads, combined, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_average_is_the_loss_of_the_mean_probability(size):
    heads, target = example(size)
    mean = sum(head.double().softmax(1) for head in heads) / len(heads)
    expected = F.nll_loss(mean.log(), target[:, 0].long())
    assert MultiHeadLoss(CrossEntropyLoss(), "average")(heads, target).item() == pytest.approx(
        expected.item(), rel=1e-6
    )
    # a loss may take it for logarithms of probabilities, or apply softmax once more
    as_is = MultiHeadLoss(lambda logits, y: F.nll_loss(logits, y[:, 0].long()), "average")(heads, target)
    assert as_is.item() == pytest.approx(expected.item(), rel=1e-6)
    dice = DiceCELoss(softmax=True, to_onehot_y=True)
    expected = dice(mean.log(), target)
    assert MultiHeadLoss(dice, "average")(heads, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_average_of_sigmoid_heads():
    heads, _ = example()
    target = torch.rand(2, 3, 7, 6, generator=torch.Generator().manual_seed(5)).round()
    mean = sum(head.double().sigmoid() for head in heads) / len(heads)
    expected = F.binary_cross_entropy(mean, target.double())
    loss = MultiHeadLoss(torch.nn.BCEWithLogitsLoss(), "average", activation="sigmoid")
    assert loss(heads, target).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_average_is_safe_where_heads_are_certain(activation):
    heads = [torch.full((1, 2, 3), 1e4, dtype=torch.float16), torch.full((1, 2, 3), -1e4, dtype=torch.float16)]
    heads[0][:, 1], heads[1][:, 1] = -1e4, 1e4
    for head in heads:
        head.requires_grad_()
    loss = MultiHeadLoss(CrossEntropyLoss(), "average", activation=activation)
    value = loss(heads, torch.zeros(1, 1, 3))
    assert value.item() == pytest.approx(math.log(2), rel=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients(value, heads))


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 0.5])
def test_meta_weighs_the_best_head(epsilon):
    heads, target = example(heads=4)
    plain = [CrossEntropyLoss()(head, target) for head in heads]
    best = min(range(4), key=lambda head: plain[head].item())
    weights = [1 - epsilon if head == best else epsilon for head in range(4)]
    value = MultiHeadLoss(CrossEntropyLoss(), "meta", epsilon)(heads, target)
    assert value.item() == pytest.approx(sum(w * p.item() for w, p in zip(weights, plain, strict=True)), rel=1e-6)
    for weight, gradient, alone in zip(weights, gradients(value, heads), gradients(sum(plain), heads), strict=True):
        torch.testing.assert_close(gradient, weight * alone)


def test_meta_has_the_published_default():
    heads, target = example()
    default = MultiHeadLoss(CrossEntropyLoss(), "meta")(heads, target)
    assert torch.equal(default, MultiHeadLoss(CrossEntropyLoss(), "meta", epsilon=0.2)(heads, target))


@pytest.mark.parametrize("mode", [*MODES[:3], "meta without epsilon"])
@pytest.mark.parametrize("make", [example, resolutions])
def test_one_head_is_the_plain_loss(mode, make):
    heads, target = make(heads=1)
    plain = DeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    loss = MultiHeadLoss(plain, "meta", 0.0) if "without" in mode else MultiHeadLoss(plain, mode)
    assert torch.equal(loss(heads, target), plain(heads[0], target))


@pytest.mark.parametrize("mode", ["combined", "meta"])
def test_heads_may_have_several_resolutions(mode):
    heads, target = resolutions()
    # as of a layer ensemble: only the last head has several
    heads[0] = heads[0][0]
    plain = DeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    values = [plain(head, target).item() for head in heads]
    expected = sum(values) if mode == "combined" else 0.6 * min(values) + 0.2 * sum(values)
    assert MultiHeadLoss(plain, mode)(heads, target).item() == pytest.approx(expected, rel=1e-6)


def test_average_of_every_resolution():
    heads, target = resolutions()
    means = [sum(head[level].double().softmax(1) for head in heads).div(3).log() for level in range(2)]
    plain = DeepSupervisionLoss(CrossEntropyLoss())
    assert MultiHeadLoss(plain, "average")(heads, target).item() == pytest.approx(plain(means, target).item(), rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_equal_heads_and_their_order(mode):
    heads, target = example()
    loss, plain = MultiHeadLoss(CrossEntropyLoss(), mode), CrossEntropyLoss()(heads[0], target)
    torch.testing.assert_close(loss(heads[::-1], target), loss(heads, target))
    factor = {"average": 1.0, "meta": 0.8 + 2 * 0.2}.get(mode, 3.0)
    torch.testing.assert_close(loss(heads[:1] * 3, target), factor * plain)


def test_mistakes():
    heads, target = example()
    with pytest.raises(UserError, match="mode of .* must be one of combined, individual, average, meta, not 'mean'"):
        MultiHeadLoss(CrossEntropyLoss(), "mean")
    with pytest.raises(ValueError, match="relu"):
        MultiHeadLoss(CrossEntropyLoss(), "average", activation="relu")
    for epsilon in (-0.1, 1.1, float("nan"), "much"):
        with pytest.raises(UserError, match=r"epsilon of .* must be a number in \[0, 1\]"):
            MultiHeadLoss(CrossEntropyLoss(), "meta", epsilon)
    for wrong in (heads[0], []):
        with pytest.raises(ValueError, match="list with what each head returns"):
            MultiHeadLoss(CrossEntropyLoss())(wrong, target)
    average = MultiHeadLoss(DeepSupervisionLoss(CrossEntropyLoss()), "average")
    with pytest.raises(ValueError, match="have shapes"):
        average([heads[0], heads[1][..., :3]], target)
    for wrong in ([heads[0], heads[1:]], [heads[:1], heads[1:]]):
        with pytest.raises(ValueError, match="more resolutions than others"):
            average(wrong, target)
