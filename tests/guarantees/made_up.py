"""Cases that are exchangeable, many random splits of them, and what conformal risk control says of all of these."""

import math

import numpy as np
import torch

from medcalib.guarantees import GuaranteeCase

CLASSES = ["organ", "lesion"]
SPLITS = 2000


def made_up_case(number, shape=(7, 6, 5), lesion=True):
    """A ball and a smaller one, probabilities that fall too slowly at their borders, and labels that are displaced."""
    random = np.random.default_rng(number)
    spacing = (1.0, 1.5, 2.0)
    places = np.stack(
        np.meshgrid(*(np.arange(size) * step for size, step in zip(shape, spacing, strict=True)), indexing="ij")
    )
    probs, target = [], []
    for radius in (3.5, 1.8):
        centre = np.array([[3.0], [3.75], [4.0]]) + random.normal(0, 0.5, (3, 1))
        distance = radius - np.linalg.norm(places.reshape(3, -1) - centre, axis=0).reshape(shape)
        seen = distance + random.normal(0, 0.4) + random.normal(0, 0.3, shape)
        target.append(distance > 0)
        probs.append(1 / (1 + np.exp(-2 * seen)))
    if not lesion:
        target[1][:] = False
    probs = torch.from_numpy(np.stack(probs)).float()
    return GuaranteeCase(f"case_{number}", probs, probs >= 0.5, torch.from_numpy(np.stack(target)), spacing)


def exchangeable(count, number_known, seed=0):
    """Random divisions of so many cases into known and other ones, (SPLITS, cases), 1 for the known."""
    random = np.random.default_rng(seed)
    order = random.permuted(np.tile(np.arange(count), (SPLITS, 1)), axis=1)
    return (order < number_known).astype(float)


def independent(count, number_known, seed=0):
    """How often each of so many cases is drawn in independent draws, (SPLITS, cases)."""
    random = np.random.default_rng(seed)
    return np.stack([np.bincount(random.integers(count, size=number_known), minlength=count) for _ in range(SPLITS)])


def mean_within(values, mean_least, mean_most, errors=4.0):
    """Whether the mean over splits lies within a range, up to so many standard errors."""
    error = errors * values.std() / math.sqrt(len(values))
    return mean_least - error <= values.mean() <= mean_most + error


def cases_of(observed, chosen):
    """Those summaries that are chosen, as often as they are."""
    return [one for one, times in zip(observed, chosen.astype(int), strict=True) for _ in range(times)]
