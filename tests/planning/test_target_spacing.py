"""Spacings are medians, but for the coarse axis of anisotropic data."""

import numpy as np
import pytest

from medcalib.planning.target_spacing import sizes_at, target_spacing


def test_the_order_of_cases_does_not_matter():
    rng = np.random.default_rng(0)
    spacings, sizes = rng.uniform(0.5, 2, (11, 3)), rng.integers(20, 90, (11, 3))
    order = rng.permutation(11)
    assert target_spacing(spacings, sizes) == target_spacing(spacings[order], sizes[order])
    assert target_spacing(spacings, sizes)[0] == pytest.approx(np.sort(spacings, axis=0)[5], abs=1e-4)


@pytest.mark.parametrize(
    ("coarse", "depth", "expected"),
    [
        ([3.0] * 11, 30, 3.0),  # not over three times as coarse
        ([2.0, 2.0, *[5.0] * 9], 30, 2.0),  # thin slices of the finest tenth
        ([0.4, 0.4, *[5.0] * 9], 30, 1.0),  # but never finer than the other axes
        ([2.0, 2.0, *[5.0] * 9], 100, 5.0),  # many slices: no third of the other axes
    ],
)
def test_the_coarse_axis(coarse, depth, expected):
    target, reason = target_spacing([[1, 1, one] for one in coarse], [[120, 120, depth]] * 11)
    assert target == [1, 1, expected]
    assert ("10th percentile" in reason) == (expected in (2.0, 1.0))


def test_a_case_at_its_own_spacing_keeps_its_size():
    assert sizes_at([0.7, 0.7, 5.0], [[0.7, 0.7, 5.0]], [[301, 7, 1]]).tolist() == [[301, 7, 1]]
    assert sizes_at([10.0] * 3, [[1.0] * 3], [[4, 4, 4]]).tolist() == [[1, 1, 1]]
