"""Losses of a batch of classified images."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceLoss, FocalLoss
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.losses import (
    CrossEntropyLoss,
    HardL1ACEandCELoss,
    HardL1ACEandDiceLoss,
    HardL1ACELoss,
    MarginLabelSmoothingLoss,
    MultiHeadLoss,
    NACLLoss,
    SpatiallyVaryingLabelSmoothingLoss,
    WholeImageLoss,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(12, 3, generator=GENERATOR)
LABELS = torch.randint(0, 3, (12, 1), generator=GENERATOR, dtype=torch.uint8)


def test_cross_entropy_and_its_relatives_are_the_plain_ones():
    plain = F.cross_entropy(LOGITS, LABELS[:, 0].long())
    torch.testing.assert_close(WholeImageLoss(CrossEntropyLoss())(LOGITS, LABELS), plain)
    torch.testing.assert_close(WholeImageLoss(DeepSupervisionLoss(CrossEntropyLoss()))(LOGITS, LABELS), plain)
    torch.testing.assert_close(WholeImageLoss(MarginLabelSmoothingLoss(margin=100.0))(LOGITS, LABELS), plain)
    focal = FocalLoss(to_onehot_y=True, use_softmax=True)
    own = LOGITS.log_softmax(1).gather(1, LABELS.long())
    torch.testing.assert_close(
        WholeImageLoss(focal)(LOGITS, LABELS), -((1 - own.exp()) ** 2 * own).sum() / LOGITS.numel()
    )


def test_calibration_error_is_that_of_the_batch():
    probs = LOGITS.softmax(1)
    values = []
    for index in range(3):
        true = (LABELS[:, 0] == index).float()
        bins = (probs[:, index] * 5).ceil().long() - 1
        gaps = [(probs[bins == k, index].mean() - true[bins == k].mean()).abs() for k in bins.unique()]
        values.append(torch.stack(gaps).mean())
    loss = WholeImageLoss(HardL1ACELoss(num_bins=5, softmax=True, to_onehot_y=True))
    torch.testing.assert_close(loss(LOGITS, LABELS), torch.stack(values).mean())


@pytest.mark.parametrize(
    "loss",
    [
        HardL1ACEandCELoss(to_onehot_y=True, ace_params={"softmax": True}),
        NACLLoss(classes=3, dim=2),
        MarginLabelSmoothingLoss(margin=0.5),
    ],
)
def test_gradients_reach_every_image(loss):
    logits = LOGITS.clone().requires_grad_()
    WholeImageLoss(loss)(logits, LABELS).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.any(1).all()


def test_an_image_is_its_own_neighbourhood():
    expected = F.cross_entropy(LOGITS, LABELS[:, 0].long())
    expected += 0.1 * (F.one_hot(LABELS[:, 0].long(), 3) - LOGITS).abs().mean()
    torch.testing.assert_close(WholeImageLoss(NACLLoss(classes=3, dim=2, alpha=0.1))(LOGITS, LABELS), expected)


def test_every_head_is_reshaped():
    heads = [LOGITS, -LOGITS, LOGITS / 2]
    single = WholeImageLoss(CrossEntropyLoss())
    expected = sum(single(head, LABELS) for head in heads)
    torch.testing.assert_close(WholeImageLoss(MultiHeadLoss(CrossEntropyLoss()))(heads, LABELS), expected)
    mean = torch.stack(heads).softmax(2).mean(0).log()
    averaged = WholeImageLoss(MultiHeadLoss(CrossEntropyLoss(), mode="average"))(heads, LABELS)
    torch.testing.assert_close(averaged, single(mean, LABELS))


@pytest.mark.parametrize(
    "loss",
    [
        DiceLoss(to_onehot_y=True, softmax=True),
        DeepSupervisionLoss(HardL1ACEandDiceLoss(to_onehot_y=True)),
        MultiHeadLoss(DeepSupervisionLoss(SpatiallyVaryingLabelSmoothingLoss())),
    ],
)
def test_losses_of_regions_are_refused(loss):
    with pytest.raises(
        UserError, match=r"needs the regions of a label map, but here whole images are classified; .*baseline_ce"
    ):
        WholeImageLoss(loss)
