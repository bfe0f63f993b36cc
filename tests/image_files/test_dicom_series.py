"""Folders of DICOM slices: values, place in the patient, and which folders are no volume."""

import numpy as np
import pytest
from tests.image_files.written import OBLIQUE, PERMUTED, orthogonal, to_lps, write_dicom

from medcalib.image_files.dicom_series import DicomSeries
from medcalib.image_files.grids import image_like
from medcalib.image_files.unreadable import UnreadableFileError

itk = pytest.importorskip("SimpleITK", reason="needs the extra images")
pytest.importorskip("pydicom", reason="writes the files")

PLACES = {"oblique": orthogonal(OBLIQUE), "permuted": PERMUTED, "upside down": np.diag([-1.5, 1.5, -4, 1])}


def values(shape=(6, 5, 4)):
    return np.random.default_rng(0).integers(0, 65000, shape)


@pytest.mark.parametrize("place", PLACES)
def test_values_and_place_are_those_that_were_written(tmp_path, place):
    affine = PLACES[place]
    series = DicomSeries(write_dicom(tmp_path, values(), affine))
    read = series.read()
    assert read.shape == (1, *series.grid.shape) == (1, 6, 5, 4)
    # slices may come in the reversed order, which is the same volume
    back = np.linalg.solve(affine, series.grid.affine)
    corner = back @ (0, 0, 0, 1)
    reversed_order = corner[2] > 1
    np.testing.assert_allclose(corner[:3], [0, 0, 3 if reversed_order else 0], atol=1e-6)
    np.testing.assert_allclose(back[:3, :3], np.diag([1, 1, -1 if reversed_order else 1]), atol=1e-6)
    np.testing.assert_array_equal(read[0], values()[..., ::-1] if reversed_order else values())


@pytest.mark.parametrize("place", PLACES)
def test_what_is_written_like_it_lies_where_itk_sees_it(tmp_path, place):
    folder = write_dicom(tmp_path, values(), PLACES[place])
    series = DicomSeries(folder)
    written = image_like(series.grid, series.read()[0])
    seen = itk.ReadImage(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    for index in ((0, 0, 0), (5, 4, 3), (1, 2, 0)):
        point = seen.TransformIndexToPhysicalPoint(index)
        ours = np.linalg.solve(to_lps(written.get_sform()), (*point, 1))[:3]
        np.testing.assert_allclose(ours, np.rint(ours), atol=1e-3)
        assert written.get_fdata()[tuple(np.rint(ours).astype(int))] == seen.GetPixel(index)


def test_a_tilted_gantry_gives_a_sheared_volume(tmp_path):
    sheared = np.diag([1.0, 1, 3, 1])
    sheared[1, 2] = 0.8
    series = DicomSeries(write_dicom(tmp_path, values(), sheared))
    np.testing.assert_allclose(np.abs(np.linalg.det(series.grid.affine)), 3)
    np.testing.assert_allclose(image_like(series.grid, values()).get_sform(), series.grid.affine, atol=1e-5)


def test_slope_and_intercept_of_each_slice_count(tmp_path):
    stored, slopes = values() % 4096, (1, 0.25, 2.5)
    series = DicomSeries(write_dicom(tmp_path, stored, np.diag([-1.0, -1, 1, 1]), slopes=slopes, intercept=-1024))
    expected = stored * np.array([slopes[number % 3] for number in range(4)]) - 1024
    np.testing.assert_allclose(series.read()[0], expected, rtol=1e-6)


def test_signed_numbers_of_16_bits(tmp_path):
    stored = values() - 32500
    series = DicomSeries(write_dicom(tmp_path, stored, np.diag([-1.0, -1, 1, 1]), signed=True))
    np.testing.assert_array_equal(series.read()[0], stored)


def test_other_files_and_the_index_of_the_medium_are_passed_over(tmp_path):
    folder = write_dicom(tmp_path / "series", values(), PERMUTED)
    (folder / "notes.txt").write_text("no slice")
    (folder / "DICOMDIR").write_bytes(next(folder.glob("IM*")).read_bytes())
    (folder / "deeper").mkdir()
    assert DicomSeries(folder).grid.shape == (6, 5, 4)


def test_a_single_slice_has_the_depth_that_it_names(tmp_path):
    series = DicomSeries(write_dicom(tmp_path, values((6, 5, 1)), np.diag([-1.0, -1, 1, 1]), SliceThickness="2.5"))
    assert series.grid.shape == (6, 5, 1)
    np.testing.assert_allclose(np.linalg.norm(series.grid.affine[:3, 2]), 2.5)


def test_a_number_of_frames_that_is_none_does_not_count(tmp_path):
    folder = write_dicom(tmp_path, values((6, 5, 1)), np.diag([-1.0, -1, 1, 1]), NumberOfFrames=1)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    assert b"IS\x02\x001 " in content
    file.write_bytes(content.replace(b"(\x00\x08\x00IS\x02\x001 ", b"(\x00\x08\x00IS\x02\x001A"))
    assert b"IS\x02\x001A" in file.read_bytes()
    assert DicomSeries(folder).grid.shape == (6, 5, 1)


def test_folders_that_are_no_volume_are_refused(tmp_path):
    from pydicom.uid import EnhancedMRImageStorage

    def two(folder):
        write_dicom(folder, values(), PERMUTED)
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"a{number}")
        return folder

    def damaged(folder):
        path = sorted(write_dicom(folder, values(), PERMUTED).iterdir())[0]
        path.write_bytes(path.read_bytes()[:-30])
        return folder

    twice = two(tmp_path / "phases")
    write_dicom(twice, values(), PERMUTED)
    several = two(tmp_path / "several")
    write_dicom(several, values(), PERMUTED, series="1.2.4")
    mixed = two(tmp_path / "mixed")
    write_dicom(mixed, values(), np.diag([-1.0, -1, 1, 1]))
    (tmp_path / "empty").mkdir()
    stored = values((6, 5, 9))
    for folder, message in (
        (write_dicom(tmp_path / "gap", stored, PERMUTED, skip=[4]), r"lacks slices, for most lie 2\.5 mm apart, but "),
        (write_dicom(tmp_path / "start", stored, PERMUTED, skip=[1]), "lacks slices"),
        (twice, "several slices at one place"),
        (
            several,
            r"2 DICOM series, 'series 1\.2\.3' .*, 'series 1\.2\.4' \(CT, 4 files\); of new images, ",
        ),
        (mixed, "slices of different size, spacing or direction"),
        (tmp_path / "empty", "is a folder without DICOM files"),
        (write_dicom(tmp_path / "nowhere", values(), PERMUTED, ImagePositionPatient=None), "does not say in "),
        (damaged(tmp_path / "cut"), "fetch it again if it is a slice"),
        (
            write_dicom(
                tmp_path / "enhanced",
                values((6, 5, 1)),
                PERMUTED,
                SOPClassUID=EnhancedMRImageStorage,
                NumberOfFrames=2,
                PixelData=bytes(6 * 5 * 2 * 2),
            ),
            r"holds several frames in one file, IM003, which is not read \(enhanced DICOM\)",
        ),
    ):
        with pytest.raises(UnreadableFileError, match=message):
            DicomSeries(folder).read()
