"""What guarantees see of a case."""

import pytest
import torch
from monai.data import MetaTensor

from medcalib.guarantees import GuaranteeCase, JointGuarantees, RecallControl, SelectiveControl
from medcalib.task import Task
from medcalib.transforms.guaranteed_cases import GUARANTEED, SETS, ApplyGuaranteesd, guarantee_case, said_of

SPACING = (1.0, 2.0, 3.0)


def case(task, label, shape=(4, 4, 4)):
    """A case as it is after the probabilities were brought to the grid of its files."""
    probs = torch.rand(len(task.reported_classes) + task.reports_exclusive, *shape).softmax(0)
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    seg = probs.argmax(0, keepdim=True) if task.reports_exclusive else probs > 0.5
    return {
        "case": "a",
        "pred": MetaTensor(probs, affine=affine),
        "seg": seg,
        "entropy": torch.rand(1, *shape),
        "label": label,
    }


def test_classes_are_those_of_the_foreground():
    task = Task(["background", "organ", "lesion"])
    label = torch.randint(3, (1, 4, 4, 4))
    given = case(task, label)
    found = guarantee_case(given, task, group="A")
    assert task.foreground_classes == ("organ", "lesion")
    assert torch.equal(found.probs, given["pred"].as_tensor()[1:])
    for channel in (1, 2):
        assert torch.equal(found.target[channel - 1], label[0] == channel)
        assert torch.equal(found.segmentation[channel - 1], given["seg"][0] == channel)
    assert (found.spacing, found.group) == (SPACING, "A")
    dice = [
        2 * float((t & s).sum()) / float(t.sum() + s.sum())
        for t, s in zip(found.target, found.segmentation, strict=True)
    ]
    assert found.dice == pytest.approx(sum(dice) / 2)


def test_regions_may_overlap():
    task = Task(["background", "organ", "lesion"], regions={"both": [1, 2], "lesion": [2]}, evaluate="regions")
    label = torch.randint(2, (2, 4, 4, 4))
    found = guarantee_case(case(task, label), task)
    assert task.foreground_classes == ("both", "lesion")
    assert torch.equal(found.target, label.bool())


def test_a_case_without_label_has_no_target():
    task = Task(["background", "organ"])
    given = case(task, torch.ones(1, 4, 4, 4))
    del given["label"]
    found = guarantee_case(given, task)
    assert found.target is None
    assert found.dice != found.dice


def test_certain_scores_are_turned():
    """High is uncertain."""
    task = Task(["background", "organ"])
    given = case(task, torch.ones(1, 4, 4, 4))
    assert guarantee_case(given, task).scores["mean_foreground_confidence"] <= 0
    assert guarantee_case(given, task).scores["entropy_image_mean"] >= 0


@pytest.mark.parametrize(("score", "told"), [("pairwise_dice", 0.95), ("entropy_foreground_mean", -0.95)])
def test_scores_are_told_as_tables_have_them(score, told):
    part = SelectiveControl(["organ"], max_poor=0.3, scores=[score])
    guarantees, shown = JointGuarantees([part]), GuaranteeCase("a", scores={score: -0.95}, dice=0.9)
    guarantees.fit([guarantees.observe(shown)] * 20)
    found, _ = said_of(shown, guarantees)
    assert found["values"] == {"send_to_human": False, "score": score, "score_value": told}
    assert part.values(shown)["score_value"] == found["scores"][score] == -0.95


@pytest.mark.parametrize(("shape", "unit", "size"), [((4, 4, 4), "ml", 0.006), ((4, 4), "pixels", 1.0)])
def test_sizes_of_sets(shape, unit, size):
    task = Task(["background", "organ"])
    label = torch.zeros(1, *shape)
    label.view(-1)[:5] = 1
    given = case(task, label, shape)
    guarantees = JointGuarantees([RecallControl(["organ"], alpha=0.2)])
    guarantees.fit([guarantees.observe(guarantee_case(given, task))] * 10)
    found = ApplyGuaranteesd(guarantees, task, keep_sets=True)(given)
    number = int(found[SETS]["outer"].sum())
    assert found[GUARANTEED]["unit"] == unit
    assert found[GUARANTEED]["sets"]["outer"] == [pytest.approx(number * size)]
    assert found[GUARANTEED]["values"] == {f"organ_outer_{unit}": pytest.approx(number * size)}
    assert found["pred"] is given["pred"]
