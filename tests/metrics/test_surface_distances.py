import itertools

import numpy as np
import pytest
import torch

from medcalib.keys import IGNORED
from medcalib.metrics import HausdorffDistanceMetric, ModifiedHausdorffDistanceMetric, SurfaceDiceMetric
from medcalib.metrics import surface_distances as module


@pytest.fixture
def searches(monkeypatch):
    """How often the nearest voxels of a surface were looked for."""
    found = []
    original = module.get_surface_distance

    def counting(*arguments, **options):
        found.append(arguments[0].shape)
        return original(*arguments, **options)

    monkeypatch.setattr(module, "get_surface_distance", counting)
    module._LAST.clear()
    return found


def labels(seed):
    return torch.randint(3, (1, 1, 9, 8, 7), generator=torch.Generator().manual_seed(seed))


def metrics():
    kinds = (ModifiedHausdorffDistanceMetric, HausdorffDistanceMetric, lambda **of: SurfaceDiceMetric(1.0, **of))
    return [kind(num_classes=3) for kind in kinds]


def test_metrics_of_a_case_share_its_distances_and_no_others(searches):
    pairs = [(labels(0), labels(1)), (labels(0), labels(2)), (labels(1), labels(2))]
    shared = [[metric(*pair, spacing=[1.0, 2.0, 0.5]) for metric in metrics()] for pair in pairs]
    assert len(searches) == len(pairs) * 2 * 2
    for row, pair in zip(shared, pairs, strict=True):
        for value, metric in zip(row, metrics(), strict=True):
            module._LAST.clear()
            torch.testing.assert_close(value, metric(*pair, spacing=[1.0, 2.0, 0.5]))


@pytest.mark.parametrize("change", ["prediction", "truth", "spacing", "classes"])
def test_whatever_decides_the_distances_is_looked_at(searches, change):
    y_pred, y, spacing, background = labels(0), labels(1), [1.0, 1.0, 1.0], False
    HausdorffDistanceMetric(num_classes=3)(y_pred, y, spacing=spacing)
    if change == "prediction":
        y_pred = y_pred.flip(-1)
    elif change == "truth":
        # in place, as a buffer that is used again
        y.copy_(y.flip(-1))
    elif change == "spacing":
        spacing = [1.0, 1.0, 2.0]
    else:
        background = True
    before = len(searches)
    found = HausdorffDistanceMetric(num_classes=3, include_background=background)(y_pred, y, spacing=spacing)
    assert len(searches) - before == found.numel() * 2


@pytest.mark.parametrize("num_classes", [2, 255, 256, 300])
def test_any_number_of_classes(num_classes):
    volume = torch.zeros(1, 40, dtype=torch.long)
    volume[0, 3:7] = num_classes - 1
    masks = module.class_masks(volume, num_classes)
    boxes = module.class_boxes(masks)
    assert boxes == [(slice(0, 40),), *[None] * (num_classes - 2), (slice(3, 7),)]
    for mask, (start, stop) in zip((masks[0], masks[-1]), ((0, 40), (3, 7)), strict=True):
        np.testing.assert_array_equal(mask.crop((slice(start, stop),)), mask.volume[start:stop] == mask.label)
    with pytest.raises(ValueError, match=f"whole numbers from 0 to {num_classes - 1}"):
        module.class_masks(volume + 1, num_classes)
    # a voxel of unknown truth is of no class
    assert not any(mask.crop((slice(None),)).any() for mask in module.class_masks(volume * 0 + IGNORED, num_classes))
    for wrong in itertools.chain([-2.0, 0.5, 256.0 + num_classes], [float("nan")]):
        with pytest.raises(ValueError, match="whole numbers"):
            module.class_masks(torch.full((1, 4), wrong), num_classes)
