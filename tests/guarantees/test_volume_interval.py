"""Intervals hold the volumes of as many cases as promised, and their spread is that of a slow integral."""

import numpy as np
import pytest
import torch
from tests.guarantees.made_up import CLASSES, cases_of, exchangeable, made_up_case, mean_within

from medcalib.functional import class_volumes
from medcalib.guarantees import GuaranteeCase, VolumeInterval, predicted_volumes


def test_spread_is_that_of_classes_that_grow_and_shrink_as_a_whole():
    probs = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    numbers = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    expected, spread = predicted_volumes(probs)
    for one, mean, width in zip(probs.flatten(1), expected, spread, strict=True):
        sizes = (one[:, None] > numbers).sum(0).double()
        assert mean.item() == pytest.approx(sizes.mean().item(), rel=1e-4)
        assert width.item() == pytest.approx(sizes.std().item() + 0.01 * mean.item() + 1, rel=1e-3)
    assert torch.equal(expected, class_volumes(probs).expected)


def test_spread_is_never_0():
    assert predicted_volumes(torch.zeros(1, 50)).spread.tolist() == [1.0]
    assert predicted_volumes(torch.ones(1, 50)).spread.tolist() == pytest.approx([1.5])


@pytest.mark.parametrize(("number", "alpha"), [(9, 0.1), (40, 0.1), (40, 0.25)])
def test_so_many_cases_lie_outside(number, alpha):
    every = [made_up_case(one, lesion=one % 4 > 0) for one in range(120)]
    observed = [VolumeInterval(CLASSES).observe(case) for case in every]
    known = exchangeable(len(every), number)
    for unit, name in enumerate(CLASSES):
        distances = np.array([one["distance"][unit].item() for one in observed])
        order = np.sort(np.where(known > 0, distances, np.inf), axis=1)
        limit = order[:, int(np.ceil(round((number + 1) * (1 - alpha), 9))) - 1]
        outside = ((distances > limit[:, None]) * (1 - known)).sum(1) / (len(every) - number)
        assert mean_within(outside, alpha - 1 / (number + 1), alpha)
        for split in range(5):
            guarantee = VolumeInterval(CLASSES, alpha)
            guarantee.fit(cases_of(observed, known[split]))
            assert guarantee.fitted(name)["spreads"] == limit[split]


def test_an_interval_lies_around_the_expected_volume_and_not_below_0():
    every = [made_up_case(number, lesion=number % 4 > 0) for number in range(60)]
    guarantee = VolumeInterval(CLASSES)
    guarantee.fit([guarantee.observe(case) for case in every])
    for case in every:
        said, losses = guarantee.values(case), guarantee.losses(case)
        for unit, name in enumerate(CLASSES):
            true = case.target[unit].sum().item() * 3.0 / 1000
            low, middle, high = (said[f"{name}_{part}ml"] for part in ("low_", "", "high_"))
            assert 0 <= low <= middle <= high
            assert middle == pytest.approx(case.probs[unit].double().sum().item() * 3.0 / 1000)
            if min(abs(true - low), abs(true - high)) > 1e-9:
                assert losses[unit].item() == float(not low <= true <= high)
    assert any(guarantee.values(case)["lesion_low_ml"] == 0 for case in every)


def test_intervals_widen_as_fewer_may_lie_outside():
    every = [made_up_case(number) for number in range(60)]
    widths = []
    for alpha in (0.05, 0.1, 0.3):
        guarantee = VolumeInterval(CLASSES, alpha)
        guarantee.fit([guarantee.observe(case) for case in every])
        widths.append(guarantee.values(every[0])["organ_high_ml"])
    assert widths == sorted(widths, reverse=True)


def test_what_lies_outside_of_the_mask_does_not_count():
    case = made_up_case(0)
    mask = torch.zeros(1, *case.probs.shape[1:])
    mask[:, :4] = 1
    inside = GuaranteeCase("inside", case.probs[:, :4], None, case.target[:, :4], case.spacing)
    guarantee = VolumeInterval(CLASSES)
    found, expected = (guarantee.observe(one)["distance"] for one in (case._replace(mask=mask), inside))
    torch.testing.assert_close(found, expected)
