import numpy as np
import torch

from medcalib.functional import BinStatistics, calibration_error
from medcalib.visualize.bins import accuracy_heatmap, bin_means, calibration_errors


def test_errors_are_those_of_the_metrics():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 3, (4, 3, 8))
    counts[0, 0] = 0
    sum_pred, sum_true = counts * rng.random(counts.shape), rng.binomial(counts, 0.4).astype(float)
    ours = calibration_errors(counts.astype(float), sum_pred, sum_true)
    statistics = BinStatistics(*(torch.as_tensor(array) for array in (counts, sum_pred, sum_true)))
    for name, reduction in (("ECE", "expected"), ("ACE", "average"), ("MCE", "maximum")):
        np.testing.assert_allclose(ours[name], calibration_error(statistics, reduction).numpy(), rtol=1e-12)


def test_empty_bins_have_no_mean():
    confidence, frequency = bin_means(np.array([0.0, 2.0]), np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    np.testing.assert_array_equal(confidence, [np.nan, 0.5])
    np.testing.assert_array_equal(frequency, [np.nan, 1.0])


def test_accuracy_bins_contain_their_upper_edge():
    counts = np.full((1, 1, 4), 10.0)
    heatmap = accuracy_heatmap(counts, np.array([[[0.0, 5.0, 5.1, 10.0]]]), 2)
    np.testing.assert_array_equal(heatmap, [[[1, 1, 0, 0], [0, 0, 1, 1]]])
