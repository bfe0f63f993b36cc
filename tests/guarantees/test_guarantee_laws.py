"""What holds for every guarantee: order does not matter, groups, states, levels, and too few cases."""

import json
import math

import numpy as np
import pytest
import torch
from tests.guarantees.made_up import CLASSES, made_up_case

from medcalib.errors import UserError
from medcalib.guarantees import (
    GUARANTEES,
    GuaranteeCase,
    MarginControl,
    PrecisionControl,
    PredictionSets,
    RecallControl,
    SelectiveAccuracy,
    SelectiveControl,
    VolumeInterval,
    guarantee_from_state,
)

MAPS = [
    RecallControl(CLASSES),
    PrecisionControl(CLASSES, alpha=0.3),
    MarginControl(CLASSES, alpha=0.2),
    MarginControl(CLASSES, alpha=0.2, min_covered=0.9),
    VolumeInterval(CLASSES),
    SelectiveControl(CLASSES, max_poor=0.2, poor_below=0.7, scores=["entropy", "other"]),
]
IMAGES = [
    PredictionSets(["a", "b", "c"]),
    PredictionSets(["a", "b", "c"], penalty=0.1, class_conditional=True),
    SelectiveAccuracy(["a", "b", "c"], alpha=0.4),
]
EVERY = [pytest.param(one, id=f"{one.kind}{number}") for number, one in enumerate(MAPS + IMAGES)]


def volume(number):
    random = np.random.default_rng(number)
    dice = random.uniform(0.6, 1)
    scores = {"entropy": 1 - dice + random.normal(0, 0.02), "other": random.normal()}
    return made_up_case(number)._replace(scores=scores, dice=dice)


def image(number):
    generator = torch.Generator().manual_seed(number)
    probs = torch.softmax(2 * torch.randn(3, generator=generator), 0)
    true = torch.multinomial(probs, 1, generator=generator)
    return GuaranteeCase(f"image_{number}", probs, target=torch.arange(3) == true)


@pytest.fixture(scope="module")
def volumes():
    return [volume(number) for number in range(60)]


@pytest.fixture(scope="module")
def images():
    return [image(number) for number in range(90)]


def anew(guarantee, **settings):
    return type(guarantee)(**(guarantee.settings() | settings))


def cases_for(guarantee, volumes, images):
    return volumes if guarantee in MAPS else images


def said_of(guarantee, case):
    sets = {name: voxels.tolist() for name, voxels in guarantee.sets(case).items()}
    return sets, guarantee.values(case), str(guarantee.losses(case).tolist())


def test_all_are_tested():
    assert {one.kind for one in MAPS + IMAGES} == set(GUARANTEES)


