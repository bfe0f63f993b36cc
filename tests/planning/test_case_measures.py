"""Measures of a case against what was put into its files, and against a slow count."""

import numpy as np
import pytest
from PIL import Image
from tests.data.layouts import write_volume

from medcalib.errors import UserError
from medcalib.planning.case_measures import measure_case
from medcalib.planning.dataset_measures import DatasetMeasures, measure_dataset


def write_case(folder, image, label, name="a", **grid):
    write_volume(folder / f"{name}.nii.gz", image, **grid)
    write_volume(folder / f"{name}_seg.nii.gz", label, **grid)
    return {"case": name, "image": str(folder / f"{name}.nii.gz"), "label": str(folder / f"{name}_seg.nii.gz")}


def objects(mask):
    """Sizes of what touches by faces, edges or corners, by growing from voxel to voxel."""
    left, sizes = set(map(tuple, np.argwhere(mask))), []
    while left:
        open_, size = [left.pop()], 0
        while open_:
            here = open_.pop()
            size += 1
            for step in np.ndindex(*[3] * mask.ndim):
                other = tuple(here[axis] + step[axis] - 1 for axis in range(mask.ndim))
                if other in left:
                    left.remove(other)
                    open_.append(other)
        sizes.append(size)
    return sizes


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    label = (rng.random((9, 8, 7)) < 0.15).astype(np.uint8) * rng.choice([1, 4], (9, 8, 7)).astype(np.uint8)
    image = np.zeros((9, 8, 7), np.float32)
    image[2:8, 1:6, 3:5] = rng.normal(50, 9, (6, 5, 2))
    return image, label


def test_what_is_measured_is_in_the_files(arrays, tmp_path):
    image, label = arrays
    found = measure_case(write_case(tmp_path, image, label, spacing=(0.5, 1.5, 4.0)), has_pictures=False)
    assert found["size"] == [9, 8, 7]
    assert found["spacing"] == pytest.approx([0.5, 1.5, 4.0])
    assert found["box"] == [6, 5, 2]
    assert found["orientation"] == "LPS"
    inside = image[label > 0].astype(float)
    (channel,) = found["channels"]
    assert channel["mean"] == pytest.approx(inside.mean())
    assert channel["std"] == pytest.approx(inside.std())
    assert (channel["lowest"], channel["highest"], channel["whole"]) == (image.min(), image.max(), False)
    assert np.median(channel["quantiles"]) == pytest.approx(np.median(inside), abs=1)
    assert set(found["classes"]) == {"0", "1", "4"}
    for value in (1, 4):
        sizes = objects(label == value)
        expected = {"voxels": int((label == value).sum()), "objects": len(sizes), "smallest": min(sizes)}
        assert found["classes"][str(value)] == expected


def test_axes_are_those_of_the_body_however_they_are_stored(arrays, tmp_path):
    image, label = arrays
    found = measure_case(write_case(tmp_path, image, label, spacing=(0.5, 1.5, 4.0), axcodes="SLP"), False)
    assert found["size"] == [8, 7, 9]
    assert found["spacing"] == pytest.approx([1.5, 4.0, 0.5])
    assert found["box"] == [5, 2, 6]


def test_an_empty_image_and_label(tmp_path):
    empty = np.zeros((3, 4, 5), np.int16)
    found = measure_case(write_case(tmp_path, empty, empty.astype(np.uint8)), False)
    assert (found["box"], found["channels"][0]["std"], found["classes"]) == ([3, 4, 5], 0, {"0": {"voxels": 60}})


def test_a_picture(tmp_path):
    Image.new("RGB", (6, 4), (255, 128, 0)).save(tmp_path / "a.png")
    Image.new("L", (6, 4), 255).save(tmp_path / "b.png")
    case = {"case": "a", "image": str(tmp_path / "a.png"), "label": str(tmp_path / "b.png")}
    found = measure_case(case, has_pictures=True)
    assert (found["size"], found["spacing"], [one["mean"] for one in found["channels"]]) == (
        [6, 4],
        [1, 1],
        [255, 128, 0],
    )
    assert found["classes"] == {"255": {"voxels": 24, "objects": 1, "smallest": 24}}


