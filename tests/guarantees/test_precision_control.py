"""Inner sets keep their promise with the confidence that was promised, and p-values are those of other programs."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from scipy.special import xlogy
from scipy.stats import binom
from tests.guarantees.made_up import CLASSES, cases_of, independent, made_up_case

from medcalib.functional import hoeffding_bentkus_p_values, set_thresholds
from medcalib.guarantees import PrecisionControl


@pytest.fixture(scope="module")
def observed():
    cases = [made_up_case(number, lesion=number % 4 > 0) for number in range(120)]
    return [PrecisionControl(CLASSES).observe(case) for case in cases]


def p_values(mean, number, alpha):
    """Hoeffding's and Bentkus's bounds of mean losses, with SciPy."""
    below = np.minimum(mean, alpha)
    hoeffding = np.exp(-number * (xlogy(below, below / alpha) + xlogy(1 - below, (1 - below) / (1 - alpha))))
    of_count = math.e * binom.cdf(np.arange(number + 1), number, alpha)
    return np.minimum(hoeffding, of_count[np.ceil(mean * number - 1e-9).astype(int)])


@pytest.mark.parametrize(("number", "alpha", "delta"), [(40, 0.2, 0.1), (60, 0.3, 0.2)])
def test_mean_loss_is_as_promised_with_the_confidence_that_was_promised(observed, number, alpha, delta):
    known = independent(len(observed), number)
    thresholds = torch.cat([torch.tensor([2.0]), set_thresholds().flip(0)])
    for unit in range(len(CLASSES)):
        losses = np.stack([one["wrong"][unit].numpy() for one in observed])[:, ::-1]
        losses = np.concatenate([np.zeros((len(losses), 1)), losses], 1)
        rejected = p_values(known @ losses / number, number, alpha) <= delta
        index = rejected.cumprod(1).sum(1) - 1
        risk = losses.mean(0)[index]
        share = delta + 3 * math.sqrt(delta * (1 - delta) / len(known))
        assert (risk > alpha).mean() <= share
        # it is no empty promise
        assert np.mean(index > 0) > 0.9
        assert risk.mean() > alpha / 4
        for split in range(5):
            guarantee = PrecisionControl(CLASSES, alpha, delta)
            guarantee.fit(cases_of(observed, known[split]))
            assert guarantee.fitted(CLASSES[unit])["threshold"] == thresholds[index[split]].item()


def test_sets_grow_as_more_may_be_wrong(observed):
    found = []
    for alpha in (0.1, 0.2, 0.3, 0.5):
        guarantee = PrecisionControl(CLASSES, alpha)
        guarantee.fit(observed)
        found.append([guarantee.fitted(name)["threshold"] for name in CLASSES])
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


@pytest.mark.parametrize("prob", [0.9, 1.0])
def test_a_constant_predictor_gets_the_empty_set(prob):
    cases = [
        case._replace(probs=torch.full_like(case.probs, prob), segmentation=None)
        for case in map(made_up_case, range(40))
    ]
    guarantee = PrecisionControl(CLASSES)
    guarantee.fit([guarantee.observe(case) for case in cases])
    assert not guarantee.sets(cases[0])["inner"].any()
    assert guarantee.losses(cases[0]).tolist() == [0.0, 0.0]
    told = [note.partition(", since")[0] for note in guarantee.notes()]
    # with 0.9 it is empty because of the predictions, not whatever they are
    assert told == ([] if prob < 1 else [f"{name}: the inner set is empty in every case" for name in CLASSES])


def test_what_is_drawn_where_the_class_is_not_is_wrong(observed):
    guarantee = PrecisionControl(CLASSES, alpha=0.5)
    guarantee.fit(observed)
    assert guarantee.fitted("lesion")["num_cases"] == len(observed)
    case = made_up_case(200, lesion=False)
    inner = guarantee.sets(case)["inner"][1]
    assert guarantee.losses(case)[1].item() == float(inner.any())
    assert inner.any()


def test_realised_losses_are_those_that_were_observed(observed):
    guarantee = PrecisionControl(CLASSES, alpha=0.3)
    guarantee.fit(observed)
    for number in range(0, 120, 7):
        losses = guarantee.losses(made_up_case(number, lesion=number % 4 > 0))
        for unit, name in enumerate(CLASSES):
            index = set_thresholds().tolist().index(guarantee.fitted(name)["threshold"])
            assert losses[unit].item() == pytest.approx(observed[number]["wrong"][unit, index].item(), abs=1e-12)


@pytest.mark.skipif(not importlib.util.find_spec("mapie"), reason="needs MAPIE")
def test_p_values_are_those_of_mapie():
    from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

    losses = np.random.default_rng(0).beta(0.3, 3, size=(50, 40)) * np.linspace(0, 1, 40)
    for alpha in (0.05, 0.1, 0.3):
        expected = compute_hoeffding_bentkus_p_value(losses.mean(0), 50, alpha)[:, 0]
        values = hoeffding_bentkus_p_values(torch.from_numpy(losses), alpha)
        # MAPIE's bound may pass 1
        np.testing.assert_allclose(values, np.minimum(expected, 1), rtol=1e-9)
        np.testing.assert_allclose(p_values(losses.mean(0), 50, alpha).clip(max=1), values, rtol=1e-9)
