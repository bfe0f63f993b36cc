"""Outer sets keep their promise over many splits, exactly and not by far, and hold the segmentation."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from tests.guarantees.made_up import CLASSES, cases_of, exchangeable, made_up_case, mean_within

from medcalib.errors import UserError
from medcalib.functional import controlled_index, set_losses, set_thresholds
from medcalib.guarantees import GuaranteeCase, RecallControl


@pytest.fixture(scope="module")
def cases():
    return [made_up_case(number) for number in range(120)]


@pytest.fixture(scope="module")
def observed(cases):
    return [RecallControl(CLASSES).observe(case) for case in cases]


@pytest.mark.parametrize(("number", "alpha"), [(9, 0.1), (30, 0.1), (60, 0.05)])
def test_mean_loss_of_other_cases_is_what_was_promised(observed, number, alpha):
    known = exchangeable(len(observed), number)
    for unit in range(len(CLASSES)):
        losses = np.stack([one["missed"][unit].numpy() for one in observed])
        allowed = (known @ losses + 1) / (number + 1) <= alpha + 1e-12
        index = allowed.sum(1) - 1
        others = (1 - known) @ losses / (len(observed) - number)
        realised = others[np.arange(len(known)), index]
        assert mean_within(realised, alpha - 2 / (number + 1), alpha)
        for split in range(10):
            guarantee = RecallControl(CLASSES, alpha)
            guarantee.fit(cases_of(observed, known[split]))
            assert guarantee.fitted(CLASSES[unit])["threshold"] == set_thresholds()[index[split]].item()


def test_realised_losses_are_those_that_were_observed(cases, observed):
    guarantee = RecallControl(CLASSES)
    guarantee.fit(observed[:40])
    thresholds = set_thresholds().tolist()
    for case, one in zip(cases, observed, strict=True):
        losses = guarantee.losses(case)
        for unit, name in enumerate(CLASSES):
            index = thresholds.index(guarantee.fitted(name)["threshold"])
            assert losses[unit].item() == pytest.approx(one["missed"][unit, index].item(), abs=1e-12)


def test_sets_shrink_as_more_may_be_missed_and_hold_the_segmentation(cases, observed):
    sets = []
    for alpha in (0.05, 0.1, 0.2, 0.5, 0.9):
        guarantee = RecallControl(CLASSES, alpha)
        guarantee.fit(observed[:60])
        sets.append(guarantee.sets(cases[80])["outer"])
    for larger, smaller in itertools.pairwise(sets):
        assert bool((larger | ~smaller).all())
    assert bool((sets[-1] | ~cases[80].segmentation).all())


@pytest.mark.parametrize("prob", [0.0, 0.3])
def test_a_constant_predictor_gets_the_whole_image(prob):
    cases = [
        case._replace(probs=torch.full_like(case.probs, prob), segmentation=None)
        for case in map(made_up_case, range(30))
    ]
    guarantee = RecallControl(CLASSES)
    guarantee.fit([guarantee.observe(case) for case in cases])
    assert bool(guarantee.sets(cases[0])["outer"].all())
    assert guarantee.losses(cases[0]).tolist() == [0.0, 0.0]
    told = [note.partition(", since")[0] for note in guarantee.notes()]
    # with 0.3 it is whole because of the predictions, not whatever they are
    assert told == ([] if prob else [f"{name}: the outer set is the whole image in every case" for name in CLASSES])


def test_what_lies_outside_of_the_mask_does_not_count():
    case = made_up_case(0)
    mask = torch.zeros(1, *case.probs.shape[1:])
    mask[:, :4] = 1
    guarantee = RecallControl(CLASSES)
    inside = GuaranteeCase("inside", case.probs[:, :4], case.segmentation[:, :4], case.target[:, :4], case.spacing)
    masked = case._replace(mask=mask)
    assert torch.equal(guarantee.observe(masked)["missed"], guarantee.observe(inside)["missed"])
    guarantee.fit([guarantee.observe(inside)] * 20)
    assert torch.equal(guarantee.losses(masked), guarantee.losses(inside))
    assert not guarantee.sets(masked)["outer"][:, 4:].any()


def test_cases_without_the_class_do_not_count(observed):
    without = [RecallControl(CLASSES).observe(made_up_case(number, lesion=False)) for number in range(20)]
    some, all_ = RecallControl(CLASSES), RecallControl(CLASSES)
    some.fit(observed[:30])
    all_.fit(observed[:30] + without)
    assert all_.fitted("lesion") == some.fitted("lesion")
    assert all_.fitted("organ")["num_cases"] == 50
    assert np.isnan(some.losses(made_up_case(0, lesion=False))[1].item())
    with pytest.raises(
        UserError, match="for lesion: it needs 9 calibration cases that have the class, and there are 8"
    ):
        RecallControl(CLASSES).fit(observed[:8] + without)


@pytest.mark.skipif(not importlib.util.find_spec("mapie"), reason="needs MAPIE")
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_thresholds_are_those_of_mapie(cases, alpha):
    """MAPIE takes one class of images of one shape, and thresholds in steps of 0.01; sets are those above them."""
    from mapie.risk_control import SemanticSegmentationController

    thresholds = np.arange(0, 1, 0.01)
    for unit in range(len(CLASSES)):
        probs = np.stack([case.probs[unit, :, :, 2].numpy() for case in cases if case.target[unit, :, :, 2].any()])
        target = np.stack([case.target[unit, :, :, 2].numpy() for case in cases if case.target[unit, :, :, 2].any()])
        controller = SemanticSegmentationController(
            lambda images: images[:, None],
            risk="recall",
            method="crc",
            predict_params=thresholds,
            target_level=1 - alpha,
        )
        controller.calibrate(probs, target[:, None])
        # MAPIE's sets hold what is above a threshold, not what reaches it
        above = torch.from_numpy(np.nextafter(thresholds.astype(np.float32), np.float32(2)))
        losses = torch.stack(
            [
                set_losses(torch.from_numpy(one)[None], torch.from_numpy(true)[None], above)[0][0]
                for one, true in zip(probs, target, strict=True)
            ]
        )
        assert thresholds[controlled_index(losses, alpha)] == pytest.approx(controller.best_predict_param[0])
