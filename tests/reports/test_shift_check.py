"""The check of new images against calibration cases says what its tests find, over all images of a folder."""

import json

import numpy as np
import pandas as pd
import pytest

from medcalib.files.tensors import save_tensors
from medcalib.handlers import CaseFolders
from medcalib.metrics import case_shift_p_values, shift_test
from medcalib.reports import ShiftCheck

NAMES = ["entropy_foreground_mean", "entropy_image_mean", "aula"]


def scores(random, number, shift=0.0):
    return [dict(zip(NAMES, map(float, values), strict=True)) for values in random.normal(shift, 1, (number, 3))]


@pytest.fixture
def known():
    return scores(np.random.default_rng(0), 20)


@pytest.fixture
def guarantee_file(tmp_path, known):
    content = dict.fromkeys(["settings", "states", "lacking", "origin", "split_digest", "promises_nothing"], None)
    save_tensors(
        content | {"cases": [{"case": str(n), "scores": one} for n, one in enumerate(known)]}, tmp_path / "g.pt"
    )
    return tmp_path / "g.pt"


def folder_of(path, cases, names=None):
    folder = CaseFolders(path, {"seed": 1})
    images = [{"case": f"case_{n}", "image": str(path / f"{n}.nii")} for n in range(len(cases))]
    folder.waiting(images)
    for image, one in zip(images, cases, strict=True):
        folder.file(f"{image['case']}/x").touch()
        folder.finish_case(image["case"], {"image": image["image"]}, scores=one)
    return folder


def values(cases, names=("entropy_foreground_mean", "aula")):
    return [[np.nan if case[name] is None else case[name] for name in names] for case in cases]


def test_images_unlike_the_calibration_cases_are_warned_of(tmp_path, guarantee_file, known):
    new = scores(np.random.default_rng(1), 8, shift=2.0)
    check = ShiftCheck(guarantee_file, folder_of(tmp_path / "out", new))
    expected = shift_test(values(new), values(known))
    with pytest.warns(UserWarning, match=r"The 8 image\(s\) in .*out are unlike the 20 calibration cases .* does not"):
        check.tell()
    told = json.loads((tmp_path / "out" / "shift.json").read_text())
    assert told["p_value"] == expected.p_value < 0.01
    assert told["score"] == ["entropy_foreground_mean", "aula"][expected.score]
    assert (told["direction"], told["num_images"], told["num_calibration_cases"]) == ("higher", 8, 20)


def test_images_like_the_calibration_cases_are_not(tmp_path, guarantee_file, known, capsys, recwarn):
    ShiftCheck(guarantee_file, folder_of(tmp_path / "out", scores(np.random.default_rng(2), 8))).tell()
    assert "no difference found between the 8 image(s)" in capsys.readouterr().out
    assert not [one for one in recwarn if issubclass(one.category, UserWarning)]


def test_the_direction_is_that_of_the_score_as_tables_have_it(tmp_path):
    """Guarantees see agreement turned, so that high is uncertain."""
    content = dict.fromkeys(["settings", "states", "lacking", "origin", "split_digest", "promises_nothing"], None)
    known = [{"case": str(n), "scores": {"pairwise_dice": -0.9 - n / 1000}} for n in range(20)]
    save_tensors(content | {"cases": known}, tmp_path / "g.pt")
    unsure = folder_of(tmp_path / "out", [{"pairwise_dice": -0.2 + n / 100} for n in range(8)])
    with pytest.warns(UserWarning, match="most of all pairwise_dice is lower"):
        ShiftCheck(tmp_path / "g.pt", unsure).tell()
    assert json.loads((tmp_path / "out" / "shift.json").read_text())["direction"] == "lower"


def test_too_few_cases_to_tell(tmp_path, guarantee_file):
    check = ShiftCheck(guarantee_file, folder_of(tmp_path / "out", scores(np.random.default_rng(3), 1, 9.0)))
    with pytest.warns(UserWarning, match="too few to tell whether they are alike"):
        check.tell()


def test_every_image_has_its_own_value(tmp_path, guarantee_file, known):
    new = scores(np.random.default_rng(4), 3, 1.0)
    check = ShiftCheck(guarantee_file, CaseFolders(tmp_path / "out"))
    found = [check.case_p_value(case) for case in new]
    np.testing.assert_array_equal(found, case_shift_p_values(values(new), values(known)))
    assert check.case_p_value({"other": 1.0}) is None
    # how much of the patient an image shows makes no difference
    assert check.case_p_value(new[0] | {"entropy_image_mean": 99.0}) == found[0]
    # no foreground was predicted
    assert check.case_p_value(dict.fromkeys(NAMES, float("nan"))) == 1 / 21


def test_earlier_images_count_and_the_table_has_no_more_columns(tmp_path, guarantee_file, known):
    new = scores(np.random.default_rng(5), 6, 2.0)
    new[0]["aula"] = float("nan")
    folder = folder_of(tmp_path / "out", new)
    folder.finish()
    with pytest.warns(UserWarning, match="unlike"):
        ShiftCheck(guarantee_file, CaseFolders(tmp_path / "out", {"seed": 1})).tell()
    assert json.loads((tmp_path / "out" / "shift.json").read_text())["num_images"] == 6
    assert list(pd.read_csv(tmp_path / "out" / "predictions.csv").columns) == ["case", "image"]
