"""Summaries of cases against what they were made of."""

import numpy as np
import pytest

from medcalib.data_check.case_summary import (
    attribute_counts,
    intensity_range,
    label_histogram,
    spread,
    summarize_case,
)

NAMES = ["background", "organ", "lesion"]


def volume(seed, shape=(2, 6, 7, 5)):
    return np.random.default_rng(seed).normal(0, 1 + seed, shape).astype(np.float32)


def test_a_case():
    image, label = volume(0), np.zeros((1, 6, 7, 5))
    label[0, :2], label[0, 2, 0] = 1, 2
    found = summarize_case(image, label, 3, spacing=(1, 1, 2.5))
    assert (found.shape, found.spacing) == ((6, 7, 5), (1.0, 1.0, 2.5))
    np.testing.assert_array_equal(found.lowest, image.min((1, 2, 3)))
    np.testing.assert_array_equal(found.highest, image.max((1, 2, 3)))
    assert found.label_counts.tolist() == [210 - 70 - 5, 70, 5]
    assert found.label_size == 210
    assert np.isin(found.sample[0], image[0]).all()
    assert np.isin(found.sample[1], image[1]).all()


def test_channels_are_sampled_at_the_same_voxels():
    image = volume(1)
    image[1] = 2 * image[0]
    sample = summarize_case(image, None, 3).sample
    np.testing.assert_array_equal(sample[1], 2 * sample[0])


def test_independent_labels_may_overlap():
    label = np.zeros((2, 4, 4))
    label[0, :2], label[1, 1:] = 1, 1
    found = summarize_case(None, label, 2, independent=True)
    assert (found.label_counts.tolist(), found.label_size) == ([8, 12], 16)
    of_classes = label_histogram(["a"], [found], ["whole", "core"])
    assert [of_classes[name]["fraction"] for name in ("whole", "core")] == [0.5, 0.75]


def test_what_could_not_be_read_is_left_out():
    assert summarize_case(None, None, 3) == ((None,) * 7 + (0,))
    broken = summarize_case(volume(0), None, 3)
    whole = summarize_case(volume(1), np.ones((1, 6, 7, 5)), 3)
    found = label_histogram(["a", "b"], [broken, whole], NAMES)
    assert found["organ"] == {"voxels": 210, "fraction": 1.0, "num_cases": 1, "cases_without": []}
    assert found["lesion"]["cases_without"] == ["b"]
    empty = label_histogram(["a"], [broken], NAMES)
    assert np.isnan(empty["organ"]["fraction"])
    assert empty["organ"]["cases_without"] == []


def test_labels_of_several_cases_add_up():
    rng = np.random.default_rng(3)
    labels = [rng.integers(0, 3, (1, *shape)) for shape in ((4, 5), (6, 2), (3, 3))]
    labels[1][labels[1] == 2] = 0
    found = label_histogram(["a", "b", "c"], [summarize_case(None, label, 3) for label in labels], NAMES)
    pooled = np.concatenate([label.ravel() for label in labels])
    for number, name in enumerate(NAMES):
        assert found[name]["voxels"] == (pooled == number).sum()
        assert found[name]["fraction"] == pytest.approx((pooled == number).mean())
    assert found["lesion"]["num_cases"] == 2
    assert found["lesion"]["cases_without"] == ["b"]


def test_range_and_percentiles_of_intensities():
    images = [volume(seed, (2, 40, 40, 10)) for seed in range(3)]
    found = intensity_range([summarize_case(image, None, 3) for image in images], ["T1", "T2"], [5, 50])
    for channel, name in enumerate(("T1", "T2")):
        values = np.concatenate([image[channel].ravel() for image in images])
        assert found[name]["min"] == values.min()
        assert found[name]["max"] == values.max()
        for key, percent in (("p05", 5), ("p50", 50)):
            assert found[name][key] == pytest.approx(np.percentile(values, percent), abs=0.1)


def test_cases_of_all_sizes_count_the_same_in_percentiles():
    small, large = np.zeros((1, 10, 10)), np.ones((1, 100, 100))
    found = intensity_range([summarize_case(image, None, 2) for image in (small, large)], ["CT"], [40, 60])
    assert (found["CT"]["p40"], found["CT"]["p60"]) == (0, 1)


def test_images_with_other_channels_are_left_out():
    cases = [summarize_case(volume(0), None, 3), summarize_case(100 + volume(0, (3, 4, 4)), None, 3)]
    assert intensity_range(cases, ["T1", "T2"])["T1"]["max"] < 100
    assert intensity_range(cases[1:], ["T1", "T2"]) == {}


def test_spread_is_by_axis():
    assert spread([(1, 9), (3, 7), (2, 8)]) == {"min": [1.0, 7.0], "median": [2.0, 8.0], "max": [3.0, 9.0]}


def test_attributes():
    cases = [{"case": "a", "attributes": {"vendor": "B", "centre": 2}}, {"case": "b", "attributes": {"vendor": "A"}}]
    assert attribute_counts([*cases, {"case": "c"}, cases[1]]) == {"vendor": {"A": 2, "B": 1}, "centre": {"2": 1}}
