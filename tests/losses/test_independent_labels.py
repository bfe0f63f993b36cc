"""Every loss fragment on labels that do not exclude each other: the activation sigmoid."""

import sys
from pathlib import Path

import monai.losses
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss
from tests.conftest import TEMPLATES
from torch.nn import functional as F

from medcalib.bundle.fragments import FragmentKind, fragment_names, read_yaml
from medcalib.errors import UserError
from medcalib.losses import (
    CrossEntropyLoss,
    DiceLoss,
    HardL1ACEandCELoss,
    HardL1ACELoss,
    MarginLabelSmoothingLoss,
    SpatiallyVaryingLabelSmoothingLoss,
    WeightedSumLoss,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
import _reference as reference

LOSSES = fragment_names(TEMPLATES / "configs", FragmentKind.LOSS)
EXCLUSIVE_ONLY = ["nacl"]
INDEPENDENT = [name for name in LOSSES if name not in EXCLUSIVE_ONLY]
# how often the loss of one sigmoid channel holds that of two softmax channels; Dice also scores the background there
TWO_CHANNELS = {name: 1.0 for name in INDEPENDENT if "dice" not in name} | {"focal": 2.0}
SIZE = (5, 4, 6)


def build(name, activation, num_channels):
    names = [f"label_{index}" for index in range(num_channels)]
    shared = read_yaml(TEMPLATES / "configs" / "common.yaml")
    parser = ConfigParser(
        {
            **{id_: shared[id_] for id_ in ("l1ace_params", "dice_params", "include_background")},
            "activation": activation,
            "num_bins": 10,
            "data": {"class_names": names, "patch_size": list(SIZE)},
            "loss": read_yaml(TEMPLATES / "configs" / "loss" / f"{name}.yaml")["loss"],
        }
    )
    return parser.get_parsed_content("loss::function")


def example(channels=3, seed=0, size=SIZE, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    return logits, torch.randint(2, (2, channels, *size), generator=generator).to(torch.uint8)


def value_and_grad(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


def test_all_but_one_know_independent_labels():
    assert len(INDEPENDENT) == 18


@pytest.mark.parametrize("name", INDEPENDENT)
def test_several_channels_are_the_mean_of_single_ones(name):
    logits, target = example()
    value, grad = value_and_grad(build(name, "sigmoid", 3), logits, target)
    single = build(name, "sigmoid", 1)
    parts = [value_and_grad(single, logits[:, c : c + 1], target[:, c : c + 1]) for c in range(3)]
    torch.testing.assert_close(value, torch.stack([part for part, _ in parts]).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, torch.cat([part for _, part in parts], 1) / 3, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", TWO_CHANNELS)
def test_one_channel_is_two_exclusive_classes(name):
    logits, target = example(channels=2)
    if name == "mbls":
        logits = 10 * logits
    labels = target[:, :1]
    value, grad = value_and_grad(build(name, "softmax", 2), logits, labels)
    difference = logits[:, 1:] - logits[:, :1]
    single, single_grad = value_and_grad(build(name, "sigmoid", 1), difference, labels)
    torch.testing.assert_close(single, TWO_CHANNELS[name] * value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single_grad, TWO_CHANNELS[name] * grad[:, 1:], rtol=1e-4, atol=1e-6)


def test_dice_of_one_channel_is_that_of_the_foreground():
    logits, target = example(channels=2)
    labels = target[:, :1]
    foreground = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, squared_pred=True)
    single = DiceLoss(sigmoid=True, squared_pred=True)(logits[:, 1:] - logits[:, :1], labels)
    torch.testing.assert_close(single, foreground(logits, labels))


def oracle_terms(logits, target):
    """Mean over channels of cross-entropy, soft Dice and L1-ACE, by NumPy."""
    z, y = logits.double().numpy(), target.double().numpy()
    p = 1 / (1 + np.exp(-z))
    volume = tuple(range(2, z.ndim))
    dice = 1 - 2 * (p * y).sum(volume) / ((p**2).sum(volume) + (y**2).sum(volume) + 1e-5)
    flat = (p.reshape(*p.shape[:2], -1), y.reshape(*y.shape[:2], -1))
    return {
        "ce": -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(),
        "smooth": -((0.9 * y + 0.05) * np.log(p) + (0.95 - 0.9 * y) * np.log(1 - p)).mean(),
        "focal": -(y * (1 - p) ** 2 * np.log(p) + (1 - y) * p**2 * np.log(1 - p)).mean(),
        "dice": dice.mean(),
        "hard": reference.l1_ace(*flat, 10, False).mean(),
        "soft": reference.l1_ace(*flat, 10, True).mean(),
        "soft of the batch": reference.l1_ace(*(np.concatenate(list(one), -1)[None] for one in flat), 10, True).mean(),
    }


TERMS = {
    "baseline_ce": {"ce": 1},
    "baseline_dice": {"dice": 1},
    "baseline_dice_ce": {"dice": 1, "ce": 1},
    "label_smoothing": {"smooth": 1},
    "focal": {"focal": 1},
    "hardl1ace_ce": {"hard": 0.5, "ce": 0.5},
    "hardl1ace_dice": {"hard": 0.5, "dice": 0.5},
    "hardl1ace_dice_ce": {"hard": 0.33, "dice": 0.33, "ce": 0.33},
    "softl1ace_ce": {"soft": 0.5, "ce": 0.5},
    "softl1ace_dice": {"soft": 0.5, "dice": 0.5},
    "softl1ace_dice_ce": {"soft": 0.33, "dice": 0.33, "ce": 0.33},
    "softl1ace_light_dice_ce": {"soft": 0.3, "dice": 1, "ce": 1},
    "softl1ace_pooled_dice_ce": {"soft of the batch": 0.3, "dice": 1, "ce": 1},
    # no label is a background
    "softl1ace_foreground_dice_ce": {"soft": 0.3, "dice": 1, "ce": 1},
    # in the epochs in which the term counts with its whole weight
    "softl1ace_growing_dice_ce": {"soft": 1, "dice": 1, "ce": 1},
    "softl1ace_late_dice_ce": {"soft": 1, "dice": 1, "ce": 1},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TERMS)
def test_fragments_equal_their_formulas(name, channels):
    logits, target = example(channels)
    terms = oracle_terms(logits, target)
    expected = sum(weight * terms[term] for term, weight in TERMS[name].items())
    assert build(name, "sigmoid", channels)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", INDEPENDENT)
@pytest.mark.parametrize("channels", [1, 2])
def test_types_of_targets_do_not_matter(name, channels):
    logits, target = example(channels)
    loss = build(name, "sigmoid", channels)
    expected = loss(logits, target.float())
    for dtype in (torch.uint8, torch.bool, torch.int64, torch.float64):
        torch.testing.assert_close(loss(logits, target.to(dtype)).float(), expected)
    meta = loss(MetaTensor(logits), MetaTensor(target))
    torch.testing.assert_close(torch.as_tensor(meta), expected)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_deep_supervision_sums_the_levels(name):
    logits, target = example(2, size=(8, 8))
    half = example(2, seed=1, size=(4, 4))[0]
    loss = build(name, "sigmoid", 2)
    smaller = F.interpolate(target, size=half.shape[2:], mode="nearest-exact")
    expected = loss(logits, target) + 0.5 * loss(half, smaller)
    torch.testing.assert_close(DeepSupervisionLoss(loss)([logits, half], target), expected)


@pytest.mark.parametrize("name", EXCLUSIVE_ONLY)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_loss_of_exclusive_classes_refuses(name, channels):
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around what the component raised
        build(name, "sigmoid", channels)
    assert isinstance(caught.value.__cause__, UserError)
    message = str(caught.value.__cause__)
    assert "defined for exclusive classes only, but the activation is sigmoid" in message
    assert "\n" not in message
    build(name, "softmax", 2)


def test_dice_and_cross_entropy_is_monai_s_for_exclusive_classes():
    logits, target = example()
    labels = target[:, :1] + target[:, 1:2]
    own = value_and_grad(build("baseline_dice_ce", "softmax", 3), logits, labels)
    options = {"squared_pred": True, "smooth_nr": 0.0, "smooth_dr": 1e-5}
    wanted = value_and_grad(monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, **options), logits, labels)
    torch.testing.assert_close(own, wanted, rtol=0, atol=0)


def test_cross_entropy_reductions_and_weights():
    logits, target = example()
    weight = torch.tensor([0.5, 2.0, 3.0])
    none = CrossEntropyLoss(weight, reduction="none", sigmoid=True)(logits, target)
    y, p = target.double(), logits.double().sigmoid()
    factor = weight.double().reshape(1, 3, 1, 1, 1)
    torch.testing.assert_close(none.double(), -(factor * y * p.log() + (1 - y) * (1 - p).log()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(CrossEntropyLoss(weight, reduction="sum", sigmoid=True)(logits, target), none.sum())
    torch.testing.assert_close(CrossEntropyLoss(weight, sigmoid=True)(logits, target), none.mean())


def test_a_single_channel_is_smoothed_without_being_told():
    logits, target = example(1)
    smooth = CrossEntropyLoss(label_smoothing=0.2)(logits, target)
    torch.testing.assert_close(smooth, CrossEntropyLoss(label_smoothing=0.2, sigmoid=True)(logits, target))
    assert smooth.item() != pytest.approx(CrossEntropyLoss()(logits, target).item())


def test_the_cross_entropy_of_a_combination_follows_its_calibration_error():
    logits, target = example()
    loss = HardL1ACEandCELoss(ace_params={"sigmoid": True})
    plain = WeightedSumLoss([HardL1ACELoss(sigmoid=True), CrossEntropyLoss(sigmoid=True)], [0.5, 0.5])
    torch.testing.assert_close(loss(logits, target), plain(logits, target))
    assert not HardL1ACEandCELoss(ace_params={"softmax": True}).losses[1].sigmoid
    assert not HardL1ACEandCELoss(ace_params={"sigmoid": True}, ce_params={"sigmoid": False}).losses[1].sigmoid


def test_binary_terms_are_not_taken_from_the_pass_over_exclusive_classes():
    logits, target = example()
    labels = target[:, :1]
    loss = WeightedSumLoss([HardL1ACELoss(softmax=True, to_onehot_y=True), CrossEntropyLoss(sigmoid=True)])
    with pytest.raises(ValueError, match=r"must have the shape of the logits \(2, 3, 5, 4, 6\)"):
        loss(logits, labels)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLoss(sigmoid=True),
        MarginLabelSmoothingLoss(sigmoid=True),
        SpatiallyVaryingLabelSmoothingLoss(sigmoid=True),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_wrong_targets_are_named(loss):
    logits, target = example()
    with pytest.raises(ValueError, match=r"one channel for each label, got \(2, 1, 5, 4, 6\)"):
        loss(logits, target[:, :1])
    target[0, 0, 0, 0, 0] = 2
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], but ranges from 0 to 2"):
        loss(logits, target)
    with pytest.raises(ValueError, match="ranges from nan"):
        loss(logits, target.float().fill_(torch.nan))


def test_a_target_is_smoothed_in_a_copy():
    logits, target = example(1, dtype=torch.float64)
    before = target.double()
    after = before.clone()
    SpatiallyVaryingLabelSmoothingLoss(sigmoid=True)(logits, after)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_label_values_to_ignore_are_of_exclusive_classes():
    with pytest.raises(ValueError, match="ignore_index is a value of label maps of exclusive classes"):
        CrossEntropyLoss(sigmoid=True, ignore_index=255)
