"""Bad input, warnings, scores and memory of a fit."""

import warnings
import weakref

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot
from tests.calibrators.examples import KINDS, drawn_labels, make, split, split_for, true_logits

from medcalib.calibrators import (
    CalibrationCase,
    HistogramBinningCalibrator,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
    fit_calibrator,
)
from medcalib.calibrators.calibration_cases import CaseStream
from medcalib.errors import UserError
from medcalib.functional import bin_statistics


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_split_is_an_error(kind):
    with pytest.raises(UserError, match="calibration split holds no case"):
        fit_calibrator(make(kind), [])


@pytest.mark.parametrize("kind", KINDS)
def test_masks_that_leave_nothing_are_an_error(kind):
    cases = [case._replace(mask=torch.zeros_like(case.labels)) for case in split_for(kind)]
    with pytest.raises(UserError, match=r"4 case\(s\), but no voxel inside their masks"):
        fit_calibrator(make(kind), cases)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_are_not_finite_name_the_case(kind, value):
    cases = split_for(kind)
    logits = cases[2].logits.clone()
    logits[0, 1, 3, 4] = value
    cases[2] = cases[2]._replace(logits=logits)
    calibrator = make(kind)
    with pytest.raises(UserError, match=r"case_2: its logits hold 1 NaN or Inf value"):
        fit_calibrator(calibrator, cases)
    assert not calibrator.is_fitted