@pytest.mark.parametrize("guarantee", EVERY)
class TestEvery:
    def test_order_of_the_cases_does_not_matter(self, guarantee, volumes, images):
        observed = [guarantee.observe(case) for case in cases_for(guarantee, volumes, images)]
        groups = None if getattr(guarantee, "class_conditional", False) else ["A", "B"] * (len(observed) // 2)
        states = []
        for order in (range(len(observed)), np.random.default_rng(0).permutation(len(observed))):
            guarantee.fit([observed[index] for index in order], groups and [groups[index] for index in order])
            states.append(json.dumps(guarantee.state(), sort_keys=True))
        assert states[0] == states[1]

    def test_state_returns_exactly(self, guarantee, volumes, images):
        cases = cases_for(guarantee, volumes, images)
        guarantee.fit([guarantee.observe(case) for case in cases])
        state = json.loads(json.dumps(guarantee.state(), allow_nan=False))
        loaded = guarantee_from_state(state)
        assert loaded.state() == guarantee.state()
        for case in cases[:5]:
            assert said_of(loaded, case) == said_of(guarantee, case)
        assert loaded.promise() == guarantee.promise()
        assert loaded.notes() == guarantee.notes()

    def test_what_was_fitted_with_other_settings_is_refused(self, guarantee, volumes, images):
        guarantee.fit([guarantee.observe(case) for case in cases_for(guarantee, volumes, images)])
        other = anew(guarantee, min_group_cases=3)
        with pytest.raises(UserError, match="was fitted with min_group_cases 20, and now it is 3: fit it anew"):
            other.load_state(guarantee.state())
        with pytest.raises(UserError, match=f"is {guarantee.kind}, not"):
            next(one for one in MAPS + IMAGES if one.kind != guarantee.kind).load_state(guarantee.state())

    def test_too_few_cases_are_named(self, guarantee, volumes, images):
        needed = guarantee.num_cases_needed
        observed = [guarantee.observe(case) for case in cases_for(guarantee, volumes, images)][: needed - 1]
        fresh = anew(guarantee)
        with pytest.raises(UserError, match=f"needs {needed} calibration cases.*, and there are {needed - 1}: add"):
            fresh.fit(observed)
        with pytest.raises(UserError, match=f"needs {needed} calibration cases.*, and there are {needed - 1}: add"):
            fresh.check_num_cases(needed - 1)
        fresh.check_num_cases(needed)
        with pytest.raises(UserError, match=f"The guarantee {guarantee.kind} is not fitted"):
            fresh.state()

    def test_groups_get_their_own_values_or_those_of_all(self, guarantee, volumes, images):
        if getattr(guarantee, "class_conditional", False):
            pytest.skip("the classes are its groups")
        cases = cases_for(guarantee, volumes, images)
        observed = [guarantee.observe(case) for case in cases]
        few = 5
        groups = ["few"] * few + ["many"] * (len(cases) - few)
        pooled, alone, grouped = anew(guarantee), anew(guarantee), anew(guarantee)
        pooled.fit(observed)
        alone.fit(observed[few:])
        grouped.fit(observed, groups)
        for unit in guarantee.unit_names:
            assert grouped.fitted(unit, "many") == alone.fitted(unit)
            for group in ("few", "unheard of", None):
                assert grouped.fitted(unit, group) == pooled.fitted(unit)
            assert any(note.startswith(f"{unit}: group few has 5 cases, fewer than 20") for note in grouped.notes())

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, True, "0.1"])
    def test_levels_out_of_range(self, guarantee, alpha):
        with pytest.raises(
            UserError, match=f"{guarantee.level_key} of the guarantee is .*: it must be a number between"
        ):
            anew(guarantee, **{guarantee.level_key: alpha})

    def test_says_what_it_promises(self, guarantee, volumes, images):
        assert f"{100 * guarantee.level:g} %" in guarantee.promise()
        assert guarantee.loss_name
        guarantee.fit([guarantee.observe(case) for case in cases_for(guarantee, volumes, images)])
        losses = torch.stack([guarantee.losses(case) for case in cases_for(guarantee, volumes, images)])
        assert losses.shape[1:] == (len(guarantee.unit_names),)
        assert losses.dtype == torch.float64
        known = losses[~losses.isnan()]
        assert bool(((known >= 0) & (known <= 1)).all())
        assert guarantee.binary_losses == bool(((known == 0) | (known == 1)).all())


def test_inner_within_segmentation_within_outer(volumes):
    for alpha in (0.1, 0.3, 0.6):
        recall, precision, margin = (kind(CLASSES, alpha) for kind in (RecallControl, PrecisionControl, MarginControl))
        for guarantee in (recall, precision, margin):
            guarantee.fit([guarantee.observe(case) for case in volumes])
        for case in volumes:
            inner = precision.sets(case)["inner"]
            assert bool((case.segmentation | ~inner).all())
            for guarantee in (recall, margin):
                assert bool((guarantee.sets(case)["outer"] | ~case.segmentation).all())


def test_a_case_that_lacks_what_is_needed_is_named():
    case = GuaranteeCase("case_7")
    with pytest.raises(UserError, match="Case case_7 has no probabilities"):
        RecallControl(CLASSES).observe(case)
    with pytest.raises(UserError, match="Case case_7 has no segmentation"):
        MarginControl(CLASSES).observe(case)
    with pytest.raises(UserError, match="Case case_7 has no label"):
        VolumeInterval(CLASSES).observe(case._replace(probs=torch.zeros(2, 3)))
    assert math.isnan(SelectiveControl(CLASSES).observe(case)["poor"])
