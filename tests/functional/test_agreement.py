"""Laws and oracles of the agreement of the members' masks."""

from itertools import combinations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medcalib.functional import agreement as module
from medcalib.functional import aula, mean_pairwise_dice, member_agreement, pairwise_dice


@pytest.fixture(params=[1 << 18, 64], ids=["one part", "many parts"], autouse=True)
def part_size(request, monkeypatch):
    monkeypatch.setattr(module, "_PART", request.param)


def draw(members=5, classes=3, shape=(9, 8, 7), noise=0.2, seed=0):
    """Label maps that mostly agree, as those of real members do."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randint(0, classes, shape, generator=generator).expand(members, *shape)
    other = torch.randint(0, classes, (members, *shape), generator=generator)
    return torch.where(torch.rand(other.shape, generator=generator) < noise, other, common)


def one_hot(labels, classes):
    return torch.stack([labels == c for c in range(classes)], 1)


def loop(masks, weight=None):
    """The sums over voxels of weighted products, for boolean masks (M, C, voxels)."""
    members, classes, voxels = masks.shape
    weight = np.ones(voxels) if weight is None else weight
    result = np.zeros((classes, members, members))
    for c, i, j in np.ndindex(classes, members, members):
        result[c, i, j] = weight[masks[i, c] & masks[j, c]].sum()
    return result


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else np.nan


@pytest.mark.parametrize("shape", [(50,), (9, 8), (9, 8, 7)])
@pytest.mark.parametrize("noise", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_agreement_equals_the_loop(shape, noise, weighted):
    labels = draw(shape=shape, noise=noise)
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(1)) if weighted else None
    wanted = loop(one_hot(labels, 3).flatten(2).numpy(), None if weight is None else weight.double().flatten().numpy())
    result = member_agreement(labels, 3, weight)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-12)
    np.testing.assert_allclose(member_agreement(one_hot(labels, 3), 3, weight).numpy(), wanted, rtol=1e-12)


def test_overlapping_masks_equal_the_loop():
    masks = (
        torch.rand(4, 3, 11, 9, generator=torch.Generator().manual_seed(0))
        < torch.tensor([0.9, 0.5, 0.0])[:, None, None]
    )
    np.testing.assert_array_equal(member_agreement(masks, 3).numpy(), loop(masks.flatten(2).numpy()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32])
def test_dtype_layout_and_metadata_do_not_matter(dtype):
    labels = draw()
    wanted = member_agreement(labels, 3)
    assert torch.equal(member_agreement(labels.to(dtype), 3), wanted)
    assert torch.equal(member_agreement(MetaTensor(labels.to(dtype)), 3), wanted)
    assert type(member_agreement(MetaTensor(labels.to(dtype)), 3)) is torch.Tensor
    assert torch.equal(member_agreement(labels.permute(0, 3, 1, 2), 3), wanted)
    strided = torch.empty(*labels.shape[1:], labels.shape[0], dtype=dtype).movedim(-1, 0).copy_(labels)
    assert not strided.is_contiguous()
    assert torch.equal(member_agreement(strided, 3), wanted)


def test_parts_of_a_volume_add_up_and_weight_zero_leaves_out():
    labels = draw()
    weight = torch.zeros(labels.shape[1:])
    weight[:4] = 1
    first, second = member_agreement(labels[:, :4], 3), member_agreement(labels[:, 4:], 3)
    assert torch.equal(first + second, member_agreement(labels, 3))
    assert torch.equal(member_agreement(labels, 3, weight), first)
    assert torch.equal(member_agreement(labels, 3, weight.bool()), first)


def test_permuted_members_permute_the_agreement():
    labels, order = draw(), torch.tensor([3, 0, 4, 2, 1])
    result = member_agreement(labels, 3)
    assert torch.equal(member_agreement(labels[order], 3), result[:, order][:, :, order])
    torch.testing.assert_close(mean_pairwise_dice(result[:, order][:, :, order]), mean_pairwise_dice(result))


def test_many_classes():
    labels = torch.arange(300).expand(2, 300)
    assert torch.equal(member_agreement(labels, 300), torch.ones(300, 2, 2, dtype=torch.float64))


def test_agreement_counts_beyond_float32():
    agreement = member_agreement(torch.zeros(2, 100, dtype=torch.uint8), 1, torch.full((100,), 2.0**24 + 2))
    assert agreement[0, 0, 1].item() == 100 * (2**24 + 2)


def test_dice_equals_the_loop():
    labels = draw(classes=4)
    labels[labels == 3] = 0
    labels[0, labels[0] == 2] = 1
    result = pairwise_dice(member_agreement(labels, 4))
    masks = one_hot(labels, 4).flatten(2).numpy()
    for c, i, j in np.ndindex(4, 5, 5):
        assert result[c, i, j].item() == pytest.approx(dice(masks[i, c], masks[j, c]), nan_ok=True)
    assert result[3].isnan().all()
    assert result[2, 0, 1:].tolist() == [0] * 4
    means = mean_pairwise_dice(member_agreement(labels, 4))
    for c in range(4):
        pairs = [dice(masks[i, c], masks[j, c]) for i, j in combinations(range(5), 2)]
        wanted = np.nan if np.isnan(pairs).all() else np.nanmean(pairs)
        assert means[c].item() == pytest.approx(wanted, nan_ok=True)


def test_pairs_without_the_class_are_left_out_of_the_mean():
    labels = torch.tensor([[0, 0, 0], [0, 0, 0], [0, 1, 1]])
    assert mean_pairwise_dice(member_agreement(labels, 2))[1].item() == 0
    assert pairwise_dice(member_agreement(labels, 2))[1, 0].isnan().tolist() == [True, True, False]


@pytest.mark.parametrize("members", [1, 2, 3, 10])
def test_equal_members_agree_fully(members):
    agreement = member_agreement(draw(1).expand(members, -1, -1, -1), 4)
    mean, area, share = mean_pairwise_dice(agreement), aula(agreement), aula(agreement, normalized=True)
    nan = float("nan")
    assert mean.tolist() == pytest.approx([1 if members > 1 else nan] * 3 + [nan], nan_ok=True)
    assert area.tolist() == pytest.approx([2 - members if members > 2 else nan] * 3 + [nan], nan_ok=True)
    assert share.tolist() == pytest.approx([-1 if members > 2 else nan] * 3 + [nan], nan_ok=True)


def test_aula_equals_the_published_loop():
    labels = draw(7, classes=3, noise=0.4)
    agreement = member_agreement(labels, 3)
    masks = one_hot(labels, 3).flatten(2).numpy()
    for c in range(3):
        wanted = -np.trapezoid([dice(masks[j - 1, c], masks[j, c]) for j in range(1, 7)], dx=1)
        assert aula(agreement)[c].item() == pytest.approx(wanted)
        assert aula(agreement, normalized=True)[c].item() == pytest.approx(wanted / 5)


def test_aula_of_shifted_boxes():
    """Boxes of 10 voxels that move by j at step j: their Dice is 1 - j / 10, a straight line."""
    labels = torch.zeros(4, 40, dtype=torch.long)
    for member, start in enumerate((0, 1, 3, 6)):
        labels[member, start : start + 10] = 1
    agreement = member_agreement(labels, 2)
    assert aula(agreement)[1].item() == pytest.approx(-(0.9 + 0.7) / 2 * 2)
    assert aula(agreement, normalized=True)[1].item() == pytest.approx(-0.8)


def test_disjoint_neighbours_are_the_most_uncertain_and_order_matters():
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    agreement = member_agreement(labels, 2)
    assert aula(agreement)[1].item() == 0
    order = torch.tensor([0, 2, 1, 3])
    assert aula(agreement[:, order][:, :, order])[1].item() == pytest.approx(-1)


def test_two_empty_neighbours_agree_where_another_member_has_the_class():
    labels = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1], [0, 1]])
    area = aula(member_agreement(labels, 3))
    assert area[1].item() == pytest.approx(-np.trapezoid([1, 1, 0, 1]))
    assert area[2].isnan()


@pytest.mark.parametrize(
    ("labels", "weight", "message"),
    [
        (torch.zeros(0, 4, dtype=torch.long), None, "at least one member"),
        (torch.zeros(2, 4, 5, dtype=torch.bool), None, r"\(M, 3, ...\)"),
        (torch.tensor(1), None, r"\(M, ...\)"),
        (torch.full((2, 4), 3), None, "label 3"),
        (torch.full((2, 4), -1), None, "label -1"),
        (torch.full((2, 4), 0.5), None, "whole numbers"),
        (torch.zeros(2, 4, dtype=torch.long), torch.ones(5), r"weight must have shape \(4,\)"),
    ],
)
def test_bad_input_is_an_error(labels, weight, message):
    with pytest.raises(ValueError, match=message):
        member_agreement(labels, 3, weight)


@pytest.mark.parametrize("function", [pairwise_dice, mean_pairwise_dice, aula])
def test_what_is_no_agreement_is_an_error(function):
    with pytest.raises(ValueError, match=r"\(C, M, M\)"):
        function(torch.ones(3, 2))