def test_other_misfits_name_the_case():
    case = split(1)[0]
    calibrator = TemperatureScaling(3)
    with pytest.raises(UserError, match="case_0: its logits have shape"):
        fit_calibrator(TemperatureScaling(4), [case])
    with pytest.raises(UserError, match="case_0 .* label [789]"):
        fit_calibrator(calibrator, [case._replace(labels=case.labels + 7)])
    with pytest.raises(UserError, match="case_0 .* to fit y_pred"):
        fit_calibrator(calibrator, [case._replace(labels=case.labels[..., 1:])])
    with pytest.raises(UserError, match="case_0 .* mask must have shape"):
        fit_calibrator(calibrator, [case._replace(mask=case.labels[..., 1:])])
    with pytest.raises(UserError, match="number 1 .* label [789]"):
        fit_calibrator(calibrator, [(case.logits, case.labels + 7)])
    overlapping = torch.ones_like(case.logits)
    with pytest.raises(UserError, match="does not sum to 1 over the classes"):
        fit_calibrator(calibrator, [case._replace(labels=overlapping)])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_worth_a_warning(activation):
    cases = []
    for case in split(2, activation=activation):
        probs = case.logits.softmax(1) if activation == "softmax" else case.logits.sigmoid()
        cases.append(case._replace(logits=probs))
    with pytest.warns(UserWarning, match="case_0 lie in .* as probabilities do") as caught:
        fit_calibrator(TemperatureScaling(3, activation), cases)
    assert len([w for w in caught if "as probabilities do" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_calibrator(TemperatureScaling(3, activation), split(2, activation=activation))


def test_log_probabilities_are_logits():
    """What a sampling inferer returns gives the same temperature as the logits of one network."""
    one, other = TemperatureScaling(3), TemperatureScaling(3)
    fit_calibrator(one, split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_calibrator(other, [case._replace(logits=case.logits.log_softmax(1)) for case in split()])
    assert other.temperature == pytest.approx(one.temperature, rel=1e-5)


def test_a_calibrator_that_raises_the_nll_is_left_as_the_identity():
    """One bin knows the frequencies of the classes, and nothing of the image."""
    calm = [case._replace(logits=case.logits / 2.5) for case in split()]
    calibrator = HistogramBinningCalibrator(3, num_bins=1)
    with pytest.warns(UserWarning, match="would raise the NLL .* left as the identity"):
        report = fit_calibrator(calibrator, calm)
    assert report.kept_identity
    assert report.nll_after == report.nll_before
    assert report.ece_after == report.ece_before
    assert report.decisions_changed == 0
    assert torch.equal(calibrator(calm[0].logits), calm[0].logits)


def test_a_drop_of_dice_is_worth_a_warning():
    cases = []
    for case in split():
        logits = case.logits.clone()
        logits[:, 2] += 2
        cases.append(case._replace(logits=logits))
    # The labels of class 2 are drawn so rarely that the likelihood gives it up.
    cases = [
        case._replace(labels=torch.where((case.labels == 2) & (torch.arange(20) % 4 > 0), 0, case.labels))
        for case in cases
    ]
    with pytest.warns(UserWarning, match=r"lowers the mean Dice .* keep_argmax"):
        report = fit_calibrator(PlattScaling(3), cases)
    assert report.dice_after < report.dice_before - 0.005
    assert report.decisions_changed > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = fit_calibrator(PlattScaling(3, keep_argmax=True), cases)
    assert kept.dice_after == kept.dice_before


def test_scores_are_those_of_the_library():
    """ECE pooled over all voxels and Dice per case, without the background."""
    cases = split(3)
    report = fit_calibrator(TemperatureScaling(3), cases, num_bins=15)
    probs = torch.cat([case.logits for case in cases]).softmax(1).double()
    labels = torch.cat([case.labels for case in cases])
    wanted = []
    for c in range(3):
        p, y = probs[:, c].flatten().numpy(), (labels == c).flatten().numpy()
        place = np.clip(np.ceil(p * 15) - 1, 0, 14).astype(int)
        gaps = [abs((p - y)[place == k].sum()) for k in range(15)]
        wanted.append(sum(gaps) / len(p))
    assert report.class_ece_before == pytest.approx(wanted, rel=1e-4)
    assert report.ece_before == pytest.approx(np.mean(wanted[1:]), rel=1e-4)
    assert report.num_bins == 15
    background = fit_calibrator(TemperatureScaling(3), cases, num_bins=15, include_background=True)
    assert background.ece_before == pytest.approx(np.mean(wanted), rel=1e-4)
    dice = DiceMetric(include_background=False, reduction="mean")
    dice(one_hot(probs.argmax(1, keepdim=True), 3), one_hot(labels, 3))
    assert report.dice_before == pytest.approx(dice.aggregate().item(), rel=1e-6)


def test_scores_of_sigmoid_channels_are_those_of_each_channel():
    cases = split(3, num_classes=2, activation="sigmoid")
    report = fit_calibrator(PlattScaling(2, "sigmoid"), cases)
    decided = torch.cat([case.logits for case in cases]) >= 0
    labels = torch.cat([case.labels for case in cases])
    dice = DiceMetric(include_background=True, reduction="mean")
    dice(decided.float(), labels.float())
    assert report.dice_before == pytest.approx(dice.aggregate().item(), rel=1e-6)
    statistics = bin_statistics(torch.cat([case.logits for case in cases]).sigmoid(), labels).pool()
    gaps = (statistics.sum_pred - statistics.sum_true).abs().sum(-1) / statistics.counts.sum(-1)
    assert report.class_ece_before == pytest.approx(gaps[0].tolist())
    assert report.ece_before == pytest.approx(gaps.mean().item())


def test_decisions_changed_are_counted():
    true = true_logits(2, (50, 50))
    logits = true.clone()
    logits[:, 1] += 1.5
    calibrator = VectorScaling(2)
    report = fit_calibrator(calibrator, [(logits, drawn_labels(true))])
    moved = calibrator(logits).argmax(1) != logits.argmax(1)
    assert report.decisions_changed == pytest.approx(moved.double().mean().item())
    assert report.decisions_changed > 0.05


def test_a_callable_is_iterated_once_if_the_cases_fit_into_memory():
    calls = []

    def batches():
        calls.append(1)
        return iter(split())

    reports = [fit_calibrator(make("auxiliary"), batches, cache_bytes=size) for size in (1 << 20, 0)]
    assert reports[0] == reports[1]
    assert len(calls) > 5
    calls.clear()
    fit_calibrator(make("auxiliary"), batches)
    assert len(calls) == 1


def test_a_stream_forgets_the_cases_that_do_not_fit():
    cases = [(torch.zeros(1, 2, 100), torch.zeros(1, 1, 100)) for _ in range(3)]
    stream = CaseStream(cases, cache_bytes=3600)
    assert [case.name for case in stream] == ["number 1", "number 2", "number 3"]
    assert stream._cache is not None
    too_small = CaseStream(cases, cache_bytes=3599)
    assert len(list(too_small)) == 3
    assert too_small._cache is None


def test_a_generator_that_runs_dry_is_an_error():
    with pytest.raises(ValueError, match="iterated only once"):
        fit_calibrator(TemperatureScaling(3), (case for case in split()))


def test_a_failed_fit_leaves_no_fitted_calibrator():
    calibrator = TemperatureScaling(3)
    fit_calibrator(calibrator, split())
    assert calibrator.is_fitted
    with pytest.raises(UserError):
        fit_calibrator(calibrator, [])
    assert not calibrator.is_fitted
    with pytest.raises(UserError, match="not fitted"):
        calibrator(split(1)[0].logits)


def test_cases_carry_names_masks_and_images():
    case = CalibrationCase(*(torch.ones(1, 1, 2) for _ in range(4)), name="a")
    doubled = case.map(lambda tensor: 2 * tensor)
    assert doubled.name == "a"
    assert all(torch.equal(tensor, torch.full((1, 1, 2), 2.0)) for tensor in doubled[:4])


@pytest.mark.parametrize("kind", ["temperature_scaling", "isotonic"])
def test_a_case_is_freed_before_the_next_is_read(kind):
    """Unless all of them are kept; of the first, nothing may refer to the logits when the second is asked for."""
    alive = []

    class Read:
        """Made as it is asked for, as cases in files are."""

        def __init__(self):
            self.cases = iter(split())

        def __iter__(self):
            return self

        def __next__(self):
            assert not any(logits() is not None for logits in alive)
            case = next(self.cases)
            logits = case.logits.clone()
            alive.append(weakref.ref(logits))
            return case._replace(logits=logits)

    fit_calibrator(make(kind), Read, cache_bytes=0)
    assert len(alive) == 2 * len(split())
