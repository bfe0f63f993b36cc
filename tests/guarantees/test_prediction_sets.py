"""Prediction sets hold the true class as often as promised, of all images or of those of each class."""

import math

import numpy as np
import pytest
import torch
from tests.guarantees.made_up import cases_of, exchangeable, mean_within

from medcalib.errors import UserError
from medcalib.functional import adaptive_scores
from medcalib.guarantees import GuaranteeCase, PredictionSets

NAMES = ["a", "b", "c", "d"]
# the first class is the most frequent one, and the hardest
SHARES = [0.55, 0.2, 0.15, 0.1]


@pytest.fixture(scope="module")
def cases():
    random = np.random.default_rng(0)
    labels = random.choice(4, size=300, p=SHARES)
    logits = random.normal(size=(300, 4)) + np.eye(4)[labels] * np.array([1.0, 2.0, 2.5, 3.0])[labels][:, None]
    probs = torch.softmax(torch.from_numpy(logits), 1).float()
    return [
        GuaranteeCase(str(number), one, target=torch.arange(4) == int(label))
        for number, (one, label) in enumerate(zip(probs, labels, strict=True))
    ]


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize(("number", "alpha"), [(40, 0.1), (100, 0.2)])
def test_sets_lack_the_true_class_as_often_as_promised(cases, penalty, number, alpha):
    settings = {"alpha": alpha, "penalty": penalty}
    observed = [PredictionSets(NAMES, **settings).observe(case) for case in cases]
    scores = np.array([one["score"] for one in observed])
    known = exchangeable(len(cases), number)
    order = np.sort(np.where(known > 0, scores, np.inf), axis=1)
    limit = order[:, math.ceil(round((number + 1) * (1 - alpha), 9)) - 1]
    first = np.array([bool(case.target[case.probs.argmax()]) for case in cases])
    lacking = (((scores > limit[:, None]) & ~first) * (1 - known)).sum(1) / (len(cases) - number)
    assert mean_within(lacking, alpha / 4, alpha)
    for split in range(3):
        guarantee = PredictionSets(NAMES, **settings)
        guarantee.fit(cases_of(observed, known[split]))
        assert guarantee.fitted("cases")["largest_score"] == limit[split]
        losses = torch.cat([guarantee.losses(case) for case in cases])
        assert losses.tolist() == ((scores > limit[split]) & ~first).astype(float).tolist()


def test_a_set_holds_the_most_probable_class_and_its_size(cases):
    guarantee = PredictionSets(NAMES, alpha=0.6)
    guarantee.fit([guarantee.observe(case) for case in cases])
    for case in cases:
        said = guarantee.values(case)
        held = said["prediction_set"].split("|")
        assert NAMES[case.probs.argmax()] in held
        assert said["set_size"] == len(held)
        scores = adaptive_scores(case.probs[None])[0]
        largest = guarantee.fitted("cases")["largest_score"]
        expected = {name for name, score in zip(NAMES, scores, strict=True) if score <= largest}
        assert set(held) == expected | {NAMES[case.probs.argmax()]}


def test_promise_holds_for_images_of_each_class(cases):
    plain, conditional = PredictionSets(NAMES), PredictionSets(NAMES, class_conditional=True)
    observed = [plain.observe(case) for case in cases]
    known = exchangeable(len(cases), 200)[:25]
    lacking = {"plain": [], "conditional": []}
    hardest = [case if case.target[0] else None for case in cases]
    for split in known:
        for name, guarantee in (("plain", plain), ("conditional", conditional)):
            guarantee.fit(cases_of(observed, split))
            others = [case for case, is_known in zip(hardest, split, strict=True) if not is_known and case is not None]
            lacking[name].append(torch.cat([guarantee.losses(case) for case in others]).mean().item())
    assert mean_within(np.array(lacking["conditional"]), 0.02, 0.1)
    # the hardest class is lacking more often than one of all images
    assert np.mean(lacking["plain"]) > 0.12


def test_rare_classes_share_the_quantile_of_all(cases):
    guarantee = PredictionSets(NAMES, class_conditional=True)
    observed = [guarantee.observe(case) for case in cases]
    few = [one for one in observed if one["class"] < 3] + [one for one in observed if one["class"] == 3][:4]
    guarantee.fit(few)
    (note,) = guarantee.notes()
    assert note.startswith(
        f"cases: group d has 4 cases, fewer than 20; it gets what was fitted on all {len(few)} cases"
    )
    with pytest.raises(UserError, match="has the classes as groups: set group_by to null"):
        guarantee.fit(few, ["A"] * len(few))


def test_a_constant_predictor_gets_the_set_of_all_classes():
    generator = torch.Generator().manual_seed(0)
    cases = [
        GuaranteeCase(str(number), torch.full((4,), 0.25), target=torch.arange(4) == number % 4)
        for number in torch.randperm(40, generator=generator).tolist()
    ]
    guarantee = PredictionSets(NAMES)
    guarantee.fit([guarantee.observe(case) for case in cases])
    assert guarantee.values(cases[0])["set_size"] == 4


def test_labels_that_are_not_exclusive_are_refused():
    case = GuaranteeCase("image_3", torch.tensor([0.5, 0.5]), target=torch.tensor([True, True]))
    with pytest.raises(UserError, match="Case image_3 has 2 classes"):
        PredictionSets(["a", "b"]).observe(case)
