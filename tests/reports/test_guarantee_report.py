"""The report of guarantees says of every group what happened in it, and whether anything is promised within it."""

import math

import numpy as np
import torch

from medcalib.files.writing import read_json
from medcalib.guarantees import GuaranteeCase, JointGuarantees, PredictionSets, RecallControl
from medcalib.reports.guarantee_evaluation import write_guarantee_evaluation
from medcalib.transforms.guaranteed_cases import said_of


def organ(name, missed, group=None):
    """A case of ten voxels, of which so many cannot be found."""
    probs = torch.tensor([[0.9] * (10 - missed) + [0.0] * missed])
    return GuaranteeCase(
        name, probs, probs > 0.5, torch.ones(1, 10, dtype=torch.bool), (1.0, 1.0, 1.0)[:1], group=group
    )


def report(folder, part, known, new):
    joint = JointGuarantees([part])
    joint.fit([joint.observe(case) for case in known], [case.group for case in known])
    rows = [{"case": case.case, "guaranteed": said_of(case, joint)[0]} for case in new]
    told = write_guarantee_evaluation(folder, joint, part.class_names, rows)
    return told, read_json(folder / "guarantees.json", "")["guarantees"][part.kind]


def test_only_groups_with_values_of_their_own_are_promised_anything(tmp_path):
    known = [organ(f"{group}{n}", 0, group) for group, number in (("A", 20), ("B", 3)) for n in range(number)]
    new = [organ(f"new_{group}{n}", 5 if group == "A" else 0, group) for group in "ABC" for n in range(30)]
    told, found = report(tmp_path, RecallControl(["organ"], alpha=0.1), known, new)
    # the probabilities of a half are 0, which only a set of everything would hold
    threshold = found["classes"]["organ"]["fitted"]["threshold"]
    assert threshold > 0
    groups = found["classes"]["organ"]["groups"]
    assert {name: group["promised"] for name, group in groups.items()} == {"A": True, "B": False, "C": False}
    assert [groups[name]["mean"] for name in "ABC"] == [0.5, 0.0, 0.0]
    lines = told.splitlines()
    (of_a,), (of_b,), (of_c,) = (
        [line for line in lines if line.strip().startswith(f"{name}: on 30")] for name in "ABC"
    )
    assert "more than promised" in of_a
    assert of_b.endswith("nothing promised within this group")
    assert of_c.endswith("nothing promised within this group")
    assert any("group B has 3 cases, fewer than 20" in line for line in lines)
    assert any("group C has no calibration case" in line for line in lines)
    assert not any("group A" in line for line in lines)


def test_promises_to_classes_are_checked_class_by_class(tmp_path):
    """Images of the rare class are all mistaken, which the mean over all images hides."""
    random = np.random.default_rng(0)
    names = ["a", "b", "c"]

    def image(name, true):
        probs = torch.from_numpy(random.dirichlet([3.0 if n == true else 1.0 for n in range(3)]))
        return GuaranteeCase(name, probs, target=torch.arange(3) == true)

    known = [image(f"known_{n}", n % 2) for n in range(80)]
    new = [image(f"new_{n}", n % 2 if n < 90 else 2) for n in range(100)]
    part = PredictionSets(names, alpha=0.2, class_conditional=True)
    told, found = report(tmp_path, part, known, new)
    groups = found["classes"]["cases"]["groups"]
    assert {name: (group["num_cases"], group["promised"]) for name, group in groups.items()} == {
        "a": (45, True),
        "b": (45, True),
        "c": (10, False),
    }
    for number, name in enumerate(names):
        losses = [float(part.losses(case)) for case in new if case.target[number]]
        assert math.isclose(groups[name]["mean"], np.mean(losses))
    assert "group c has no calibration case" in told
