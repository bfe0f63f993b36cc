"""Segmentations of members of whole images, put together from windows."""

import pytest
import torch
from monai.data import compute_importance_map
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import nn

from medcalib.functional.agreement import member_agreement
from medcalib.inferers import SamplingInferer


class Shifted:
    """Three members, which differ by a constant on one class."""

    def __call__(self, window, network):
        for shift in (-0.4, 0.0, 0.4):
            logits = network(window).clone()
            logits[:, 1] += shift
            yield logits


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Conv2d(1, 3, 3, padding=1).eval()


@pytest.fixture(scope="module")
def image():
    return torch.rand(1, 1, 9, 11, generator=torch.Generator().manual_seed(1))


def member_labels(inferer, image, network, **options):
    with torch.no_grad():
        found = SamplingInferer(inferer, Shifted(), keep_member_labels=True, **options).predict(image, network)
    return found["member_labels"]


def test_of_one_window_they_are_the_decisions_of_the_members(image, network):
    found = member_labels(SimpleInferer(), image, network)
    with torch.no_grad():
        expected = torch.cat([logits.argmax(1, keepdim=True) for logits in Shifted()(image, network)], 1)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), expected)


def test_each_voxel_has_the_label_of_the_window_in_which_it_counts_the_most(image, network):
    inferer = SlidingWindowInferer(roi_size=(6, 6), overlap=0.5, mode="gaussian")
    found = member_labels(inferer, image, network)
    assert found.shape == (1, 3, 9, 11)
    importance = compute_importance_map((6, 6), mode="gaussian")
    best, expected = torch.full((9, 11), -1.0), torch.zeros(3, 9, 11, dtype=torch.long)
    with torch.no_grad():
        for y in (0, 3):
            for x in (0, 3, 5):
                window = image[..., y : y + 6, x : x + 6]
                labels = torch.cat([logits.argmax(1) for logits in Shifted()(window, network)])
                for i in range(6):
                    for j in range(6):
                        if importance[i, j] > best[y + i, x + j]:
                            best[y + i, x + j] = importance[i, j]
                            expected[:, y + i, x + j] = labels[:, i, j]
    assert torch.equal(found[0].long(), expected)


def test_an_image_smaller_than_a_window_loses_its_padding(network):
    image = torch.rand(1, 1, 4, 11, generator=torch.Generator().manual_seed(2))
    assert member_labels(SlidingWindowInferer(roi_size=(6, 6)), image, network).shape == (1, 3, 4, 11)


def test_independent_labels_have_a_channel_for_each_member_and_class(image, network):
    found = member_labels(SimpleInferer(), image, network, activation="sigmoid")
    assert found.shape == (1, 9, 9, 11)
    masks = found.reshape(3, 3, 9, 11).bool()
    with torch.no_grad():
        expected = torch.cat([logits.sigmoid() >= 0.5 for logits in Shifted()(image, network)])
    assert torch.equal(masks, expected)


def test_nothing_else_changes_and_a_single_prediction_has_none(image, network):
    inferer = SlidingWindowInferer(roi_size=(6, 6), overlap=0.5)
    with torch.no_grad():
        plain = SamplingInferer(inferer, Shifted(), measure_agreement=True).predict(image, network)
        both = SamplingInferer(inferer, Shifted(), measure_agreement=True, keep_member_labels=True)
        kept = both.predict(image, network)
        alone = SamplingInferer(inferer, keep_member_labels=True).predict(image, network)
    labels = kept.pop("member_labels")
    assert kept.keys() == plain.keys()
    assert all(torch.equal(kept[key], plain[key]) for key in plain)
    assert set(alone) == {"pred"}
    # where no voxel is in two windows, both count the same
    apart = SamplingInferer(SlidingWindowInferer(roi_size=(9, 11)), Shifted(), measure_agreement=True)
    apart.keep_member_labels = True
    with torch.no_grad():
        found = apart.predict(image, network)
    agreement = member_agreement(found["member_labels"][0], 3)
    torch.testing.assert_close(agreement, found["agreement"][0])
    assert labels.shape == found["member_labels"].shape
