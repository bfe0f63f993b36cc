"""Laws and oracles of the scoring rules."""

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from medcalib.functional import (
    brier_score,
    categorical_brier_score,
    categorical_negative_log_likelihood,
    negative_log_likelihood,
)

RULES = [brier_score, categorical_brier_score, categorical_negative_log_likelihood, negative_log_likelihood]


def example(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    probs = (2 * torch.randn(2, 3, 6, 5, generator=generator)).softmax(1).to(dtype)
    return probs, torch.randint(0, 3, (2, 1, 6, 5), generator=generator)


def one_hot(labels):
    return (labels == torch.arange(3).reshape(1, 3, 1, 1)).float()


def test_one_vs_rest_equals_sklearn():
    probs, labels = example()
    nll, brier = negative_log_likelihood(probs, labels), brier_score(probs, labels)
    for b, c in np.ndindex(2, 3):
        p, y = probs[b, c].flatten().double().numpy(), (labels[b, 0] == c).flatten().numpy()
        assert nll[b, c].item() == pytest.approx(log_loss(y, p, labels=[0, 1]), abs=1e-6)
        assert brier[b, c].item() == pytest.approx(brier_score_loss(y, p, labels=[0, 1], scale_by_half=True), abs=1e-6)


def test_categorical_equals_sklearn():
    probs, labels = example(torch.float64)
    for b in range(2):
        p, y = probs[b].flatten(1).T.numpy(), labels[b].flatten().numpy()
        nll = categorical_negative_log_likelihood(probs, labels)[b].item()
        assert nll == pytest.approx(log_loss(y, p, labels=[0, 1, 2]), abs=1e-6)
        brier = ((p - np.eye(3)[y]) ** 2).sum(1).mean()
        assert categorical_brier_score(probs, labels)[b].item() == pytest.approx(brier, abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_labels_equal_their_one_hot_target(rule, dtype):
    probs, labels = example(dtype)
    result = rule(probs, labels)
    assert result.dtype == torch.float64
    for target in (one_hot(labels), one_hot(labels).bool(), one_hot(labels).to(torch.uint8)):
        torch.testing.assert_close(rule(probs, target), result, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(rule(probs, labels.float()), result, rtol=0, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_batch_is_its_cases_and_the_mask_leaves_out(rule):
    probs, labels = example()
    cases = torch.cat([rule(probs[b : b + 1], labels[b : b + 1]) for b in range(2)])
    torch.testing.assert_close(rule(probs, labels), cases)
    mask = torch.ones_like(labels)
    mask[..., 3:] = 0
    wanted = rule(probs[..., :3], labels[..., :3])
    probs[..., 3:], labels[..., 3:] = float("nan"), 9
    torch.testing.assert_close(rule(probs, labels, mask), wanted)
    assert rule(probs, labels, torch.zeros_like(mask)).isnan().all()


@pytest.mark.parametrize("rule", RULES)
def test_the_truth_scores_best(rule):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(1, 3, 50_000, generator=generator).softmax(1)
    labels = torch.multinomial(truth[0].T, 1, generator=generator).T[None]
    other = truth.square() / truth.square().sum(1, keepdim=True)
    assert bool((rule(truth, labels) < rule(other, labels)).all())


def test_certain_and_wrong_stays_finite():
    wrong = torch.tensor([[[0.0], [1.0]]])
    limit = -np.log(np.finfo(np.float32).eps)
    assert negative_log_likelihood(wrong, torch.zeros(1, 1, 1))[0].tolist() == pytest.approx([limit] * 2, rel=1e-6)
    assert categorical_negative_log_likelihood(wrong, torch.zeros(1, 1, 1)).item() == pytest.approx(limit, rel=1e-6)
    assert brier_score(wrong, torch.zeros(1, 1, 1)).tolist() == [[1, 1]]


@pytest.mark.parametrize("rule", RULES)
def test_bad_values_are_errors(rule):
    probs, labels = example()
    with pytest.raises(ValueError, match="label 3"):
        rule(probs, labels + 1)
    with pytest.raises(ValueError, match="to fit"):
        rule(probs, labels[:1])
    probs[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN in batch element 1"):
        rule(probs, labels)


@pytest.mark.parametrize("p", [1.2e-7, 2e-7, 1e-6, 1e-4, 0.3, 1 - 1e-4])
@pytest.mark.parametrize("form", ["labels", "one-hot", "soft"])
def test_small_probabilities_are_not_rounded_away(p, form):
    """1 - p in float32 loses a fifth of p = 2e-7: the value is that of double precision."""
    probs = torch.tensor([[1 - p], [p]]).repeat(1, 8).T.reshape(8, 2, 1)
    single = probs[:, 1:]
    target = torch.zeros_like(single, dtype=torch.bool if form == "one-hot" else torch.float32)
    exact = -np.log1p(-float(single[0, 0, 0]))
    if form == "labels":
        found = negative_log_likelihood(probs, torch.zeros(8, 1, 1))[:, 1]
    else:
        found = negative_log_likelihood(single, target)[:, 0]
    np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_certain_voxel_costs_as_the_clamp_says(dtype):
    """Right: eps nats, for both rules; wrong: -ln(eps)."""
    eps = torch.finfo(dtype).eps
    certain = torch.tensor([[[1.0], [0.0]]], dtype=dtype)
    for label, cost in ((0, -np.log1p(-eps)), (1, -np.log(eps))):
        truth = torch.tensor([[[label]]])
        np.testing.assert_allclose(categorical_negative_log_likelihood(certain, truth), cost, rtol=1e-6)
        np.testing.assert_allclose(negative_log_likelihood(certain, truth), [[cost, cost]], rtol=1e-6)
