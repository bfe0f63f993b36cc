"""Margins are those of a slow search, and keep their promise over many splits."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from tests.guarantees.made_up import CLASSES, cases_of, exchangeable, made_up_case, mean_within

from medcalib.errors import UserError
from medcalib.guarantees import GuaranteeCase, MarginControl, grown, margin_losses

SPACING = (0.7, 1.5, 2.0)


def blobs(number, shape=(9, 7, 5), share=0.06):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(2, *shape, generator=generator) < share


def points(mask, spacing):
    return mask.nonzero().numpy() * np.array(spacing)


def mask_only(number):
    """A segmentation that is too small by a few mm, and a target."""
    case = made_up_case(number)
    least = case.probs.flatten(1).max(1).values.clamp(max=0.75)
    return case._replace(probs=None, segmentation=case.probs >= least[:, None, None, None])


@pytest.mark.parametrize("margin", [0.0, 0.7, 1.5, 2.1, 2.5, 100.0])
def test_grown_one_by_one(margin):
    segmentation = blobs(0, share=0.01)
    found = grown(segmentation, [margin, margin / 2], SPACING)
    every = points(torch.ones(9, 7, 5), SPACING)
    for own, one, own_margin in zip(found, segmentation, [margin, margin / 2], strict=True):
        distances = cdist(every, points(one, SPACING)).min(1)
        assert own.flatten().tolist() == (distances <= own_margin + 1e-6).tolist()


def test_losses_one_by_one():
    segmentation, target = blobs(1), blobs(2)
    mask = torch.ones(1, 9, 7, 5)
    mask[:, :2] = 0
    margins = torch.arange(0, 8, 0.25, dtype=torch.float64)
    losses = margin_losses(segmentation, target, margins, SPACING, mask)
    for own, one, true in zip(losses, segmentation, target, strict=True):
        distances = cdist(points(true & (mask[0] > 0), SPACING), points(one, SPACING)).min(1)
        expected = [(distances > margin + 1e-6).mean() for margin in margins.tolist()]
        np.testing.assert_allclose(own, expected, atol=1e-12)


def test_empty_segmentations_and_classes_that_are_not_there():
    nothing, something = torch.zeros(1, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.bool)
    margins = torch.tensor([0.0, 50.0])
    assert margin_losses(nothing, something, margins, (1.0, 1.0)).tolist() == [[1.0, 1.0]]
    assert margin_losses(something, nothing, margins, (1.0, 1.0)).isnan().all()
    assert not grown(nothing, [50.0], (1.0, 1.0)).any()


@pytest.mark.parametrize("min_covered", [None, 0.9])
@pytest.mark.parametrize(("number", "alpha"), [(20, 0.1), (50, 0.05)])
def test_mean_loss_of_other_cases_is_what_was_promised(number, alpha, min_covered):
    every = [mask_only(one) for one in range(120)]
    settings = {"alpha": alpha, "min_covered": min_covered, "step": 0.05, "max_margin": 10}
    observed = [MarginControl(CLASSES, **settings).observe(case) for case in every]
    known = exchangeable(len(observed), number)
    for unit, name in enumerate(CLASSES):
        losses = np.stack([one["losses"][unit].numpy() for one in observed])
        index = ((known @ losses + 1) / (number + 1) <= alpha + 1e-12).argmax(1)
        realised = ((1 - known) @ losses / (len(observed) - number))[np.arange(len(known)), index]
        assert (realised <= 1).all()
        # distances between voxels are few, so that losses fall in steps
        assert mean_within(realised, 0 if name == "lesion" else alpha / 4, alpha)
        for split in range(5):
            guarantee = MarginControl(CLASSES, **settings)
            guarantee.fit(cases_of(observed, known[split]))
            assert guarantee.fitted(name)["margin_mm"] == pytest.approx(0.05 * index[split], abs=1e-9)
            assert guarantee.fitted(name)["num_cases"] == number
    for case, one in zip(every[:20], observed, strict=False):
        for unit, loss in enumerate(guarantee.losses(case).tolist()):
            place = round(guarantee.fitted(CLASSES[unit])["margin_mm"] / 0.05)
            assert loss == pytest.approx(one["losses"][unit, place].item(), abs=1e-12)


def test_margins_shrink_as_more_may_be_missed():
    observed = [MarginControl(CLASSES).observe(mask_only(number)) for number in range(40)]
    found = []
    for alpha in (0.05, 0.1, 0.2, 0.5):
        guarantee = MarginControl(CLASSES, alpha)
        guarantee.fit(observed)
        found.append(guarantee.fitted("organ")["margin_mm"])
    assert all(larger >= smaller for larger, smaller in itertools.pairwise(found))
    assert found[0] > found[-1] == 0.0


def test_what_no_margin_mends_is_said():
    """A third of the segmentations is empty, which is more than may be missed."""
    cases = [mask_only(number) for number in range(30)]
    cases[::3] = [case._replace(segmentation=torch.zeros_like(case.segmentation)) for case in cases[::3]]
    guarantee = MarginControl(CLASSES)
    observed = [guarantee.observe(case) for case in cases]
    with pytest.raises(
        UserError, match="for organ: it has a mean loss of 0.333 in 30 .* 50 mm .10 of them have a loss"
    ):
        guarantee.fit(observed)
    patient = MarginControl(CLASSES, alpha=0.5)
    patient.fit(observed)
    assert patient.losses(cases[0]).tolist() == [1.0, 1.0]


def test_settings_out_of_range():
    with pytest.raises(UserError, match="min_covered of the guarantee is 1.5"):
        MarginControl(CLASSES, min_covered=1.5)
    with pytest.raises(UserError, match="step of the guarantee is 0"):
        MarginControl(CLASSES, step=0)
    with pytest.raises(ValueError, match="does not fit a segmentation"):
        MarginControl(CLASSES).observe(GuaranteeCase("1", None, blobs(0), blobs(1), (1.0,)))
