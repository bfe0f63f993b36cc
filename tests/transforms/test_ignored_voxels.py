"""Voxels of unknown truth: whatever is predicted there, nothing that is compared with a label changes."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, MeanDice, from_engine

from medcalib.calibrators import TemperatureScaling, fit_calibrator
from medcalib.engines import CalibratorFitter
from medcalib.errors import UserError
from medcalib.guarantees import MarginControl, PrecisionControl, RecallControl, VolumeInterval
from medcalib.handlers import (
    BoundaryCalibrationHandler,
    CalibrationErrorHandler,
    ObjectSizesHandler,
    RegionMetricHandler,
    UncertaintyScoresHandler,
)
from medcalib.handlers.results import BINNED, BOUNDARY_BINNED, CASE_SCORES, OBJECT_SIZES
from medcalib.keys import IGNORED, CaseKeys
from medcalib.metrics import (
    BrierScoreMetric,
    HausdorffDistanceMetric,
    ModifiedHausdorffDistanceMetric,
    NegativeLogLikelihoodMetric,
    SurfaceDiceMetric,
)
from medcalib.task import Task
from medcalib.transforms import CheckLabeld, LeaveOutIgnoredd, LoadCased, Regionsd
from medcalib.transforms.guaranteed_cases import guarantee_case

NAMES = ["background", "organ", "lesion"]
TASKS = {
    "classes": Task(NAMES),
    "background": Task(NAMES, include_background=True),
    "regions": Task(NAMES, regions={"both": [1, 2], "core": [2]}, evaluate="regions"),
    "labels": Task(NAMES[1:], "sigmoid"),
}
SIZE = (7, 6, 5)


def example(task, seed=0):
    """Logits of a case, its label, and where that is known."""
    generator = torch.Generator().manual_seed(seed)
    channels = task.num_classes
    logits = 2 * torch.randn(channels, *SIZE, generator=generator)
    label = (logits + 2 * torch.randn(logits.shape, generator=generator)).argmax(0, keepdim=True)
    if not task.exclusive:
        label = torch.cat([label == 0, label == 1])
    known = torch.rand(1, *SIZE, generator=generator) > 0.35
    return logits, label.to(torch.int8).where(known, IGNORED), known


def prepared(task, logits, label, case="a"):
    """As the steps before and the last one leave a case."""
    probs = task.probabilities(logits.clone())
    data = {
        "case": case,
        "pred": MetaTensor(probs),
        "label": MetaTensor(label, affine=torch.eye(4)),
        "seg": MetaTensor(task.segmentation(probs)),
        "entropy": MetaTensor(task.entropy(probs)),
    }
    return LeaveOutIgnoredd(["pred", "seg", "label"], task.regions, task.num_classes, task)(data)


def evaluated(task, cases):
    """All that an evaluation says of cases, by name."""
    engine = Engine(lambda _, batch: batch)
    first = {"include_background": task.include_first_channel}
    pair = {"output_transform": from_engine(["seg", "label"])}
    metrics = {
        "nll": RegionMetricHandler(NegativeLogLikelihoodMetric(**first)),
        "brier": RegionMetricHandler(BrierScoreMetric(**first)),
        "dice": MeanDice(**first, num_classes=task.num_exclusive_classes, **pair),
        "mhd": IgniteMetricHandler(
            ModifiedHausdorffDistanceMetric(**first, num_classes=task.num_exclusive_classes), **pair
        ),
    }
    num_classes = {"num_classes": task.num_exclusive_classes}
    metrics["hd95"] = IgniteMetricHandler(HausdorffDistanceMetric(**first, **num_classes), **pair)
    metrics["surface_dice"] = IgniteMetricHandler(SurfaceDiceMetric(1.0, **first, **num_classes), **pair)
    BoundaryCalibrationHandler(task, band_mm=1.5, num_bins=10).attach(engine)
    ObjectSizesHandler(task).attach(engine)
    if task.reports_exclusive:
        metrics["categorical"] = RegionMetricHandler(NegativeLogLikelihoodMetric(categorical=True))
    CalibrationErrorHandler(task, 10).attach(engine)
    UncertaintyScoresHandler(task).attach(engine)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    state = engine.run([[case] for case in cases])
    bins = state.results[BINNED].statistics
    found = {name: torch.as_tensor(values) for name, values in state.metric_details.items()}
    bounded = state.results[BOUNDARY_BINNED].statistics
    found |= {f"boundary_{name}": values for name, values in bounded._asdict().items()}
    return found | bins._asdict() | {"sizes": state.results[OBJECT_SIZES]}, state.results[CASE_SCORES]


def equal(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(torch.nan_to_num(one[name], -7), torch.nan_to_num(other[name], -7)) for name in one)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_predictions_of_ignored_voxels_change_no_result(task):
    logits, label, known = example(task)
    other = logits.where(known, logits.flip(0))
    results, scores = evaluated(task, [prepared(task, logits, label)])
    changed, changed_scores = evaluated(task, [prepared(task, other, label)])
    assert equal(results, changed)
    assert all(torch.isfinite(values).any() for values in results.values())
    # what needs no label is said of the whole image
    assert not equal(scores, changed_scores)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_results_by_voxel_are_those_of_the_rest_alone(task):
    logits, label, known = example(task)
    rest = logits[:, known[0]][..., None, None], label[:, known[0]][..., None, None]
    assert torch.equal((rest[1] >= 0), torch.ones_like(rest[1], dtype=torch.bool))
    results, _ = evaluated(task, [prepared(task, logits, label)])
    alone, _ = evaluated(task, [prepared(task, *rest)])
    for name in results:
        if name in ("mhd", "hd95", "surface_dice") or "boundary" in name:
            continue
        torch.testing.assert_close(results[name], alone[name], equal_nan=True)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_without_ignored_voxels_a_case_is_what_it_is_elsewhere(task):
    logits, label, _ = example(task)
    label = label.clamp(min=0)
    here = prepared(task, logits, label)
    assert here.keys() & {"mask", CaseKeys.KNOWN, "whole_seg"} == set()
    there = Regionsd(["pred", "seg", "label"], task.regions, task.num_classes)(
        {
            **here,
            "pred": task.probabilities(logits.clone()),
            "seg": task.segmentation(task.probabilities(logits.clone())),
        }
        | {"label": label.to(torch.uint8)}
    )
    assert here["label"].dtype == there["label"].dtype
    assert all(torch.equal(here[key].as_tensor(), there[key]) for key in ("pred", "seg", "label"))


def test_a_case_of_which_nothing_is_known_has_no_results_and_a_sentence():
    task = TASKS["classes"]
    logits, label, _ = example(task)
    with pytest.warns(UserWarning, match="Case a: the label of none of its voxels is known"):
        case = prepared(task, logits, torch.full_like(label, IGNORED))
    results, scores = evaluated(task, [case])
    assert all(torch.isnan(results[name]).all() for name in ("nll", "brier", "dice", "mhd", "macro_ece", "categorical"))
    assert results["counts"].sum() == 0
    assert all(torch.isfinite(values).all() for values in scores.values())


def test_a_region_of_interest_is_narrowed():
    task = TASKS["classes"]
    _, label, known = example(task)
    region = torch.rand(1, *SIZE) > 0.5
    leave_out = LeaveOutIgnoredd(["pred", "seg", "label"], None, 3, task)
    assert torch.equal(leave_out({"label": label, "mask": region.float()})["mask"], region & known)


@pytest.mark.parametrize("part", [RecallControl, PrecisionControl, MarginControl, VolumeInterval])
def test_guarantees_observe_what_is_known(part):
    task = TASKS["classes"]
    logits, label, known = example(task)
    other = logits.where(known, logits.flip(0))
    one, changed = (guarantee_case(prepared(task, values, label), task) for values in (logits, other))
    guarantee = part(NAMES[1:], alpha=0.3)
    for name, values in guarantee.observe(one).items():
        assert torch.equal(values, guarantee.observe(changed)[name])
    assert one.dice == changed.dice
    assert one.scores != changed.scores
    whole = guarantee_case(prepared(task, logits, label.where(known, 1)), task)
    found = guarantee.observe(one).values(), guarantee.observe(whole).values()
    assert not all(torch.equal(known_part, all_of_it) for known_part, all_of_it in zip(*found, strict=True))


def test_a_calibrator_is_fitted_on_what_is_known():
    task = TASKS["classes"]
    logits, label, known = example(task)

    def fitted(values, truth, mask=None):
        batch = {"case": ["a"], "image": values[None], "label": truth[None]}
        batch |= {} if mask is None else {CaseKeys.REGION_OF_INTEREST: mask[None]}
        calibrator = TemperatureScaling(num_classes=3)
        fitter = CalibratorFitter(
            [batch], torch.nn.Identity(), lambda images, _: images, calibrator, "", {}, torch.device("cpu")
        )
        report = fit_calibrator(calibrator, fitter._cases)
        return float(calibrator.temperature), report.num_voxels

    other = logits.where(known, 30 * logits.flip(0))
    found = fitted(logits, label)
    assert found == fitted(other, label)
    assert found == fitted(logits, label.clamp(min=0).to(torch.uint8), known.float())
    assert found[1] == known.sum()
    assert found != fitted(logits, label.clamp(min=0))
    region = torch.zeros_like(known)
    region[:, :4] = True
    assert fitted(logits, label, region.float())[1] == (known & region).sum()


def test_labels_are_loaded_with_a_value_that_is_no_class(tmp_path):
    from tests.data.layouts import write_volume

    for name, values in (("label", [0, 1, 4, 255]), ("other", [0, 1, -1, 255])):
        write_volume(tmp_path / f"{name}.nii.gz", np.array(values, np.int16).reshape(4, 1, 1))
    load = LoadCased(label_map={4: 2, 255: IGNORED})
    label = load({"case": "a", "label": str(tmp_path / "label.nii.gz")})["label"]
    assert label.flatten().tolist() == [0, 1, 2, IGNORED]
    with pytest.raises(UserError, match="Case a: .*other.nii.gz holds the value -1"):
        load({"case": "a", "label": str(tmp_path / "other.nii.gz")})
    item = {"case": "a", "label": label}
    assert CheckLabeld("label", NAMES, ignored=True)(item)["label"].flatten().tolist() == [0, 1, 2, IGNORED]
    with pytest.raises(UserError, match="holds the value -1"):
        CheckLabeld("label", NAMES)(item)
    regions = Regionsd("label", {"both": [1, 2], "core": [2]}, 3)(item)["label"]
    assert regions.flatten(1).tolist() == [[0, 1, 1, IGNORED], [0, 0, 1, IGNORED]]
    assert CheckLabeld("label", NAMES[1:], "sigmoid", ignored=True)({"label": regions})["label"].dtype == torch.int8
