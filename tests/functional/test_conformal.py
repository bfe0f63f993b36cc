"""Quantiles, p-values and prediction sets keep their promises over many draws, and equal slow searches."""

import math

import numpy as np
import pytest
import torch

from medcalib.functional import adaptive_scores, conformal_p_values, conformal_quantile, num_cases_needed


@pytest.mark.parametrize(("number", "alpha"), [(9, 0.1), (19, 0.1), (40, 0.1), (30, 0.25)])
def test_new_cases_exceed_the_quantile_as_often_as_promised(number, alpha):
    """With continuous scores the probability is known: 1 - rank / (n + 1)."""
    random = np.random.default_rng(0)
    drawn = torch.from_numpy(random.exponential(size=(4000, number + 1)))
    exceeds = np.mean([case[-1].item() > conformal_quantile(case[:-1], alpha) for case in drawn])
    rank = math.ceil(round((number + 1) * (1 - alpha), 9))
    exact = 1 - rank / (number + 1)
    assert exact <= alpha
    assert abs(exceeds - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000)


def test_too_few_cases():
    for alpha in (0.5, 0.25, 0.1, 0.05, 0.03):
        needed = num_cases_needed(alpha)
        assert 1 / (needed + 1) <= alpha + 1e-12 < 1 / max(needed, 1) + 1e-9
        conformal_quantile(torch.rand(needed), alpha)
        if needed > 1:
            with pytest.raises(ValueError, match=f"needs {needed} calibration cases, there are {needed - 1}"):
                conformal_quantile(torch.rand(needed - 1), alpha)


@pytest.mark.parametrize("scores", [torch.zeros(0), torch.tensor([math.nan] * 20), torch.zeros(20, 1)])
def test_scores_that_are_none(scores):
    with pytest.raises(ValueError, match="scores must be numbers"):
        conformal_quantile(scores, 0.1)


def test_p_values_one_by_one():
    random = np.random.default_rng(1)
    known, new = random.integers(6, size=30), random.integers(-1, 8, size=20)
    expected = [(1 + (known >= value).sum()) / 31 for value in new]
    values = conformal_p_values(torch.from_numpy(new), torch.from_numpy(known))
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


def test_p_values_are_not_too_small_by_chance():
    random = np.random.default_rng(2)
    drawn = torch.from_numpy(random.normal(size=(4000, 25)))
    values = np.array([conformal_p_values(case[:1], case[1:]).item() for case in drawn])
    for level in (0.04, 0.08, 0.2, 0.6):
        assert (values <= level + 1e-9).mean() <= level + 4 * math.sqrt(level * (1 - level) / 4000)


class TestPredictionSets:
    @pytest.fixture(scope="class")
    def images(self):
        generator = torch.Generator().manual_seed(3)
        probs = torch.softmax(2 * torch.randn(3000, 6, generator=generator), 1)
        return probs, torch.multinomial(probs.pow(0.7), 1, generator=generator)[:, 0]

    def test_one_by_one(self, images):
        probs = images[0][:50]
        scores = adaptive_scores(probs, penalty=0.1, free_classes=2)
        for row, found in zip(probs.double().numpy(), scores.numpy(), strict=True):
            for number, value in enumerate(row):
                rank = (row >= value).sum()
                assert found[number] == pytest.approx(row[row >= value].sum() + 0.1 * max(rank - 2, 0))

    def test_equal_probabilities_differ_by_their_order(self):
        assert adaptive_scores(torch.full((1, 4), 0.25)).tolist() == [[0.25, 0.5, 0.75, 1.0]]

    @pytest.mark.parametrize("penalty", [0.0, 0.05])
    @pytest.mark.parametrize("randomised", [False, True])
    def test_sets_hold_the_true_class_as_often_as_promised(self, images, penalty, randomised):
        probs, labels = images
        numbers = torch.rand(len(probs), generator=torch.Generator().manual_seed(4)) if randomised else None
        scores = adaptive_scores(probs, penalty, free_classes=2, randomness=numbers)
        true = scores.gather(1, labels[:, None])[:, 0]
        random, covered = np.random.default_rng(5), []
        for _ in range(300):
            order = torch.from_numpy(random.permutation(len(probs)))
            level = conformal_quantile(true[order[:200]], 0.1)
            covered.append((true[order[200:]] <= level).double().mean().item())
        assert 0.9 - 0.004 <= np.mean(covered) <= 0.9 + 1 / 201 + 0.004

    def test_a_set_begins_with_the_most_probable_class(self, images):
        scores = adaptive_scores(images[0])
        assert torch.equal(scores.argmin(1), images[0].argmax(1))

    def test_values_out_of_range(self):
        with pytest.raises(ValueError, match="must be probabilities"):
            adaptive_scores(torch.tensor([[1.5, -0.5]]))
        with pytest.raises(ValueError, match="must not be negative"):
            adaptive_scores(torch.tensor([[0.5, 0.5]]), penalty=-1)
        with pytest.raises(ValueError, match="randomness must have shape"):
            adaptive_scores(torch.tensor([[0.5, 0.5]]), randomness=torch.zeros(2))
