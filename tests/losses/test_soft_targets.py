"""Losses against the mean response of several raters: what holds for any response, and what for raters who agree."""

import pytest
import torch

from medcalib.functional import mean_response
from medcalib.losses import (
    CrossEntropyLoss,
    DiceLoss,
    HardL1ACEandDiceCELoss,
    HardL1ACELoss,
    MarginLabelSmoothingLoss,
    SoftL1ACEandDiceCELoss,
    SoftL1ACELoss,
    SpatiallyVaryingLabelSmoothingLoss,
    WeightedSumLoss,
)

CLASSES = 3
SOFTMAX = {"softmax": True}
LINEAR = {
    "ce": CrossEntropyLoss(),
    "label_smoothing": CrossEntropyLoss(label_smoothing=0.1),
    "mbls": MarginLabelSmoothingLoss(margin=1.0),
    "svls": SpatiallyVaryingLabelSmoothingLoss(),
}
OTHERS = {
    "dice": DiceLoss(to_onehot_y=True, softmax=True, squared_pred=True, smooth_nr=0.0),
    "dice_l1": DiceLoss(to_onehot_y=True, softmax=True),
    "dice_ce": WeightedSumLoss([DiceLoss(to_onehot_y=True, softmax=True, squared_pred=True), CrossEntropyLoss()]),
    "hardl1ace": HardL1ACELoss(to_onehot_y=True, softmax=True),
    "softl1ace": SoftL1ACELoss(to_onehot_y=True, softmax=True),
    "hardl1ace_dice_ce": HardL1ACEandDiceCELoss(to_onehot_y=True, ace_params=SOFTMAX, dice_params=SOFTMAX),
    "softl1ace_dice_ce": SoftL1ACEandDiceCELoss(to_onehot_y=True, ace_params=SOFTMAX, dice_params=SOFTMAX),
}


@pytest.fixture
def logits():
    return torch.randn(2, CLASSES, 6, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def votes():
    """Four raters of two cases, (R, B, 1, ...)."""
    return torch.randint(CLASSES, (4, 2, 1, 6, 5, 4), generator=torch.Generator().manual_seed(1))


def response_of(votes):
    return torch.stack([mean_response(votes[:, case, 0], CLASSES) for case in range(votes.shape[1])])


@pytest.mark.parametrize("name", [*LINEAR, *OTHERS])
def test_raters_who_agree_are_one_rater(logits, votes, name):
    loss, values = (LINEAR | OTHERS)[name], []
    for target in (votes[0], response_of(votes[:1].repeat(3, 1, 1, 1, 1, 1))):
        own = logits.clone().requires_grad_()
        value = loss(own, target)
        value.backward()
        values.append((value.detach(), own.grad))
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LINEAR)
def test_the_loss_of_the_mean_response_is_the_mean_over_the_raters(logits, votes, name):
    loss = LINEAR[name]
    expected = torch.stack([loss(logits, label) for label in votes]).mean()
    torch.testing.assert_close(loss(logits, response_of(votes)), expected)


@pytest.mark.parametrize("name", ["ce", "dice", "dice_l1", "softl1ace", "hardl1ace", "dice_ce"])
def test_no_prediction_is_better_than_the_response(votes, name):
    """At the response, whose logits are its logarithm, the loss is at its lowest."""
    loss, response = (LINEAR | OTHERS)[name], response_of(votes).clamp(min=1e-4)
    response = response / response.sum(1, keepdim=True)
    best = loss(response.log(), response)
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        other = response.log() + 0.3 * torch.randn(response.shape, generator=generator)
        assert loss(other, response) > best
    if "ce" not in name or "ace" in name:
        assert best.item() == pytest.approx(0, abs=1e-5)


def test_a_soft_target_outside_0_and_1_is_refused(logits):
    for name in ("mbls", "svls"):
        with pytest.raises(ValueError, match="lie in"):
            LINEAR[name](logits, torch.full_like(logits, 1.5))
