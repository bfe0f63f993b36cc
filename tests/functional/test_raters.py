"""Mean response, majority, energy distance and cross-correlation against slow references, and their laws."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from medcalib.functional import (
    consensus_dice,
    generalised_energy_distance,
    majority,
    mean_response,
    member_agreement,
    normalised_cross_correlation,
    response_variance,
)

CLASSES = 4


@pytest.fixture
def votes():
    """Five raters of a small volume, of whom some agree in places."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(CLASSES, (1, 6, 5, 4), generator=generator)
    others = torch.randint(CLASSES, (4, 6, 5, 4), generator=generator)
    return torch.cat([first, torch.where(torch.rand(4, 6, 5, 4, generator=generator) < 0.5, first, others)])


def dice(one, other):
    size = one.sum() + other.sum()
    return 1.0 if size == 0 else 2 * (one & other).sum() / size


def iou(one, other):
    union = (one | other).sum()
    return 1.0 if union == 0 else (one & other).sum() / union


def energy_distance(samples, raters, label, overlap):
    """The definition, pair by pair."""

    def mean(ones, others):
        pairs = [1 - overlap(a == label, b == label) for a, b in itertools.product(ones, others)]
        return sum(pairs) / len(pairs)

    return 2 * mean(samples, raters) - mean(samples, samples) - mean(raters, raters)


def test_mean_response_counts_the_raters(votes):
    expected = np.stack([(votes.numpy() == c).mean(0) for c in range(CLASSES)])
    np.testing.assert_allclose(mean_response(votes, CLASSES), expected, atol=1e-7)
    assert torch.allclose(mean_response(votes, CLASSES).sum(0), torch.ones(6, 5, 4))


@pytest.mark.parametrize("raters", [1, 2, 3, 5, 7, 49])
def test_raters_who_agree_respond_with_the_label_bit_for_bit(votes, raters):
    response = mean_response(votes[:1].expand(raters, -1, -1, -1), CLASSES)
    one_hot = torch.nn.functional.one_hot(votes[0], CLASSES).movedim(-1, 0).float()
    assert torch.equal(response, one_hot)
    assert torch.equal(majority(response), votes[:1].to(torch.uint8))
    assert not response_variance(response).any()


@pytest.mark.parametrize("raters", [1, 2, 3, 4, 5])
def test_majority_counts_votes_and_gives_ties_to_the_first_class(votes, raters):
    votes = votes[:raters]
    won = majority(mean_response(votes, CLASSES))[0]
    for place in itertools.product(*map(range, votes.shape[1:])):
        counts = [sum(int(vote[place]) == c for vote in votes) for c in range(CLASSES)]
        assert won[place] == counts.index(max(counts))


def test_majority_of_independent_labels_needs_more_than_half():
    votes = torch.tensor([[[1, 1, 0]], [[1, 0, 0]]]).bool()
    assert majority(mean_response(votes, 1), sigmoid=True).tolist() == [[1, 0, 0]]


