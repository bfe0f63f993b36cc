"""Risks stay below what was promised, over many splits, and thresholds are those of slow searches."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from medcalib.functional import (
    binomial_p_values,
    controlled_index,
    fixed_sequence,
    hoeffding_bentkus_p_values,
    num_cases_to_reject,
    set_losses,
    set_thresholds,
)

NUM_SPLITS = 2000


@pytest.fixture(scope="module")
def losses():
    """Losses (cases, thresholds) that grow in small steps, of cases that are more and less difficult."""
    random = np.random.default_rng(0)
    difficulty = random.beta(2, 5, size=(400, 1))
    level = np.linspace(0, 1, 401)[None]
    return torch.from_numpy(level ** (0.3 / difficulty))


class TestSetLosses:
    @pytest.fixture
    def case(self):
        generator = torch.Generator().manual_seed(1)
        probs = torch.softmax(3 * torch.randn(3, 5, 6, 7, generator=generator), 0)
        labels = torch.randint(0, 2, (5, 6, 7), generator=generator)
        return probs, torch.stack([labels == number for number in range(3)]).long()

    @pytest.mark.parametrize("masked", [False, True])
    def test_voxel_by_voxel(self, case, masked):
        probs, target = case
        thresholds = set_thresholds(step=0.5)
        mask = (torch.arange(probs[0].numel()) % 3 > 0).reshape(1, *probs.shape[1:]) if masked else None
        missed, wrong = set_losses(probs, target, thresholds, mask)
        chosen = mask[0].numpy() if masked else np.ones(probs.shape[1:], bool)
        for number in range(3):
            values, true = probs[number].numpy()[chosen], target[number].numpy()[chosen] == 1
            for position, threshold in enumerate(thresholds.numpy()):
                taken = values >= threshold
                if true.any():
                    assert missed[number, position] == pytest.approx((true & ~taken).sum() / true.sum(), abs=1e-15)
                expected = (taken & ~true).sum() / taken.sum() if taken.any() else 0
                assert wrong[number, position] == pytest.approx(expected, abs=1e-15)
        assert missed[2].isnan().all()
        assert (missed[:2].diff(dim=1) >= 0).all()
        assert missed[0, 0] == 0

    def test_a_probability_at_a_threshold_is_in_the_set(self):
        thresholds = set_thresholds()
        missed, _ = set_losses(thresholds[None, 100:101], torch.ones(1, 1), thresholds)
        assert missed[0, 100] == 0
        assert missed[0, 101] == 1

    def test_shapes(self):
        with pytest.raises(ValueError, match="do not fit"):
            set_losses(torch.zeros(2, 4), torch.zeros(1, 4), set_thresholds())
        with pytest.raises(ValueError, match="ascend"):
            set_losses(torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor([0.5, 0.1]))


class TestConformalRiskControl:
    def test_the_promise_over_random_splits(self, losses):
        random, number, alpha = np.random.default_rng(1), 40, 0.1
        risks = []
        for _ in range(NUM_SPLITS):
            order = torch.from_numpy(random.permutation(len(losses))[: number + 60])
            chosen = controlled_index(losses[order[:number]], alpha)
            risks.append(losses[order[number:], chosen].mean().item())
        error = 3 * np.std(risks) / math.sqrt(NUM_SPLITS)
        assert np.mean(risks) <= alpha + error
        assert np.mean(risks) >= alpha - 2 / (number + 1) - error

    def test_slow_search(self, losses):
        for alpha in (0.05, 0.2, 0.5):
            cases = losses[:50]
            allowed = [k for k in range(cases.shape[1]) if (cases[:, k].sum() + 1) / 51 <= alpha]
            assert controlled_index(cases, alpha) == max(allowed)

    def test_a_larger_error_allows_a_larger_threshold(self, losses):
        chosen = [controlled_index(losses[:60], alpha) for alpha in (0.02, 0.05, 0.1, 0.3)]
        assert chosen == sorted(chosen)
        assert chosen[0] < chosen[-1]

    def test_the_order_of_cases_does_not_matter(self, losses):
        assert controlled_index(losses[:60], 0.1) == controlled_index(losses[:60].flip(0), 0.1)

    def test_too_few_cases(self):
        assert controlled_index(torch.zeros(9, 2), alpha=0.1) == 1
        with pytest.raises(ValueError, match="8 cases have a risk of at least 0.111"):
            controlled_index(torch.zeros(8, 2), alpha=0.1)

    def test_losses_that_fall(self):
        with pytest.raises(ValueError, match="must not fall"):
            controlled_index(torch.tensor([[0.5, 0.1]]), 0.9)


class TestLearnThenTest:
    def test_the_promise_over_random_splits(self, losses):
        random, number, alpha, delta = np.random.default_rng(2), 60, 0.2, 0.1
        true, broken = losses.mean(0), 0
        for _ in range(NUM_SPLITS):
            drawn = losses[torch.from_numpy(random.integers(len(losses), size=number))]
            chosen = fixed_sequence(hoeffding_bentkus_p_values(drawn, alpha), delta)
            broken += chosen is not None and true[chosen].item() > alpha
        assert broken / NUM_SPLITS <= delta

    @pytest.mark.parametrize("alpha", [0.05, 0.1, 0.4])
    def test_bounds(self, losses, alpha):
        values = hoeffding_bentkus_p_values(losses[:30], alpha).numpy()
        mean = losses[:30].numpy().mean(0)
        below = np.minimum(mean, alpha)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(below > 0, below * np.log(below / alpha), 0)
            hoeffding = np.exp(-30 * (left + (1 - below) * np.log((1 - below) / (1 - alpha))))
        bentkus = math.e * stats.binom.cdf(np.ceil(30 * mean - 1e-9), 30, alpha)
        np.testing.assert_allclose(values, np.minimum(np.minimum(hoeffding, bentkus), 1), rtol=1e-9, atol=1e-300)

    def test_binomial(self):
        counts, totals = torch.tensor([0.0, 3, 10, 0, 7]), torch.tensor([20.0, 40, 10, 0, 500])
        expected = [stats.binom.cdf(3, 40, 0.1), stats.binom.cdf(7, 500, 0.1)]
        values = binomial_p_values(counts, totals, 0.1).tolist()
        assert values[1::3] == pytest.approx(expected, rel=1e-9)
        assert values[0] == pytest.approx(0.9**20)
        assert values[2:4] == [1, 1]
        with pytest.raises(ValueError, match="between 0 and totals"):
            binomial_p_values(totals + 1, totals, 0.1)

    def test_so_many_cases_are_needed(self):
        for share in (0.05, 0.1, 0.5):
            for delta in (0.05, 0.25):
                needed = num_cases_to_reject(share, delta)
                assert stats.binom.cdf(0, needed, share) <= delta + 1e-12
                assert needed == 1 or stats.binom.cdf(0, needed - 1, share) > delta - 1e-12
        with pytest.raises(ValueError, match="share and delta must lie between 0 and 1"):
            num_cases_to_reject(1.0, 0.05)

    def test_nothing_rejected(self):
        assert fixed_sequence(torch.tensor([0.2, 0.01]), 0.05) is None
