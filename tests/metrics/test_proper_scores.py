import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from medcalib.functional import bin_statistics, brier_decomposition
from medcalib.metrics import BrierScoreMetric, CalibrationErrorMetric, NegativeLogLikelihoodMetric


def test_scores_equal_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    y_pred = torch.rand(2, 1, 300, generator=generator)
    y = torch.randint(2, (2, 1, 300), generator=generator)
    nll, brier = NegativeLogLikelihoodMetric()(y_pred, y), BrierScoreMetric()(y_pred, y)
    for case in range(2):
        truth, probability = y[case, 0].numpy(), y_pred[case, 0].double().numpy()
        assert nll[case, 0].item() == pytest.approx(log_loss(truth, probability), rel=1e-5)
        assert brier[case, 0].item() == pytest.approx(brier_score_loss(truth, probability), rel=1e-5)


def test_categorical_likelihood_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    y_pred = torch.randn(1, 4, 300, generator=generator, dtype=torch.float64).softmax(1)
    y = torch.randint(4, (1, 1, 300), generator=generator)
    for include_background in (True, False):
        metric = NegativeLogLikelihoodMetric(include_background=include_background, categorical=True)
        value = metric(y_pred, y)
        assert value.shape == (1, 1)
        assert value.item() == pytest.approx(log_loss(y[0, 0].numpy(), y_pred[0].T.numpy()), rel=1e-9)


def test_decomposition_is_exact_for_one_probability_a_bin():
    generator = torch.Generator().manual_seed(0)
    y_pred = (torch.randint(10, (3, 2, 500), generator=generator) + 0.5) / 10
    y = torch.randint(2, (3, 2, 500), generator=generator)
    metric = BrierScoreMetric(decompose=True, num_bins=10, metric_reduction="none")
    metric(y_pred, y)
    terms = metric.aggregate()
    torch.testing.assert_close(
        terms["brier"], terms["reliability"] - terms["resolution"] + terms["uncertainty"], rtol=1e-6, atol=0
    )
    rate = y.double().mean(-1)
    torch.testing.assert_close(terms["uncertainty"], rate * (1 - rate))


def test_decomposition_uses_the_bins_asked_for():
    y_pred, y = torch.rand(2, 1, 60), torch.randint(2, (2, 1, 60))
    terms = brier_decomposition(bin_statistics(y_pred, y, num_bins=3))
    for ours, expected in zip(BrierScoreMetric(decompose=True, num_bins=3)(y_pred, y)[1:], terms, strict=True):
        torch.testing.assert_close(ours, expected)


def test_mean_leaves_absent_classes_out():
    y_pred = torch.full((2, 2, 4), 0.5)
    y = torch.zeros(2, 1, 4, dtype=torch.long)
    y[0, 0, 0] = 1
    metric = BrierScoreMetric(include_background=False, get_not_nans=True)
    metric(y_pred, y)
    value, not_nans = metric.aggregate()
    assert value.item() == pytest.approx(0.25)
    assert not_nans.item() == 1
    assert np.isnan(metric.get_buffer()[1, 0].item())


@pytest.mark.parametrize("reduction", ["mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel"])
@pytest.mark.parametrize(
    "metric",
    [BrierScoreMetric(), NegativeLogLikelihoodMetric(), CalibrationErrorMetric(num_bins=4)],
    ids=lambda metric: type(metric).__name__,
)
def test_without_any_value_there_is_no_score(metric, reduction):
    """A score of 0 would be the best there is."""
    metric.reset()
    metric(torch.full((2, 1, 5), 0.25), torch.zeros(2, 1, 5))
    metric.get_not_nans = True
    value, not_nans = metric.aggregate(reduction)
    assert value.isnan().all()
    assert not not_nans.any()
    metric(torch.full((1, 1, 5), 0.25), torch.ones(1, 1, 5))
    value, not_nans = metric.aggregate("mean")
    assert value > 0
    assert not_nans == 1
