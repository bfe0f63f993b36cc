import base64
import dataclasses
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from tests.comparison_page import made_up

from medcalib.comparison_page import gallery as rooms
from medcalib.comparison_page.gallery import gallery
from medcalib.comparison_page.prediction_slices import foreground_of, read_slice


@pytest.fixture
def made(tmp_path):
    found = made_up.of_segmentations(tmp_path, num_cases=12)
    made_up.add_predictions(found, shape=(14, 12, 6))
    return found


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.source.partition(",")[2]))).convert("RGB"))


def test_the_worst_the_median_and_the_best_come_first(made):
    dice = made.evaluations["baseline"][0].metrics["mean_dice"]["mean"].sort_values()
    found = gallery(made)
    assert [one.case for one in found.cases[:3]] == [dice.index[0], dice.index[6], dice.index[-1]]
    assert found.cases[0].reason == "worst Dice of baseline"
    assert len(found.cases) == rooms.MOST_CASES
    assert "9 of 12 cases with predictions are shown" in found.text


def test_every_method_is_shown_in_the_same_slice(made):
    for one in gallery(made).cases:
        assert [picture.method for picture in one.pictures] == list(made.evaluations)
        assert len({(picture.width, picture.height) for picture in one.pictures}) == 1
        assert "axial slice" in one.slice_name


def test_pixels_are_as_bright_as_the_probability(made, tmp_path):
    folder = made.evaluations["soft"][0].folder.parent / "predictions"
    case = gallery(made).cases[0].case
    one = read_slice(folder, case, foreground_of(folder, case))
    picture = next(picture for picture in gallery(made).cases[0].pictures if picture.method == "soft")
    left = pixels(picture)[:, : picture.width // 2 - 10]
    # at the corner, far from any outline
    assert left[0, 0].mean() / 255 == pytest.approx(one.probability[0, 0], abs=0.02)


def test_a_slice_lies_as_the_patient_does(made):
    folder = made.evaluations["soft"][0].folder.parent / "predictions"
    foreground = np.zeros((14, 12, 6), bool)
    foreground[:, :, 4] = True
    one = read_slice(folder, "case_001", foreground)
    assert one.name == "axial slice 5 of 6"
    import nibabel as nib

    entropy = nib.load(folder / "case_001" / "case_001_entropy.nii.gz").get_fdata()[:, :, 4]
    np.testing.assert_allclose(one.entropy, entropy.T[::-1], rtol=1e-6)


def test_pictures_of_two_axes_are_shown_as_they_are(tmp_path):
    made = made_up.of_segmentations(tmp_path, num_cases=3)
    made_up.add_pictures(made)
    folder = made.evaluations["soft"][0].folder.parent / "predictions"
    one = read_slice(folder, "case_000", foreground_of(folder, "case_000"))
    assert one.probability.shape == (30, 40)
    assert one.probability[10, 10] == pytest.approx(0.9)
    assert one.entropy[10, 10] == pytest.approx(int(0.9 * 30000) * 1.1 / 65535)
    assert len(gallery(made).cases) == 3


def test_labels_of_regions_are_not_given_their_names(made):
    summary = {"provenance": {"regions": {"organ": [1, 2], "lesion": [2]}}}
    regions = {name: (dataclasses.replace(one, summary=summary),) for name, (one,) in made.evaluations.items()}
    found = gallery(made_up.comparison(regions, "baseline", "macro_ace", {}))
    assert set(found.class_colors) == {"label 1"}
    assert set(gallery(made).class_colors) == {"organ"}


def test_a_page_holds_no_more_than_its_bound(made, monkeypatch):
    monkeypatch.setattr(rooms, "MOST_BYTES_SHOWN", 30_000)
    found = gallery(made)
    assert 1 <= len(found.cases) < rooms.MOST_CASES
    assert f"{len(found.cases)} of 12" in found.text
    monkeypatch.setattr(rooms, "MOST_BYTES_READ", 1)
    assert len(gallery(made).cases) == 1


def test_methods_and_cases_without_predictions_are_said_or_left_out(made):
    folders = [seeds[0].folder.parent / "predictions" for seeds in made.evaluations.values()]
    shutil.rmtree(folders[2])
    (folders[1] / "case_003" / "case_003_prob.nii.gz").unlink()
    (folders[1] / "case_004" / "case_004_prob.nii.gz").write_bytes(b"damaged")
    found = gallery(made)
    assert found.text.endswith("No predictions lie beside the evaluations of soft.")
    assert "11 cases with predictions are shown (12 were evaluated)" in found.text
    assert not {"case_003", "case_004"} & {one.case for one in found.cases}
    for folder in folders[:2]:
        shutil.rmtree(folder)
    assert gallery(made) is None
