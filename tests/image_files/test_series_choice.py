"""One of several DICOM series of a folder, by number, description or UID."""

import numpy as np
import pytest
from tests.image_files.written import PERMUTED, write_dicom

from medcalib.data.case_identity import case_identities
from medcalib.errors import UserError
from medcalib.image_files.dicom_series import DicomSeries, series_in
from medcalib.image_files.series_choice import choose_series, chosen_series
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.transforms import LoadCased

pytest.importorskip("SimpleITK", reason="reads the files")
pytest.importorskip("pydicom", reason="writes the files")

AXIAL = np.diag([-1.0, -1, 2, 1])


def values(seed):
    return np.random.default_rng(seed).integers(0, 99, (6, 5, 4))


def write_two(folder, **tags):
    """Files of two series, as a scanner's export throws them into one folder."""
    for number, (series, affine, description) in enumerate(
        [("1.2.3", AXIAL, "T1 axial"), ("1.2.4", PERMUTED, "T2 sagittal")], 1
    ):
        apart = folder.parent / f"{folder.name}_{number}"
        given = {"SeriesNumber": 3 * number, "SeriesDescription": description} | tags
        write_dicom(apart, values(number), affine, series=series, **given)
        folder.mkdir(exist_ok=True, parents=True)
        for file in apart.iterdir():
            file.rename(folder / f"{file.name}_{number}")
    return folder


@pytest.mark.parametrize("name", [6, "6", "06", "T2 sagittal", "t2 SAGITTAL ", "1.2.4"])
def test_a_series_is_found_by_each_of_its_names(tmp_path, name):
    folder = write_two(tmp_path / "both")
    assert chosen_series(folder, name) == "1.2.4"
    split = choose_series({"test": [{"case": "a", "image": str(folder)}], "training": []}, name)
    image = LoadCased(num_channels=1)(split["test"][0])["image"]
    # sorted along the normal, against which they were written
    np.testing.assert_array_equal(image[0].numpy(), values(2)[:, :, ::-1])
    alone = DicomSeries(folder, "1.2.4").grid
    np.testing.assert_array_equal(image.affine.numpy(), alone.affine)


def test_channels_may_be_series_of_folders_of_their_own(tmp_path):
    image = [str(write_two(tmp_path / f"{name}")) for name in ("one", "other")]
    split = choose_series({"test": [{"case": "a", "image": image}]}, "T1 axial")
    assert LoadCased(num_channels=2)(split["test"][0])["image"].shape == (2, 6, 5, 4)


def test_without_a_choice_everything_stays_and_the_series_are_named(tmp_path):
    folder = write_two(tmp_path / "both")
    split = {"test": [{"case": "a", "image": str(folder)}]}
    assert choose_series(split, None) is split
    with pytest.raises(
        UserError,
        match=r"holds 2 DICOM series, 3 'T1 axial' \(CT, 4 files\), 6 'T2 sagittal' \(CT, 4 files\); .*_series",
    ):
        LoadCased()(split["test"][0])
    assert [(one.number, one.num_files) for one in series_in(folder)] == [("3", 4), ("6", 4)]


def test_another_series_of_the_same_folder_is_another_image(tmp_path):
    split = {"test": [{"case": "a", "image": str(write_two(tmp_path / "both"))}]}
    one, same, other = (case_identities(choose_series(split, name)["test"])[0]["image"] for name in (3, "T1 axial", 6))
    assert one == same != other


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (4, r"holds no DICOM series .* '4', but 3 'T1 axial' .*; name one of them"),
        ("T1 axil", r"'T1 axil', but .*; did you mean 'T1 axial'\?$"),
        ("1.2.5", r"'1\.2\.5', but 3 'T1 axial'"),
    ],
)
def test_a_series_that_is_not_there(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        chosen_series(write_two(tmp_path / "both"), name)


def test_a_name_of_several_series_asks_for_the_uid(tmp_path):
    folder = write_two(tmp_path / "both", SeriesDescription="T1")
    with pytest.raises(UserError, match=r"holds 2 DICOM series 'T1'; .*1\.2\.3 \(4 files\), 1\.2\.4 \(4 files\)"):
        chosen_series(folder, "T1")
    assert chosen_series(folder, 3) == "1.2.3"


def test_files_and_folders_without_dicom_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a folder without DICOM files"):
        chosen_series(tmp_path / "empty", 3)
    with pytest.raises(UserError, match=r"case a is the file a\.nii\.gz"):
        choose_series({"test": [{"case": "a", "image": "a.nii.gz"}]}, 3)
    folder = write_two(tmp_path / "both")
    with pytest.raises(UnreadableFileError, match=r"holds no DICOM series 1\.9"):
        DicomSeries(folder, "1.9")
