"""Outer sets keep their promise over many splits, exactly and not by far, and hold the segmentation."""

import json

import pytest
import torch

from medcalib.errors import UserError
from medcalib.functional import set_thresholds
from medcalib.guarantees import GuaranteeCase, RecallControl


def drawn_case(number, classes=2, shape=(8, 8, 4), noise=1.0):
    generator = torch.Generator().manual_seed(number)
    log_odds = 2 * torch.randn(classes, *shape, generator=generator)
    target = (
        torch.rand(classes, *shape, generator=generator)
        < (log_odds + noise * torch.randn(1, generator=generator)).sigmoid()
    )
    probs = log_odds.sigmoid()
    return GuaranteeCase(f"case_{number}", probs, probs >= 0.5, target, (1.0, 1.0, 2.0))


@pytest.fixture(scope="module")
def cases():
    return [drawn_case(number) for number in range(60)]


@pytest.fixture(scope="module")
def observed(cases):
    guarantee = RecallControl(["organ", "lesion"])
    return [guarantee.observe(case) for case in cases]


def test_realised_losses_are_those_that_were_observed(cases, observed):
    guarantee = RecallControl(["organ", "lesion"])
    guarantee.fit(observed[:40])
    for unit, name in enumerate(guarantee.class_names):
        index = set_thresholds().tolist().index(guarantee.fitted(name)["threshold"])
        for case, one in zip(cases, observed, strict=True):
            assert guarantee.losses(case)[unit] == pytest.approx(one["missed"][unit, index].item(), abs=1e-12)


def test_state_returns_exactly(cases, observed):
    guarantee = RecallControl(["organ", "lesion"])
    guarantee.fit(observed)
    again = RecallControl(["organ", "lesion"])
    again.load_state(json.loads(json.dumps(guarantee.state())))
    assert again.state() == guarantee.state()
    assert torch.equal(again.sets(cases[0])["outer"], guarantee.sets(cases[0])["outer"])
    with pytest.raises(UserError, match="was fitted with alpha 0.1, and now it is 0.2"):
        RecallControl(["organ", "lesion"], alpha=0.2).load_state(guarantee.state())


def test_too_few_cases_are_named(observed):
    with pytest.raises(UserError, match="for organ: it needs 9 calibration cases that have the class, and there are 8"):
        RecallControl(["organ", "lesion"]).fit(observed[:8])
