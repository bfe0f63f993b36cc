"""Laws and oracles of the maps of logits."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from medcalib.functional import keep_decisions, log_odds, scale_temperature


def random_logits(*shape, seed=0, scale=5.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_temperature_of_one_changes_nothing():
    logits = random_logits(2, 3, 4, 5)
    assert torch.equal(scale_temperature(logits, torch.zeros(())), logits)
    assert torch.equal(scale_temperature(logits, torch.zeros(2, 1, 4, 5)), logits)


def test_a_temperature_per_voxel_divides_that_voxel():
    logits, temperature = random_logits(1, 2, 3), torch.tensor([[[0.5, 1.0, 4.0]]])
    torch.testing.assert_close(scale_temperature(logits, temperature.log()), logits / temperature)


@pytest.mark.parametrize("shape", [(7, 2), (3, 4, 6), (2, 3, 4, 5), (1, 5, 3, 2, 4)])
def test_log_odds_are_those_of_the_probabilities(shape):
    logits = random_logits(*shape).double()
    probs = logits.softmax(1)
    torch.testing.assert_close(log_odds(logits), probs.log() - torch.log1p(-probs))
    torch.testing.assert_close(log_odds(logits + 7), log_odds(logits))


def test_log_odds_stay_exact_where_a_class_is_certain():
    logits = torch.tensor([[90.0, 10.0, -40.0], [0.0, 300.0, 0.0]])
    wanted = [
        [logits[i, c].double() - torch.cat([logits[i, :c], logits[i, c + 1 :]]).double().logsumexp(0) for c in range(3)]
        for i in range(2)
    ]
    torch.testing.assert_close(log_odds(logits), torch.tensor(wanted, dtype=torch.float32))


def test_log_odds_of_a_single_channel_are_an_error():
    with pytest.raises(ValueError, match="at least 2 classes"):
        log_odds(torch.zeros(1, 1, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(500, 2), (2, 3, 9, 9), (2, 6, 5, 5, 5)])
def test_every_decision_is_kept_and_nothing_else_is_touched(shape, dtype):
    logits, calibrated = random_logits(*shape).to(dtype), random_logits(*shape, seed=1).to(dtype)
    kept = keep_decisions(calibrated, logits)
    assert torch.equal(kept.softmax(1).argmax(1), logits.argmax(1))
    same = (calibrated.argmax(1) == logits.argmax(1))[:, None].expand_as(kept)
    assert 0.1 < same.double().mean() < 0.9
    assert torch.equal(kept[same], calibrated[same])


def test_the_kept_decision_is_the_nearest_distribution():
    """Against a general solver of: minimise KL(p || q) over distributions in which class k leads."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, k = rng.dirichlet(np.ones(4)), int(rng.integers(4))
        constraints = [{"type": "eq", "fun": lambda q: q.sum() - 1}]
        constraints += [{"type": "ineq", "fun": lambda q, j=j, k=k: q[k] - q[j]} for j in range(4) if j != k]
        found = minimize(
            lambda q, p=p: -(p * np.log(q)).sum(), np.full(4, 0.25), method="SLSQP", bounds=[(1e-9, 1)] * 4,
            constraints=constraints, options={"ftol": 1e-12},
        )  # fmt: skip
        logits = torch.zeros(1, 4, dtype=torch.float64)
        logits[0, k] = 1
        kept = keep_decisions(torch.from_numpy(p).log()[None], logits, margin=0.0).softmax(1)
        np.testing.assert_allclose(kept[0].numpy(), found.x, atol=1e-4)


def test_sigmoid_decisions_are_kept_channel_by_channel():
    logits, calibrated = random_logits(2, 3, 50), random_logits(2, 3, 50, seed=1)
    logits[0, 0, :5] = 0.0
    kept = keep_decisions(calibrated, logits, sigmoid=True)
    assert torch.equal(kept.sigmoid() >= 0.5, logits >= 0)
    same = (calibrated >= 0) == (logits >= 0)
    assert torch.equal(kept[same], calibrated[same])
    assert kept[~same].abs().max().item() == pytest.approx(1e-3)


def test_everything_scripts():
    logits, calibrated = random_logits(2, 3, 8), random_logits(2, 3, 8, seed=1)
    assert torch.equal(torch.jit.script(keep_decisions)(calibrated, logits), keep_decisions(calibrated, logits))
    assert torch.equal(torch.jit.script(log_odds)(logits), log_odds(logits))
    scripted = torch.jit.script(scale_temperature)(logits, torch.tensor(math.log(2)))
    torch.testing.assert_close(scripted, logits / 2)
