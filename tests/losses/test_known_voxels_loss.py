"""Voxels of unknown truth: a loss is what it would be if they had been cut away."""

import itertools
import math

import monai.losses
import pytest
import torch
from monai.losses import DeepSupervisionLoss
from tests.losses.test_independent_labels import EXCLUSIVE_ONLY, LOSSES, build, value_and_grad
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.keys import IGNORED
from medcalib.losses import (
    CrossEntropyLoss,
    KnownVoxelsLoss,
    MultiHeadLoss,
    NACLLoss,
    SpatiallyVaryingLabelSmoothingLoss,
    WeightedSumLoss,
)
from medcalib.losses.whole_batch import is_mean_over_cases

NEIGHBOURS = ["nacl", "svls"]
SIZE = (5, 4, 6)
KINDS = [(name, "softmax") for name in LOSSES] + [(name, "sigmoid") for name in LOSSES if name not in EXCLUSIVE_ONLY]


def example(activation="softmax", batch=2, seed=0, channels=3):
    """Logits, a target with voxels to be ignored, of which each case has its own, and where it is known."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(batch, channels, *SIZE, generator=generator)
    if activation == "softmax":
        target = torch.randint(channels, (batch, 1, *SIZE), generator=generator).to(torch.int8)
    else:
        target = torch.randint(2, (batch, channels, *SIZE), generator=generator).to(torch.int8)
    shares = torch.linspace(0.2, 0.5, batch).reshape(-1, *[1] * 4)
    known = torch.rand(batch, 1, *SIZE, generator=generator) >= shares
    return logits, target.where(known, IGNORED), known


def cut(values, known):
    """The known voxels of one case (1, C, ...) as (1, C, voxel)."""
    return values[0][:, known[0, 0]][None]


@pytest.mark.parametrize(("name", "activation"), [kind for kind in KINDS if kind[0] not in NEIGHBOURS])
def test_a_case_is_what_is_known_of_it(name, activation):
    logits, target, known = example(activation, batch=1)
    loss = build(name, activation, 3)
    value, grad = value_and_grad(KnownVoxelsLoss(loss), logits, target)
    expected, grad_of_cut = value_and_grad(loss, cut(logits, known), cut(target, known).to(torch.uint8))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(cut(grad, known), grad_of_cut, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("name", "activation"), KINDS)
def test_predictions_of_ignored_voxels_change_nothing(name, activation):
    logits, target, known = example(activation)
    loss = KnownVoxelsLoss(build(name, activation, 3))
    value, grad = value_and_grad(loss, logits, target)
    other = logits.where(known, 50 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(5)))
    changed, changed_grad = value_and_grad(loss, other, target)
    assert torch.isfinite(value)
    assert value > 0
    assert torch.equal(value, changed)
    assert torch.equal(grad, changed_grad)
    assert (grad.where(~known, 0) == 0).all()
    assert (grad.where(known, 0) != 0).any()


@pytest.mark.parametrize(("name", "activation"), KINDS)
def test_nothing_known_costs_nothing_and_a_batch_is_its_other_cases(name, activation):
    loss = build(name, activation, 3)
    logits, target, _ = example(activation)
    unknown = torch.full_like(target, IGNORED)
    value, grad = value_and_grad(KnownVoxelsLoss(loss), logits, unknown)
    assert value == 0
    assert (grad == 0).all()
    one_known = torch.cat([unknown[:1], target[1:]])
    value, grad = value_and_grad(KnownVoxelsLoss(build(name, activation, 3)), logits, one_known)
    alone, alone_grad = value_and_grad(KnownVoxelsLoss(build(name, activation, 3)), logits[1:], target[1:])
    torch.testing.assert_close(value, alone)
    torch.testing.assert_close(grad[1:], alone_grad)
    assert (grad[0] == 0).all()


@pytest.mark.parametrize(("name", "activation"), KINDS)
def test_with_nothing_to_be_ignored_not_a_bit_changes(name, activation):
    logits, target, _ = example(activation)
    target = target.clamp(min=0)
    deep = [logits, logits[..., ::2].contiguous()]
    bare = value_and_grad(build(name, activation, 3), logits, target.to(torch.uint8))
    wrapped = value_and_grad(KnownVoxelsLoss(build(name, activation, 3)), logits, target)
    assert all(map(torch.equal, bare, wrapped))
    bare = DeepSupervisionLoss(build(name, activation, 3))(deep, target.to(torch.uint8))
    assert torch.equal(KnownVoxelsLoss(DeepSupervisionLoss(build(name, activation, 3)))(deep, target), bare)


def test_cross_entropy_is_that_of_torch_with_an_index_to_ignore():
    logits, target, _ = example()
    expected = F.cross_entropy(logits, target[:, 0].long(), ignore_index=IGNORED)
    torch.testing.assert_close(KnownVoxelsLoss(build("baseline_ce", "softmax", 3))(logits, target), expected)
    weighted = KnownVoxelsLoss(type(build("baseline_ce", "softmax", 3))(weight=[1.0, 2.0, 5.0]))
    weights = torch.tensor([1.0, 2.0, 5.0])
    expected = F.cross_entropy(logits, target[:, 0].long(), weights, ignore_index=IGNORED)
    torch.testing.assert_close(weighted(logits, target), expected)


@pytest.mark.parametrize("batch", [False, True])
def test_dice_is_that_of_monai_on_masked_probabilities(batch):
    logits, target, known = example()
    loss = monai.losses.DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True, batch=batch, smooth_nr=0)
    one_hot = F.one_hot(target[:, 0].clamp(min=0).long(), 3).movedim(-1, 1) * known
    plain = monai.losses.DiceLoss(squared_pred=True, batch=batch, smooth_nr=0)
    torch.testing.assert_close(KnownVoxelsLoss(loss)(logits, target), plain(logits.softmax(1) * known, one_hot.float()))


def test_heads_and_resolutions_are_compared_with_what_is_known_at_each():
    logits, target, _ = example()
    coarse = logits[:, :, ::2, ::2, ::2].contiguous()
    small = F.interpolate(target.float(), coarse.shape[2:], mode="nearest-exact")
    single = KnownVoxelsLoss(build("softl1ace_dice_ce", "softmax", 3))
    expected = single(logits, target) + 0.5 * single(coarse, small)
    deep = KnownVoxelsLoss(DeepSupervisionLoss(build("softl1ace_dice_ce", "softmax", 3)))
    torch.testing.assert_close(deep([logits, coarse], target), expected)
    for mode, factor in (("combined", 2), ("average", 1)):
        heads = MultiHeadLoss(DeepSupervisionLoss(build("softl1ace_dice_ce", "softmax", 3)), mode=mode)
        value = KnownVoxelsLoss(heads)([[logits, coarse], [logits, coarse]], target)
        torch.testing.assert_close(value, factor * expected)


def neighbours(labels, known, radius=1):
    """By place of a known voxel of a map (x, y): offsets and labels of known voxels around it, the border repeated."""
    for place in itertools.product(*map(range, labels.shape)):
        if not known[place]:
            continue
        found = []
        for step in itertools.product(range(-radius, radius + 1), repeat=len(place)):
            at = tuple(min(max(p + s, 0), n - 1) for p, s, n in zip(place, step, labels.shape, strict=True))
            if known[at]:
                found.append((step, int(labels[at])))
        yield place, found


@pytest.mark.parametrize("center_weight", [0.5, None])
def test_labels_are_smoothed_over_known_neighbours(center_weight):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (6, 5), generator=generator)
    known = torch.rand(6, 5, generator=generator) > 0.4
    # one that has nothing known around it
    known[:3, :3], known[1, 1] = False, True
    logits = torch.randn(1, 3, 6, 5, generator=generator)
    rows = []
    for place, found in neighbours(labels, known):
        target = [0.0] * 3
        weights = [math.exp(-0.5 * sum(s * s for s in step)) for step, _ in found]
        around = [0.0 if not any(step) else weight for weight, (step, _) in zip(weights, found, strict=True)]
        used, share = (weights, 0.0) if center_weight is None else (around, center_weight)
        if not sum(used):
            used, share = [1.0], 0.0
        for weight, (_, label) in zip(used, found, strict=True):
            target[label] += (1 - share) * weight / sum(used)
        target[int(labels[place])] += share
        rows.append(-(torch.tensor(target) * logits[0, :, place[0], place[1]].log_softmax(0)).sum())
    target = labels.where(known, IGNORED)[None, None]
    loss = KnownVoxelsLoss(SpatiallyVaryingLabelSmoothingLoss(center_weight=center_weight))
    torch.testing.assert_close(loss(logits, target), torch.stack(rows).mean())


def test_logits_are_pulled_to_known_neighbours():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (6, 5), generator=generator)
    known = torch.rand(6, 5, generator=generator) > 0.4
    logits = torch.randn(1, 3, 6, 5, generator=generator)
    nacl = NACLLoss(classes=3, dim=2, alpha=0.3)
    # of voxels around the border NACL knows no label at all, so there shares sum to less than 1
    edges = nacl.svls_layer(torch.ones(1, 1, 6, 5))[0, 0]
    terms = []
    for (x, y), _ in neighbours(labels, known, 0):
        around = labels[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2][
            known[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2]
        ]
        share = F.one_hot(around, 3).float().mean(0) * edges[x, y]
        one = logits[0, :, x, y]
        terms.append(F.cross_entropy(one, labels[x, y]) + 0.3 * (share - one).abs().mean())
    target = labels.where(known, IGNORED)[None, None]
    torch.testing.assert_close(KnownVoxelsLoss(nacl)(logits, target), torch.stack(terms).mean())


def test_a_loss_that_cannot_leave_voxels_out_is_refused_at_once():
    with pytest.raises(UserError, match="HausdorffDTLoss.*ignore_label"):
        KnownVoxelsLoss(DeepSupervisionLoss(monai.losses.HausdorffDTLoss()))


def test_a_batch_that_processes_share_is_looked_at_as_a_whole():
    assert not is_mean_over_cases(KnownVoxelsLoss(build("baseline_ce", "softmax", 3)))


class Refused(CrossEntropyLoss):
    def forward(self, input, target):  # noqa: A002
        raise AssertionError("a term of weight 0 is computed")


def test_a_term_of_weight_0_is_not_computed_where_voxels_are_left_out_either():
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(-1, 3, (2, 1, 4, 4))
    alone = KnownVoxelsLoss(CrossEntropyLoss())(logits, target)
    assert torch.equal(KnownVoxelsLoss(WeightedSumLoss([Refused(), CrossEntropyLoss()], [0, 1]))(logits, target), alone)
