"""Numbers over all cases as functions of weights, against the same numbers of cases that were repeated."""

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score, roc_auc_score
from tests.compare.made_evaluations import case_names, statistics_of

from medcalib.compare.image_scores import case_tables_of_images, class_probabilities
from medcalib.compare.pooled_scores import POOLED_ERRORS, calibration_errors, decision_scores, roc_areas
from medcalib.functional import BinStatistics, bin_statistics, debiased_errors, every_calibration_error
from medcalib.metrics import classification_scores


def repeated(statistics, weights):
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    return BinStatistics(*(part[torch.from_numpy(rows)] for part in statistics))


def with_mean(values):
    return np.append(values, np.nanmean(values)) if np.isfinite(values).any() else np.full(len(values) + 1, np.nan)


@pytest.fixture(scope="module")
def weights():
    drawn = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 30)
    return np.concatenate([np.ones((1, 12)), 1 - np.eye(12), drawn]).astype(float)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(5)
    # few different values, so that there are ties
    given = np.round(rng.dirichlet([1, 1, 0.7], 12), 1) + 0.01
    labels = rng.integers(0, 3, 12)
    given = (given / given.sum(1, keepdims=True)).astype(np.float32)
    return torch.tensor(given), torch.tensor(labels)[:, None]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ignore_empty", [True, False])
def test_calibration_errors(weights, ignore_empty):
    statistics = statistics_of(case_names(12), 3, seed=1, voxels=15)
    # one class is in two cases only, so that draws lack it
    statistics.sum_true[2:, 1] = 0
    found = calibration_errors(statistics, ignore_empty)(weights)
    absent = 0
    for row, drawn in zip(found, weights, strict=True):
        pooled = repeated(statistics, drawn).pool()
        errors = every_calibration_error(pooled, ignore_empty)
        root = debiased_errors(pooled, "voxel")["rmsce"].where(~errors["ece"].isnan(), torch.nan)
        expected = np.concatenate([with_mean(values[0].numpy()) for values in (*errors.values(), root)])
        np.testing.assert_allclose(row, expected, rtol=1e-9)
        absent += np.isnan(expected).any()
    assert (absent > 0) == ignore_empty


@pytest.mark.filterwarnings("error")
def test_areas_and_decisions(weights, images):
    probabilities, labels = images
    statistics = bin_statistics(probabilities, labels, 10)
    areas, decisions = roc_areas(statistics)(weights), decision_scores(statistics)(weights)
    for row, decided, drawn in zip(areas, decisions, weights, strict=True):
        rows = np.repeat(np.arange(12), drawn.astype(int))
        given, true = probabilities.numpy()[rows], labels[rows, 0].numpy()
        predicted = given.argmax(1)
        expected = []
        for place in range(3):
            has = true == place
            area = roc_auc_score(has, given[:, place]) if 0 < has.sum() < 12 else np.nan
            sensitivity = recall_score(has, predicted == place) if has.any() else np.nan
            specificity = recall_score(~has, predicted != place) if 0 < has.sum() < 12 else np.nan
            expected.append((area, sensitivity, specificity))
        expected = np.array(expected).T
        np.testing.assert_allclose(row, with_mean(expected[0]), atol=1e-12)
        np.testing.assert_allclose(decided, np.concatenate([with_mean(part) for part in expected[1:]]), atol=1e-12)


def test_they_are_the_numbers_of_an_evaluation(images):
    probabilities, labels = images
    scores = classification_scores(probabilities, labels, 10)
    every = np.ones((1, 12))
    np.testing.assert_allclose(roc_areas(scores.statistics)(every)[0, :3], scores.per_class["auc"], atol=1e-7)
    both = decision_scores(scores.statistics)(every)[0]
    np.testing.assert_allclose(both[:3], scores.per_class["sensitivity"])
    np.testing.assert_allclose(both[4:7], scores.per_class["specificity"])
    top = calibration_errors(scores.top_label, ignore_empty=False)(every)[0]
    np.testing.assert_allclose(top[::2], [scores.overall[f"top_label_{name}"] for name in POOLED_ERRORS])


def test_images_are_known_from_their_bins(images):
    probabilities, labels = images
    found, classes = class_probabilities(bin_statistics(probabilities, labels, 10))
    np.testing.assert_array_equal(found.float(), probabilities)
    np.testing.assert_array_equal(classes, labels)


def test_blocks_of_draws_change_nothing(weights, images, monkeypatch):
    area = roc_areas(bin_statistics(*images, 10))
    expected = area(weights)
    monkeypatch.setattr("medcalib.compare.pooled_scores._BLOCK", 50)
    np.testing.assert_array_equal(area(weights), expected)


def test_scores_of_images_are_means_of_those_of_each(images):
    import pandas as pd

    probabilities, labels = images
    scores = classification_scores(probabilities, labels, 10)
    cases = pd.DataFrame({"filename": case_names(12), "correct": 1.0})
    tables = case_tables_of_images(cases, scores.statistics, ["a", "b", "c"])
    for metric in ("nll", "brier"):
        np.testing.assert_allclose(tables[metric].mean()[["a", "b", "c"]], scores.per_class[metric], rtol=1e-6)
    assert tables["accuracy"]["mean"].tolist() == [1] * 12
    pooled = [name for name in scores.per_class if name.startswith("micro_")]
    assert len(pooled) == 6
    for metric in pooled:
        np.testing.assert_array_equal(tables[metric].loc["dataset", ["a", "b", "c"]], scores.per_class[metric])
        assert tables[metric].loc["dataset", "mean"] == pytest.approx(scores.overall[metric])
