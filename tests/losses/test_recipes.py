"""Losses that hold less of the calibration error, pool its bins, or leave some of it out: against loops over bins."""

import sys
from pathlib import Path

import monai.losses
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from tests.conftest import TEMPLATES
from torch.nn import functional as F

from medcalib.bundle.fragments import read_yaml
from medcalib.losses import HardL1ACELoss, SoftL1ACELoss, WeightedSumLoss
from medcalib.losses.whole_batch import is_mean_over_cases

sys.path.insert(0, str(Path(__file__).parents[1]))
import _reference as reference

KINDS = {"hard": HardL1ACELoss, "soft": SoftL1ACELoss}
BINS = 10
DICE = {"softmax": True, "to_onehot_y": True, "squared_pred": True, "smooth_nr": 0.0, "smooth_dr": 1e-5}


def example(batch=3, classes=3, shape=(6, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, *shape, generator=generator)
    labels = torch.randint(0, classes, (batch, 1, *shape), generator=generator)
    labels[0][labels[0] == 2] = 1  # an image that lacks a class, which the batch has
    return logits, labels


def flat(logits, labels):
    """Probabilities and one-hot labels (B, C, voxel), by NumPy."""
    probs = reference.softmax(logits.double().flatten(2).numpy())
    return probs, reference.one_hot(labels.flatten(2).numpy(), logits.shape[1])


def pooled(values):
    """(B, C, voxel) as the voxels of one image."""
    return np.concatenate(list(values), axis=-1)[None]


def build(name, **changes):
    common = read_yaml(TEMPLATES / "configs" / "common.yaml")
    parser = ConfigParser(
        {
            **{id_: common[id_] for id_ in ("l1ace_params", "dice_params")},
            **{"activation": "softmax", "num_bins": BINS, "include_background": False},
            "loss": read_yaml(TEMPLATES / "configs" / "loss" / f"{name}.yaml")["loss"],
        }
    )
    for id_, value in changes.items():
        parser[f"loss::function::{id_}"] = value
    return parser.get_parsed_content("loss::function")


def value_and_grad(loss, logits, labels):
    logits = logits.clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_pooled_bins_are_those_of_all_voxels_of_the_batch(kind, background, fused, monkeypatch):
    if not fused:
        monkeypatch.setattr("medcalib.losses.l1ace.can_fuse", lambda *_: False)
    logits, labels = example()
    options = {"num_bins": BINS, "softmax": True, "to_onehot_y": True, "include_background": background}
    loss = KINDS[kind](**options, batch=True, reduction="none")
    wanted = reference.l1_ace(*map(pooled, flat(logits, labels)), BINS, kind == "soft")[:, 0 if background else 1 :]
    value = loss(logits, labels)
    assert value.shape == (1, wanted.shape[1], 1, 1, 1)
    np.testing.assert_allclose(value.flatten(1).numpy(), wanted, atol=2e-6)
    one = logits[1:2], labels[1:2]
    plain = value_and_grad(KINDS[kind](**options), *one)
    torch.testing.assert_close(value_and_grad(KINDS[kind](**options, batch=True), *one), plain, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_images_does_not_matter_and_their_division_does(kind):
    logits, labels = example()
    loss = KINDS[kind](BINS, softmax=True, to_onehot_y=True, batch=True)
    torch.testing.assert_close(loss(logits.flip(0), labels.flip(0)), loss(logits, labels))
    assert not is_mean_over_cases(loss)
    assert not is_mean_over_cases(WeightedSumLoss([loss]))
    assert is_mean_over_cases(KINDS[kind](BINS, softmax=True, to_onehot_y=True))


def test_opposite_errors_of_two_images_cancel_where_their_bins_are_pooled():
    """Half of the voxels is 1 in all, a quarter and three quarters in each."""
    logits = torch.zeros(2, 2, 8)
    labels = torch.tensor([[[1, 1, 0, 0, 0, 0, 0, 0]], [[1, 1, 1, 1, 1, 1, 0, 0]]])
    each, together = (HardL1ACELoss(softmax=True, to_onehot_y=True, batch=batch) for batch in (False, True))
    assert (each(logits, labels).item(), together(logits, labels).item()) == (0.25, 0.0)


@pytest.mark.parametrize(
    ("name", "weight", "first", "is_pooled"),
    [
        ("softl1ace_light_dice_ce", 0.3, 0, False),
        ("softl1ace_pooled_dice_ce", 0.3, 0, True),
        ("softl1ace_foreground_dice_ce", 0.3, 1, False),
        ("softl1ace_growing_dice_ce", 1.0, 0, False),
        ("softl1ace_late_dice_ce", 1.0, 0, False),
    ],
)
def test_fragments_equal_their_formulas(name, weight, first, is_pooled):
    logits, labels = example()
    p, y = flat(logits, labels)
    dice = 1 - 2 * (p * y).sum(2) / ((p**2).sum(2) + y.sum(2) + 1e-5)
    bins = (pooled(p), pooled(y)) if is_pooled else (p, y)
    ace = reference.l1_ace(*bins, BINS, True)[:, first:]
    wanted = dice.mean() - np.log((p * y).sum(1)).mean() + weight * ace.mean()
    assert build(name)(logits, labels).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["softl1ace_growing_dice_ce", "softl1ace_late_dice_ce", "softl1ace_pooled_dice_ce"])
def test_with_weight_0_it_is_dice_and_cross_entropy_to_the_last_bit(name):
    logits, labels = example()
    loss, baseline = build(name), build("baseline_dice_ce")
    assert not torch.equal(loss(logits, labels), baseline(logits, labels))
    loss.weights[0] = 0.0
    wanted = value_and_grad(baseline, logits, labels)
    torch.testing.assert_close(value_and_grad(loss, logits, labels), wanted, rtol=0, atol=0)
    separate = value_and_grad(
        lambda z, y: monai.losses.DiceLoss(**DICE)(z, y) + F.cross_entropy(z, y[:, 0]), logits, labels
    )
    torch.testing.assert_close(separate, wanted, rtol=0, atol=0)


def test_a_sum_without_any_weight_is_0():
    logits, labels = example()
    assert build("softl1ace_light_dice_ce", ace_weight=0, dice_weight=0, ce_weight=0)(logits, labels).item() == 0
