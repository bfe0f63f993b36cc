"""Scores of classified images, against scikit-learn and loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from medcalib.data.phantom.cell_model import CellModel
from medcalib.metrics import (
    ClassAUCMetric,
    class_auc,
    classification_scores,
    min_max,
    retained_accuracy,
)


def example(number=200, num_classes=3, seed=0):
    """Probabilities, rounded so that there are ties, and labels that have something to do with them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(number, num_classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    probabilities = np.exp(2 * logits).round(1) + 0.1
    return probabilities / probabilities.sum(1, keepdims=True), labels


def scored(probabilities, labels, num_bins=10):
    return classification_scores(torch.tensor(probabilities), torch.tensor(labels)[:, None], num_bins)


def test_areas_are_not_rounded_to_float32():
    areas = class_auc(
        torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.25, 0.75]]), torch.tensor([[1], [1], [1], [0]])
    )
    assert areas.tolist() == [2 / 3, 2 / 3]


def test_where_nothing_is_right_the_predicted_class_has_a_calibration_error():
    """Unlike a class that no image has."""
    overall = scored(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([1, 1])).overall
    assert overall["top_label_ece"] == overall["top_label_mce"] == 0.75


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_numbers_are_those_of_sklearn(num_classes):
    p, y = example(num_classes=num_classes)
    scores = scored(p, y)
    has = np.eye(num_classes, dtype=int)[y]
    assert scores.overall["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert scores.overall["nll_categorical"] == pytest.approx(log_loss(y, p))
    assert scores.overall["auc"] == pytest.approx(roc_auc_score(has, p, average="macro"))
    assert scores.overall["brier_categorical"] == pytest.approx(((p - has) ** 2).sum(1).mean())
    confusion = confusion_matrix(y, p.argmax(1))
    for index in range(num_classes):
        own = {name: values[index].item() for name, values in scores.per_class.items()}
        assert own["auc"] == pytest.approx(roc_auc_score(has[:, index], p[:, index]))
        assert own["nll"] == pytest.approx(log_loss(has[:, index], p[:, index]))
        assert own["brier"] == pytest.approx(brier_score_loss(has[:, index], p[:, index]))
        assert own["sensitivity"] == pytest.approx(confusion[index, index] / confusion[index].sum())
        others = np.delete(confusion, index, 0)
        assert own["specificity"] == pytest.approx(np.delete(others, index, 1).sum() / others.sum())


def gaps(p, true, num_bins):
    """Mean confidence less frequency, and count, of each filled bin, from a loop."""
    bins = np.clip(np.ceil(p.astype(np.float32) * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        (abs(p[bins == k].mean() - true[bins == k].mean()), (bins == k).sum())
        for k in range(num_bins)
        if (bins == k).any()
    ]


def test_calibration_errors_are_computed_once_over_all_images():
    p, y = example()
    p = (p + 0.003) / 1.009  # away from the edges of the bins
    scores = scored(p, y)
    sets = {f"micro_{index}": (p[:, index], y == index) for index in range(3)}
    sets["top_label"] = (p.max(1), p.argmax(1) == y)
    for name, (confidence, true) in sets.items():
        found = gaps(confidence, true, 10)
        expected = {
            "ece": sum(gap * count for gap, count in found) / len(y),
            "ace": np.mean([gap for gap, _ in found]),
            "mce": max(gap for gap, _ in found),
        }
        for kind, value in expected.items():
            if name == "top_label":
                assert scores.overall[f"top_label_{kind}"] == pytest.approx(value)
            else:
                assert scores.per_class[f"micro_{kind}"][int(name[-1])].item() == pytest.approx(value)


def test_labels_drawn_from_the_predicted_probabilities_are_calibrated():
    """The posterior of the phantom cells: the expected error of a bin is that of a mean of independent draws."""
    rng = np.random.default_rng(0)
    model = CellModel()
    p = np.array([model.probability(size, chromatin) for size, chromatin in rng.normal(size=(4000, 2))])
    y = (rng.random((len(p), 1)) > p.cumsum(1)).sum(1)
    scores = scored(p, y)
    for index, found in enumerate(scores.per_class["micro_ece"]):
        bins = np.clip(np.ceil(p[:, index] * 10).astype(int) - 1, 0, 9)
        spread = [np.sqrt((q * (1 - q)).sum()) for q in (p[bins == k, index] for k in range(10))]
        sampling_error = np.sqrt(2 / np.pi) * sum(spread) / len(p)
        assert 0.2 * sampling_error < found < 2 * sampling_error
    sharper = p**3 / (p**3).sum(1, keepdims=True)
    assert scored(sharper, y).overall["micro_ece"] > 5 * scores.overall["micro_ece"]
    assert scored(sharper, y).overall["nll_categorical"] > scores.overall["nll_categorical"]


def by_loop(p, hit, num_bins=10):
    """ECE, root mean square error and the published unbiased squared error (arXiv:1909.10155) of probabilities."""
    ece = squared = unbiased = 0.0
    for k in range(num_bins):
        inside = (p > k / num_bins) & (p <= (k + 1) / num_bins)
        number = inside.sum()
        if number == 0:
            continue
        share, frequency = number / len(p), hit[inside].mean()
        gap = frequency - p[inside].mean()
        ece += share * abs(gap)
        squared += share * gap**2
        if number > 1:
            unbiased += share * (gap**2 - frequency * (1 - frequency) / (number - 1))
    return ece, squared**0.5, max(unbiased, 0) ** 0.5


def test_debiased_errors_are_those_of_loops_over_images():
    rng = np.random.default_rng(3)
    p, y = rng.dirichlet([1, 1, 1], size=150), rng.integers(0, 3, 150)
    scores = scored(p, y)
    found = {name: [*scores.per_class[f"micro_{name}"].tolist()] for name in ("ece", "rmsce", "rmsce_debiased")}
    for index in range(3):
        expected = by_loop(p[:, index], y == index)
        assert [values[index] for values in found.values()] == pytest.approx(expected)
    top = [scores.overall[f"top_label_{name}"] for name in found]
    assert top == pytest.approx(by_loop(p.max(1), p.argmax(1) == y))


def test_of_right_probabilities_chance_is_what_debiasing_leaves_out():
    rng = np.random.default_rng(1)
    found = {name: [] for name in ("ece", "ece_debiased", "rmsce", "rmsce_debiased")}
    for _ in range(150):
        p = rng.dirichlet([1, 1, 1], size=200)
        y = (rng.random((len(p), 1)) > p.cumsum(1)).sum(1)
        overall = scored(p, y).overall
        for name, values in found.items():
            values.append(overall[f"top_label_{name}"])
    plain, debiased, root, left = (np.array(values) for values in found.values())
    # as derived for the l1 error: 2 - sqrt(2) of it is left in the mean
    assert debiased.mean() == pytest.approx((2 - np.sqrt(2)) * plain.mean(), rel=0.1)
    # a squared error that is 0 in the mean is below 0 about as often as above
    assert 0.3 < (left == 0).mean() < 0.7
    assert (left**2).mean() < 0.35 * (root**2).mean()
    sharper = scored(p**3 / (p**3).sum(1, keepdims=True), y).overall
    assert sharper["top_label_rmsce_debiased"] > 0.9 * sharper["top_label_rmsce"] > 0.1


def test_a_class_that_no_image_has_is_nan_and_left_out_of_the_means():
    p, y = example()
    y[y == 2] = 0
    scores = scored(p, y)
    for name, values in scores.per_class.items():
        assert torch.isnan(values).tolist() == [False, False, True], name
        assert scores.overall[name] == pytest.approx(values[:2].mean().item())
    assert np.isfinite(scores.overall["nll_categorical"])


def test_images_of_a_single_class():
    p, y = example()
    scores = scored(p, np.zeros_like(y))
    assert np.isnan(scores.overall["auc"])
    assert np.isnan(scores.overall["specificity"])
    assert scores.overall["sensitivity"] == scores.overall["accuracy"]


def test_the_order_of_images_does_not_matter():
    p, y = example()
    order = np.random.default_rng(1).permutation(len(y))
    assert scored(p[order], y[order]).overall == pytest.approx(scored(p, y).overall)


@pytest.mark.parametrize("shape", [(0, 3), (4, 1)])
def test_wrong_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"y_pred must have shape \(N, C\)"):
        classification_scores(torch.ones(shape) / shape[1], torch.zeros(shape[0], 1))
    with pytest.raises(ValueError, match=r"y \(N, 1\)"):
        classification_scores(torch.full((4, 2), 0.5), torch.zeros(4))


def test_the_metric_of_batches_is_that_of_all_images():
    p, y = example(60)
    metric = ClassAUCMetric()
    probabilities, labels = torch.tensor(p), torch.tensor(y)[:, None]
    for start in range(0, 60, 25):
        metric(list(probabilities[start : start + 25]), list(labels[start : start + 25]))
    assert metric.aggregate().item() == pytest.approx(class_auc(probabilities, labels).mean().item())
    metric.reset()
    with pytest.raises(ValueError, match="no image yet"):
        metric.aggregate()


def test_min_max():
    np.testing.assert_array_equal(min_max([2.0, np.nan, 6.0, 3.0]), [0, np.nan, 1, 0.25])
    assert np.isnan(min_max([1.0, 1.0])).all()


def test_retained_accuracy_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    # rounded so that there are ties, at thresholds too
    uncertainty, correct = rng.gamma(2.0, size=50).round(), rng.random(50) < 0.7
    scaled = (uncertainty - uncertainty.min()) / (uncertainty.max() - uncertainty.min())
    found = retained_accuracy(uncertainty, correct, thresholds=[0.0, 0.3, scaled[0], 1.0])
    for threshold, retained, accuracy, referred_error in zip(*found, strict=True):
        kept = [bool(c) for u, c in zip(scaled, correct, strict=True) if u <= threshold]
        referred = [bool(c) for u, c in zip(scaled, correct, strict=True) if u >= threshold]
        assert retained == pytest.approx(len(kept) / 50)
        assert accuracy == pytest.approx(np.mean(kept))
        assert referred_error == pytest.approx(1 - np.mean(referred))


def test_retained_accuracy_ignores_the_scale():
    rng = np.random.default_rng(1)
    uncertainty, correct = rng.random(30), rng.random(30) < 0.5
    np.testing.assert_allclose(retained_accuracy(uncertainty, correct), retained_accuracy(7 * uncertainty - 3, correct))


def test_cases_without_uncertainty_are_never_retained():
    found = retained_accuracy([0.0, 0.5, 1.0, np.nan], [True, True, False, False], thresholds=[0.5, 1.0])
    np.testing.assert_allclose(found.retained, [0.5, 0.75])
    np.testing.assert_allclose(found.accuracy, [1.0, 2 / 3])
    np.testing.assert_allclose(found.referred_error, [2 / 3, 1.0])


def test_equal_uncertainties_retain_nothing_known():
    found = retained_accuracy([0.0, 0.0], [True, False])
    assert np.isnan([found.retained, found.accuracy, found.referred_error]).all()
