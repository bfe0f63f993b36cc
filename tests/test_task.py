"""What a task says of the channels of predictions, labels and results."""

import dataclasses
import math

import pytest
import torch
from monai.transforms import Activations, AsDiscrete

from medcalib.errors import UserError
from medcalib.functional import entropy
from medcalib.task import Task

NAMES = ("background", "kidney", "tumour")
REGIONS = {"tumour": [2], "kidney_and_tumour": [1, 2]}


def said(task):
    """What the task says of results, segmentations and labels."""
    return (
        (task.reported_classes, task.include_first_channel, task.num_exclusive_classes, str(task.reported_activation)),
        (task.segmented_classes, list(range(task.num_classes))[task.segmented_channels]),
        task.num_label_values,
    )


def test_exclusive_classes_have_a_background():
    assert said(Task(NAMES)) == ((NAMES[1:], False, 3, "softmax"), (NAMES[1:], [1, 2]), 3)
    with_background = Task(NAMES, include_background=True)
    assert said(with_background) == ((NAMES, True, 3, "softmax"), (NAMES, [0, 1, 2]), 3)


@pytest.mark.parametrize("include_background", [False, True])
def test_independent_labels_have_none(include_background):
    task = Task(NAMES, "sigmoid", include_background=include_background)
    assert said(task) == ((NAMES, True, None, "sigmoid"), (NAMES, [0, 1, 2]), 2)


def test_regions_are_reported_and_classes_segmented():
    task = Task(NAMES, regions=REGIONS, evaluate="regions")
    assert said(task) == ((tuple(REGIONS), True, None, "sigmoid"), (NAMES[1:], [1, 2]), 3)
    assert task.regions == REGIONS
    assert Task(NAMES, regions=REGIONS).regions is Task(NAMES, regions=REGIONS, evaluate="labels").regions is None
    assert said(Task(NAMES, regions=REGIONS)) == said(Task(NAMES))


def test_names_are_texts():
    assert Task([1, 2]).class_names == ("1", "2")


def test_a_task_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Task(NAMES).activation = "sigmoid"


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_and_segmentation_are_those_of_monai(activation):
    task = Task(NAMES, activation)
    logits = 4 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    probs = task.probabilities(logits.clone())
    assert torch.equal(probs, Activations(**{activation: True})(logits))
    rule = {"argmax": True} if activation == "softmax" else {"threshold": 0.5}
    assert torch.equal(task.segmentation(probs).float(), AsDiscrete(**rule)(probs))
    assert torch.equal(task.entropy(probs), entropy(probs[None], activation)[0])


@pytest.mark.parametrize(("activation", "largest"), [("softmax", math.log(3)), ("sigmoid", 3 * math.log(2))])
def test_the_largest_entropy_is_that_of_knowing_nothing(activation, largest):
    task = Task(NAMES, activation)
    assert task.max_entropy == pytest.approx(largest)
    assert task.entropy(task.probabilities(torch.zeros(3, 2))).tolist() == [pytest.approx([largest] * 2)]


@pytest.mark.parametrize("evaluate", ["region", "true", True, 1, ""])
def test_what_cannot_be_evaluated(evaluate):
    with pytest.raises(UserError, match=f"^data::evaluate is {evaluate!r}: it must be labels or regions"):
        Task(NAMES, regions=REGIONS, evaluate=evaluate)


@pytest.mark.parametrize("regions", [None, {}, ["tumour"], "tumour"])
def test_regions_that_are_none(regions):
    with pytest.raises(UserError, match="^data::evaluate is regions, but data::regions is "):
        Task(NAMES, regions=regions, evaluate="regions")


def test_probabilities_of_independent_labels_are_not_added():
    with pytest.raises(UserError, match="the activation is sigmoid, whose labels may overlap already"):
        Task(NAMES, "sigmoid", REGIONS, "regions")
