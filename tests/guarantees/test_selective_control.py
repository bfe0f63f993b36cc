"""Of cases that pass as few are poor as was promised, with the confidence promised, whatever the scores know."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from medcalib.errors import UserError
from medcalib.functional import num_cases_to_reject
from medcalib.guarantees import GuaranteeCase, SelectiveAccuracy, SelectiveControl, passing_rule

SPLITS = 2000
MAX_POOR, DELTA = 0.1, 0.1


def numbers_that_pass(scores, poor, delta):
    """How many of the cases with the lowest scores pass, for many draws at once, (draws,), with SciPy."""
    least, total = num_cases_to_reject(MAX_POOR, delta), scores.shape[1]
    counts = np.take_along_axis(poor, scores.argsort(1), 1).cumsum(1)[:, least - 1 :]
    numbers = np.arange(least, total + 1)
    rejected = binom.cdf(np.arange(total + 1)[:, None], numbers, MAX_POOR)[counts, numbers - least] <= delta
    steps = rejected.cumprod(1).sum(1)
    return np.where(steps > 0, least + steps - 1, 0)


def thresholds_of(scores, passing):
    """The score of the first case that does not pass; 0 where none passes, 1, the largest score, where all do."""
    ends = np.concatenate([np.zeros((len(scores), 1)), np.sort(scores, 1)[:, 1:], np.ones((len(scores), 1))], 1)
    return np.where(passing > 0, ends[np.arange(len(scores)), passing], 0)


# share of poor cases at a score, and among all up to a score, which is uniform on [0, 1]
KNOWLEDGE = {
    "much": (lambda score: score**3, lambda score: score**3 / 4),
    "little": (lambda score: 0.05 + 0.3 * score, lambda score: 0.05 + 0.15 * score),
    "nothing": (lambda score: 0.101 + 0 * score, lambda score: 0.101 + 0 * score),
    "the_opposite": (lambda score: 0.22 - 0.22 * score, lambda score: 0.22 - 0.11 * score),
}


@pytest.mark.parametrize("knowledge", KNOWLEDGE)
@pytest.mark.parametrize("total", [40, 150])
def test_promise_holds_with_the_confidence_that_was_promised(knowledge, total):
    of_score, up_to_score = KNOWLEDGE[knowledge]
    random = np.random.default_rng(0)
    scores = random.uniform(size=(SPLITS, total))
    poor = random.uniform(size=scores.shape) < of_score(scores)
    passing = numbers_that_pass(scores, poor, DELTA)
    broken = (passing > 0) & (up_to_score(thresholds_of(scores, passing)) > MAX_POOR)
    assert broken.mean() <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / SPLITS)
    if knowledge == "much" and total > 100:
        assert passing.mean() > 0.35 * total
    for draw in range(10):
        rule = passing_rule(torch.from_numpy(scores[draw]), torch.from_numpy(poor[draw]), MAX_POOR, DELTA)
        assert (0 if rule is None else rule.passed) == passing[draw]


def test_promise_holds_for_the_best_of_scores_that_know_nothing():
    """Taking the best of several at the whole delta would break it."""
    random = np.random.default_rng(1)
    total, count = 120, 5
    poor = random.uniform(size=(SPLITS, total)) < 0.101
    scores = random.uniform(size=(count, SPLITS, total))
    careless, careful = (
        np.max([numbers_that_pass(one, poor, delta) for one in scores], axis=0) > 0 for delta in (DELTA, DELTA / count)
    )
    slack = 3 * math.sqrt(DELTA * (1 - DELTA) / SPLITS)
    assert careless.mean() > DELTA + slack
    assert careful.mean() <= DELTA + slack
    names = [f"score_{number}" for number in range(count)]
    for draw in [0, 1, *np.flatnonzero(careful)[:3]]:
        guarantee = SelectiveControl(["organ"], MAX_POOR, DELTA, scores=names)
        cases = [
            GuaranteeCase(
                str(case), scores=dict(zip(names, scores[:, draw, case], strict=True)), dice=1 - poor[draw, case]
            )
            for case in range(total)
        ]
        guarantee.fit([guarantee.observe(case) for case in cases])
        passing = [numbers_that_pass(one[draw][None], poor[draw][None], DELTA / count)[0] for one in scores]
        assert guarantee.fitted("cases")["passed"] == max(passing)
        assert guarantee.fitted("cases")["score"] == (names[int(np.argmax(passing))] if careful[draw] else None)


def scored(values, dice, name="entropy"):
    return [
        GuaranteeCase(f"case_{number}", scores={name: value}, dice=quality)
        for number, (value, quality) in enumerate(zip(values, dice, strict=True))
    ]


def fitted_on(cases, **settings):
    guarantee = SelectiveControl(["organ"], **{"max_poor": 0.1, "scores": ["entropy"]} | settings)
    guarantee.fit([guarantee.observe(case) for case in cases])
    return guarantee


def test_cases_without_a_score_are_always_sent_to_a_human():
    cases = scored([0.1] * 50 + [math.nan] * 10, [0.9] * 50 + [0.1] * 10)
    guarantee = fitted_on(cases)
    assert guarantee.fitted("cases") == {
        "score": "entropy",
        "threshold": None,
        "passed": 50,
        "poor": 0,
        "calibration_risk": 0.0,
        "num_cases": 60,
    }
    assert [guarantee.values(case)["send_to_human"] for case in cases] == [False] * 50 + [True] * 10
    assert guarantee.values(GuaranteeCase("without"))["send_to_human"]
    assert math.isnan(guarantee.losses(cases[-1]).item())
    assert guarantee.losses(cases[0]._replace(dice=0.2)).item() == 1.0


def test_cases_without_a_dice_do_not_count():
    guarantee = fitted_on(scored([0.1] * 60, [0.9] * 40 + [math.nan] * 20))
    assert guarantee.fitted("cases")["num_cases"] == 40


def test_a_constant_score_lets_all_pass_or_none():
    good = fitted_on(scored([0.5] * 60, [0.9] * 60))
    assert good.fitted("cases")["passed"] == 60
    bad = fitted_on(scored([0.5] * 60, [0.9] * 30 + [0.1] * 30))
    assert bad.fitted("cases")["score"] is None
    assert bad.values(scored([0.0], [1.0])[0]) == {
        "send_to_human": True,
        "score": None,
        "score_value": pytest.approx(math.nan, nan_ok=True),
    }
    assert bad.notes() == ["no score lets any case pass at this level: every case is sent to a human."]


def test_a_case_passes_only_below_the_threshold():
    guarantee = fitted_on(scored(np.linspace(0, 1, 101), [0.9] * 60 + [0.1] * 41))
    threshold = guarantee.fitted("cases")["threshold"]
    at, below = scored([threshold, np.nextafter(threshold, 0)], [0.9, 0.9])
    assert (guarantee.passes(at), guarantee.passes(below)) == (False, True)


def test_more_pass_as_more_may_be_poor():
    cases = scored(
        np.linspace(0, 1, 200),
        np.where(np.linspace(0, 1, 200) ** 2 > np.random.default_rng(0).uniform(size=200), 0.1, 0.9),
    )
    passed = [fitted_on(cases, max_poor=level).fitted("cases")["passed"] for level in (0.05, 0.1, 0.2, 0.4)]
    assert passed == sorted(passed)
    assert passed[0] < passed[-1]


def test_choosing_among_more_scores_needs_more_cases():
    cases = [case._replace(scores={"entropy": 0.1, "other": 0.1}) for case in scored([0.1] * 30, [0.9] * 30)]
    fitted_on(cases)
    with pytest.raises(
        UserError, match="needs 36 calibration cases to choose among 2 scores, and there are 30: name fewer"
    ):
        fitted_on(cases, scores=["entropy", "other"])
    # a score that there is not costs nothing
    assert fitted_on(cases, scores=["nobody", "entropy"]).fitted("cases")["score"] == "entropy"
    with pytest.raises(UserError, match="no calibration case has any of nobody, nothing: name others as scores"):
        fitted_on(cases, scores=["nobody", "nothing"])
    with pytest.raises(UserError, match="scores of the guarantee is empty"):
        SelectiveControl(["organ"], scores=[])


def test_wrong_images_are_the_poor_ones():
    generator = torch.Generator().manual_seed(0)
    probs = torch.softmax(4 * torch.randn(200, 3, generator=generator), 1)
    labels = torch.multinomial(probs, 1, generator=generator)
    cases = [GuaranteeCase(str(one), probs[one], target=torch.arange(3) == labels[one]) for one in range(200)]
    guarantee = SelectiveAccuracy(["a", "b", "c"], alpha=0.1)
    guarantee.fit([guarantee.observe(case) for case in cases])
    wrong = (probs.argmax(1) != labels[:, 0]).double()
    rule = passing_rule(1 - probs.max(1).values, wrong, 0.1, 0.05)
    assert guarantee.fitted("cases")["passed"] == rule.passed == sum(map(guarantee.passes, cases))
    passing = torch.tensor([guarantee.passes(case) for case in cases])
    losses = torch.cat([guarantee.losses(case) for case in cases])
    assert torch.equal(losses[passing], wrong[passing])
    assert losses[~passing].isnan().all()