def test_ties_survive_the_rounding_of_shares():
    for raters in range(2, 60, 2):
        votes = torch.tensor([1] * (raters // 2) + [2] * (raters // 2))[:, None]
        shuffled = votes[torch.randperm(raters, generator=torch.Generator().manual_seed(raters))]
        assert majority(mean_response(shuffled, 3)).item() == 1


def test_variance_is_that_of_the_votes(votes):
    indicators = np.stack([votes.numpy() == c for c in range(CLASSES)]).astype(float)
    np.testing.assert_allclose(
        response_variance(mean_response(votes, CLASSES))[0], indicators.var(1).mean(0), atol=1e-6
    )


@pytest.mark.parametrize(("name", "overlap"), [("dice", dice), ("iou", iou)])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_energy_distance_is_its_definition(votes, name, overlap, num_samples):
    samples = (votes[:num_samples] + (torch.rand(votes[:num_samples].shape) < 0.2)) % (CLASSES - 1)
    agreement = member_agreement(torch.cat([samples, votes]), CLASSES + 1)
    found = generalised_energy_distance(agreement, num_samples, name)
    # class 4 is nobody's: d = 0 throughout
    expected = [energy_distance(samples.numpy(), votes.numpy(), c, overlap) for c in range(CLASSES + 1)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[CLASSES] == 0


def test_energy_distance_is_zero_where_samples_are_the_raters(votes):
    agreement = member_agreement(torch.cat([votes, votes]), CLASSES)
    for distance in ("dice", "iou"):
        np.testing.assert_allclose(generalised_energy_distance(agreement, len(votes), distance), 0, atol=1e-12)
        # each as often, too
        twice = member_agreement(torch.cat([votes, votes, votes]), CLASSES)
        np.testing.assert_allclose(generalised_energy_distance(twice, 2 * len(votes), distance), 0, atol=1e-12)


def test_energy_distance_of_who_sees_a_class_that_no_rater_sees_is_twice_the_distance():
    agreement = member_agreement(torch.tensor([[1, 0], [0, 0], [0, 0]]), 2)
    assert generalised_energy_distance(agreement, 1)[1] == 2


def test_energy_distance_is_never_below_zero():
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        labels = torch.randint(2, (6, 12), generator=generator)
        values = 2 * torch.rand(6, generator=generator)[:, None] > 1
        agreement = member_agreement(labels * values, 2)
        for distance, overlap in (("dice", dice), ("iou", iou)):
            own = (labels * values).numpy()
            assert energy_distance(own[:2], own[2:], 1, overlap) > -1e-12
            assert (generalised_energy_distance(agreement, 2, distance) >= 0).all()


@pytest.mark.parametrize("num_samples", [0, 3])
def test_energy_distance_needs_samples_and_raters(num_samples):
    with pytest.raises(ValueError, match="samples and at least one rater"):
        generalised_energy_distance(torch.zeros(2, 3, 3), num_samples)


def test_cross_correlation_is_that_of_numpy_and_knows_no_scale():
    generator = torch.Generator().manual_seed(2)
    one, other = torch.rand(2, 1, 7, 6, generator=generator).double()
    found = normalised_cross_correlation(one, other)
    assert found == pytest.approx(np.corrcoef(one.flatten(), other.flatten())[0, 1])
    assert normalised_cross_correlation(one, one) == pytest.approx(1)
    assert normalised_cross_correlation(3 * one + 2, 0.5 * other - 7) == pytest.approx(found)
    assert normalised_cross_correlation(-one, other) == pytest.approx(-found)
    mask = torch.rand(1, 7, 6, generator=generator) < 0.5
    assert normalised_cross_correlation(one, other, mask) == pytest.approx(np.corrcoef(one[mask], other[mask])[0, 1])


def test_cross_correlation_with_a_constant_says_nothing():
    assert math.isnan(normalised_cross_correlation(torch.zeros(4), torch.arange(4.0)))
    assert math.isnan(normalised_cross_correlation(torch.arange(4.0), torch.full((4,), 0.1)))


def test_consensus_leaves_the_rater_out(votes):
    found = consensus_dice(votes, CLASSES)
    for rater in range(len(votes)):
        others = torch.cat([votes[:rater], votes[rater + 1 :]])
        consensus = majority(mean_response(others, CLASSES))[0].numpy()
        for c in range(CLASSES):
            assert found[rater, c] == pytest.approx(dice(votes[rater].numpy() == c, consensus == c))


def test_consensus_of_masks_and_of_one():
    masks = torch.tensor([[[1, 1, 0]], [[1, 0, 0]], [[1, 0, 0]]]).bool()
    assert consensus_dice(masks, 1)[:, 0].tolist() == [float(Fraction(2, 3)), 1.0, 1.0]
    assert consensus_dice(masks[:1], 1).isnan().all()
