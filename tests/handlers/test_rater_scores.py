"""Predictions beside several raters, against NumPy and against the metrics of a single rater."""

import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.metrics import DiceMetric

from medcalib.errors import UserError
from medcalib.functional import mean_response
from medcalib.handlers import CalibrationErrorHandler, RaterScoresHandler, results_of
from medcalib.handlers.results import RATED
from medcalib.task import Task
from medcalib.transforms import MajorityLabeld

NAMES = ["background", "organ", "lesion"]


def dice(one, other):
    size = one.sum() + other.sum()
    return math.nan if size == 0 else 2 * (one & other).sum() / size


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    votes = torch.randint(3, (4, 5, 6), generator=generator).to(torch.uint8)
    probs = torch.rand(3, 5, 6, generator=generator)
    probs /= probs.sum(0)
    case = {"case": "a", "votes": votes, "label": mean_response(votes, 3), "pred": probs}
    case |= {"seg": probs.argmax(0, keepdim=True).to(torch.uint8)}
    case |= {"member_labels": torch.randint(3, (3, 5, 6), generator=generator).to(torch.uint8)}
    case |= {name: torch.rand(1, 5, 6, generator=generator) for name in ("entropy", "mutual_information", "variance")}
    return MajorityLabeld("label")(case)


def found(task, *cases, **options):
    engine = Engine(lambda engine, batch: batch)
    CalibrationErrorHandler(task).attach(engine)
    RaterScoresHandler(task, **options).attach(engine)
    state = engine.run([[case] for case in cases])
    return state, results_of(engine)[RATED]


def test_numbers_are_those_of_their_definitions(case):
    state, rows = found(Task(NAMES), case)
    votes, members, seg = (case[key].numpy() for key in ("votes", "member_labels", "seg"))
    for place, c in enumerate((1, 2)):
        with_raters = [dice(seg[0] == c, vote == c) for vote in votes]
        pairs = [dice(votes[i] == c, votes[j] == c) for i in range(4) for j in range(i)]
        best = [max(dice(member == c, vote == c) for member in members) for vote in votes]
        assert rows[0].classes["dice_with_raters"][place] == pytest.approx(np.mean(with_raters))
        assert rows[0].classes["rater_dice"][place] == pytest.approx(np.mean(pairs))
        assert rows[0].classes["dice_max"][place] == pytest.approx(np.mean(best))
        distances = [
            np.mean([1 - dice(a == c, b == c) for a in ones for b in others])
            for ones, others in ((members, votes), (members, members), (votes, votes))
        ]
        assert rows[0].classes["ged"][place] == pytest.approx(2 * distances[0] - distances[1] - distances[2])
    shares = np.stack([(votes == c).mean(0) for c in range(3)])
    spread = (shares * (1 - shares)).mean(0)
    for name in ("entropy", "mutual_information", "variance"):
        expected = np.corrcoef(spread.ravel(), case[name].numpy().ravel())[0, 1]
        assert state.metrics[f"ncc_{name}"] == pytest.approx(expected, abs=1e-6)
    assert rows[0].num_raters == 4


def test_raters_who_agree_give_every_number_of_a_single_rater(case):
    label = case["votes"][:1]
    agreeing = {key: case[key] for key in ("case", "pred", "seg", "entropy")}
    agreeing |= {"votes": label.repeat(5, 1, 1), "label": mean_response(label.repeat(5, 1, 1), 3)}
    state, rows = found(Task(NAMES), MajorityLabeld("label")(agreeing))
    alone, _ = found(
        Task(NAMES),
        {key: case[key] for key in ("case", "pred", "seg", "votes", "response", "entropy")}
        | {"label": label, "response": agreeing["label"]},
    )
    single = Engine(lambda engine, batch: batch)
    CalibrationErrorHandler(Task(NAMES)).attach(single)
    single_state = single.run([[{"case": "a", "pred": case["pred"], "label": label}]])
    for name, value in single_state.metrics.items():
        assert state.metrics[name] == value == alone.metrics[name]
    metric = DiceMetric(include_background=False, num_classes=3)
    expected = metric(case["seg"][None], label[None])[0]
    np.testing.assert_allclose(rows[0].classes["dice_with_raters"], expected, atol=1e-6)
    # the energy distance of one sample and one rater is twice their distance
    np.testing.assert_allclose(rows[0].classes["ged"], 2 * (1 - expected), atol=1e-6)
    assert rows[0].classes["rater_dice"] == [1.0, 1.0]
    assert math.isnan(state.metrics["ncc_entropy"])


def test_members_that_are_the_raters_are_at_no_distance(case):
    case["member_labels"] = case["votes"].flip(0)
    for distance in ("dice", "iou"):
        rows = found(Task(NAMES), case, distance=distance)[1]
        np.testing.assert_allclose(rows[0].classes["ged"], 0, atol=1e-12)
        assert rows[0].classes["dice_max"] == [1.0, 1.0]
    case["entropy"] = 3 + 2 * (case["response"] * (1 - case["response"])).sum(0, keepdim=True)
    assert found(Task(NAMES), case)[0].metrics["ncc_entropy"] == pytest.approx(1)


def test_regions_are_united_before_they_are_compared(case):
    task = Task(NAMES, regions={"both": [1, 2]}, evaluate="regions")
    united = {key: (case[key] > 0).to(torch.uint8) for key in ("votes", "member_labels", "seg")}
    expected = found(Task(["background", "both"]), case | united)[1][0]
    labels = torch.stack([(case["label"][0] > 0).to(torch.uint8)])
    response = case["response"][1:].sum(0, keepdim=True)
    regions = {"seg": united["seg"], "pred": case["pred"][1:].sum(0, keepdim=True), "label": labels}
    rows = found(task, case | regions | {"response": response})[1]
    assert rows[0].classes == expected.classes
    assert rows[0].consensus == expected.consensus


def test_independent_labels(case):
    task = Task(["one", "other"], activation="sigmoid")
    masks = torch.rand(3 * 2, 5, 6, generator=torch.Generator().manual_seed(5)) < 0.5
    own = {"votes": masks.to(torch.uint8), "seg": masks[:2], "response": masks.reshape(3, 2, 5, 6).float().mean(0)}
    own |= {"pred": torch.rand(2, 5, 6), "label": masks[:2].to(torch.uint8), "case": "a", "entropy": case["entropy"]}
    rows = found(task, own)[1]
    expected = np.mean([dice(masks[0].numpy(), masks[2 * rater].numpy()) for rater in range(3)])
    assert rows[0].classes["dice_with_raters"][0] == pytest.approx(expected)
    assert rows[0].num_raters == 3


def test_the_number_of_raters_may_differ_and_a_soft_label_has_none(case):
    fewer = case | {"case": "b", "votes": case["votes"][:2]}
    soft = {key: value for key, value in case.items() if key != "votes"} | {"case": "c"}
    state, rows = found(Task(NAMES), case, fewer, soft)
    assert [row.num_raters for row in rows] == [4, 2, 0]
    assert state.metric_details["ged"].shape == (3, 2)
    assert state.metric_details["ged"][2].isnan().all()
    assert state.metric_details["ncc_entropy"].shape == (3, 1)
    assert not state.metric_details["ncc_entropy"].isnan().any()


def test_another_distance_is_refused():
    with pytest.raises(UserError, match="raters::distance is 'hausdorff': it must be dice or iou"):
        RaterScoresHandler(Task(NAMES), distance="hausdorff")