@pytest.mark.parametrize(("value", "message"), [(0.5, "holds 0.5, but labels are whole"), (-1, "holds -1, but labels")])
def test_labels_that_are_none(value, message, arrays, tmp_path):
    image, _ = arrays
    with pytest.raises(UserError, match=f"Case a: .*a_seg.nii.gz {message}"):
        measure_case(write_case(tmp_path, image, np.full(image.shape, value, np.float32)), False)


def test_statistics_of_a_dataset_are_those_of_all_voxels_where_cases_are_of_one_size(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.normal(place, 1 + place, (10, 10, 10)).astype(np.float32) for place in range(3)]
    cases = [write_case(tmp_path, one, np.ones(one.shape, np.uint8), f"c{n}") for n, one in enumerate(images)]
    found = measure_dataset(cases, False, progress=False).channel(0)
    together = np.stack(images).astype(float)
    assert found["mean"] == pytest.approx(together.mean(), abs=1e-5)
    assert found["std"] == pytest.approx(together.std(), rel=1e-5)
    assert found["p50"] == pytest.approx(np.median(together), abs=0.05)
    assert found["p99.5"] == pytest.approx(np.percentile(together, 99.5), rel=0.05)


def test_processes_measure_the_same_and_what_was_measured_is_not_read_again(arrays, tmp_path, monkeypatch):
    image, label = arrays
    cases = [write_case(tmp_path, image + number, label, f"c{number}") for number in range(4)]
    alone = measure_dataset(cases, False, progress=False)
    cache = tmp_path / "measures.json"
    several = measure_dataset(cases, False, cache, num_workers=2, progress=False)
    assert (several.cases, several.remembered) == (alone.cases, 0)

    def refuse(*_):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr("medcalib.planning.dataset_measures.measure_case", refuse)
        assert measure_dataset(cases, False, cache, progress=False) == DatasetMeasures(alone.cases, 4)
    # another content is another case, whatever its name
    write_case(tmp_path, image + 9, label, "c2")
    again = measure_dataset(cases, False, cache, progress=False)
    assert again.remembered == 3
    assert again.cases[2]["channels"][0]["mean"] == pytest.approx(alone.cases[2]["channels"][0]["mean"] + 7, rel=1e-4)


def test_one_sentence_names_the_first_case_that_cannot_be_measured_and_the_rest_is_kept(arrays, tmp_path):
    image, label = arrays
    cases = [write_case(tmp_path, image, label, f"c{number}") for number in range(4)]
    for number in (1, 2):
        (tmp_path / f"c{number}.nii.gz").write_bytes(b"no image")
    cache = tmp_path / "measures.json"
    with pytest.raises(UserError, match=r"^Case c1: .*c1.nii.gz.*\(1 more case cannot be used, either\)\.$"):
        measure_dataset(cases, False, cache, progress=False)
    for number in (1, 2):
        write_case(tmp_path, image, label, f"c{number}")
    # what c0 and c3 hold is what all hold, so nothing has to be measured any more
    assert measure_dataset(cases, False, cache, progress=False).remembered == 4


def test_a_case_unlike_the_others_is_named(arrays, tmp_path):
    image, label = arrays
    cases = [write_case(tmp_path, image, label, f"c{number}") for number in range(3)]
    cases += [write_case(tmp_path, np.stack([image, image], -1), label, "two")]
    with pytest.raises(UserError, match="Case two has 2 channels, but most cases have 1"):
        measure_dataset(cases, False, progress=False)


def test_a_damaged_cache_is_made_anew(arrays, tmp_path):
    image, label = arrays
    cache = tmp_path / "measures.json"
    cache.write_text('{"version": 1, "measured": ')
    assert measure_dataset([write_case(tmp_path, image, label)], False, cache, progress=False).remembered == 0
    assert measure_dataset([write_case(tmp_path, image, label)], False, cache, progress=False).remembered == 1
