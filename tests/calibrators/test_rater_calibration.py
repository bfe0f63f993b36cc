"""Calibration to the mean response of several raters, where the truth is known."""

import pytest
import torch

from medcalib.calibrators import TemperatureScaling, fit_calibrator
from medcalib.functional import (
    bin_statistics,
    brier_score,
    calibration_error,
    categorical_brier_score,
    categorical_negative_log_likelihood,
    mean_response,
    negative_log_likelihood,
)

CLASSES, RATERS, SIZE = 3, 7, (30, 30, 20)


@pytest.fixture(scope="module")
def case():
    """Logits whose softmax is the probability from which every rater drew, one apart from the others."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, CLASSES, *SIZE, generator=generator)
    flat = logits.softmax(1)[0].flatten(1).T
    votes = torch.stack([torch.multinomial(flat, 1, generator=generator)[:, 0] for _ in range(RATERS)])
    return logits, mean_response(votes.reshape(RATERS, *SIZE), CLASSES)[None]


def test_predictions_from_which_the_raters_drew_are_calibrated(case):
    logits, response = case
    # a single rater's error of this kind falls with the number of raters, too
    assert calibration_error(bin_statistics(logits.softmax(1), response)).max() < 0.005
    over_confident = bin_statistics((3 * logits).softmax(1), response)
    assert calibration_error(over_confident).min() > 0.05


def test_the_temperature_of_the_response_is_found(case):
    logits, response = case
    calibrator = TemperatureScaling(num_classes=CLASSES)
    report = fit_calibrator(calibrator, [(2.5 * logits, response)])
    scaled = calibrator(2.5 * logits)
    assert ((2.5 * logits).std() / scaled.std()).item() == pytest.approx(2.5, rel=0.02)
    assert report.nll_after < report.nll_before


def test_raters_who_agree_calibrate_as_one(case):
    logits, _ = case
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1))
    label = (logits - noise.log().neg().log()).argmax(1, keepdim=True)
    scaled = []
    for target in (label, mean_response(label[0].repeat(RATERS, 1, 1, 1), CLASSES)[None]):
        calibrator = TemperatureScaling(num_classes=CLASSES)
        fit_calibrator(calibrator, [(logits, target)])
        scaled.append(calibrator(logits))
    torch.testing.assert_close(*scaled, rtol=1e-6, atol=1e-7)


def test_scores_of_raters_who_agree_are_those_of_one_bit_for_bit(case):
    logits, _ = case
    label = torch.randint(CLASSES, (1, 1, *SIZE), generator=torch.Generator().manual_seed(2))
    response = mean_response(label[0].repeat(5, 1, 1, 1), CLASSES)[None]
    for soft in (False, True):
        one, other = (bin_statistics(logits.softmax(1), y, soft=soft) for y in (label, response))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for score in (negative_log_likelihood, brier_score, categorical_negative_log_likelihood, categorical_brier_score):
        assert torch.equal(score(logits.softmax(1), label), score(logits.softmax(1), response))
