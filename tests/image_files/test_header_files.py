"""MetaImage and NRRD: values, place in the patient, and what is refused."""

import numpy as np
import pytest
from tests.image_files.written import OBLIQUE, PERMUTED, orthogonal, to_lps, write_meta_image, write_nrrd

from medcalib.image_files.grids import image_like
from medcalib.image_files.header_files import HeaderFile
from medcalib.image_files.unreadable import UnreadableFileError

itk = pytest.importorskip("SimpleITK", reason="needs the extra images")


def values(shape=(5, 4, 3)):
    return np.random.default_rng(0).integers(-3000, 30000, shape).astype(np.int16)


WRITERS = {
    "a.mha": write_meta_image,
    "b.mha": lambda *given: write_meta_image(*given, packed=True),
    "c.mhd": lambda *given: write_meta_image(*given, beside="voxels.raw"),
    "d.mhd": lambda *given: write_meta_image(*given, beside="voxels.zraw", packed=True),
    "e.nrrd": write_nrrd,
    "f.nrrd": lambda *given: write_nrrd(*given, space="right-anterior-superior"),
    "g.nhdr": lambda *given: write_nrrd(*given, beside="voxels.raw"),
    "H.NHDR": lambda *given: write_nrrd(*given, beside="voxels.raw", space="left-anterior-superior"),
}


@pytest.mark.parametrize("affine", [orthogonal(OBLIQUE), PERMUTED], ids=["oblique", "permuted"])
@pytest.mark.parametrize("name", WRITERS)
def test_values_and_place_are_those_that_were_written(tmp_path, name, affine):
    path = WRITERS[name](tmp_path / name, values(), affine)
    file = HeaderFile(path)
    np.testing.assert_allclose(file.grid.affine, affine, atol=1e-9)
    np.testing.assert_array_equal(file.read(), values()[None].astype(np.float32))
    assert file.read().flags.c_contiguous
    assert (file.num_channels, file.has_channels) == (1, False)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_like_it_lies_where_itk_sees_it(tmp_path, name):
    path = WRITERS[name](tmp_path / name, values(), orthogonal(OBLIQUE))
    written = image_like(HeaderFile(path).grid, np.zeros((5, 4, 3), np.uint8))
    for index in ((0, 0, 0), (4, 3, 2), (1, 2, 0)):
        there = itk.ReadImage(str(path)).TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((to_lps(written.get_sform()) @ (*index, 1))[:3], there, atol=1e-4)
    np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-4)
    assert written.header.get_xyzt_units()[0] == "mm"


def test_a_sheared_nrrd_keeps_its_shear(tmp_path):
    sheared = PERMUTED @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    grid = HeaderFile(write_nrrd(tmp_path / "a.nrrd", values(), sheared)).grid
    np.testing.assert_allclose(grid.affine, sheared, atol=1e-9)
    np.testing.assert_allclose(image_like(grid, values()).get_sform(), sheared, atol=1e-5)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_vectors_and_frames_are_channels(tmp_path, ending):
    rng = np.random.default_rng(1)
    stored = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)  # (Z, Y, X, C)
    itk.WriteImage(itk.GetImageFromArray(stored, isVector=True), str(tmp_path / f"vector.{ending}"))
    itk.WriteImage(itk.GetImageFromArray(stored, isVector=False), str(tmp_path / f"frames.{ending}"))
    vector, frames = (HeaderFile(tmp_path / f"{name}.{ending}") for name in ("vector", "frames"))
    np.testing.assert_array_equal(vector.read(), stored.transpose(3, 2, 1, 0))
    np.testing.assert_array_equal(frames.read(), stored.transpose(0, 3, 2, 1))
    np.testing.assert_array_equal(vector.read(channel=2), stored.transpose(3, 2, 1, 0)[2:3])
    assert (vector.grid.shape, vector.num_channels, vector.has_channels) == ((4, 3, 2), 5, True)
    assert (frames.grid.shape, frames.num_channels, frames.has_channels) == ((5, 4, 3), 2, True)


def test_a_slice_of_two_axes(tmp_path):
    stored = np.arange(12, dtype=np.float64).reshape(3, 4)
    itk.WriteImage(itk.GetImageFromArray(stored), str(tmp_path / "a.mha"))
    file = HeaderFile(tmp_path / "a.mha")
    np.testing.assert_array_equal(file.read(), stored.T[None])
    assert file.grid.shape == (4, 3)


def damaged(folder):
    def cut(path, number):
        path.write_bytes(path.read_bytes()[:-number])
        return path

    yield cut(write_meta_image(folder / "a.mha", values(), PERMUTED), 5), "cannot read all of its voxels"
    yield cut(write_meta_image(folder / "b.mha", values(), PERMUTED, packed=True), 5), "cannot read all of its voxels"
    yield cut(write_nrrd(folder / "c.nrrd", values(), PERMUTED), 5), "cannot read all of its voxels"
    lone = write_meta_image(folder / "d.mhd", values(), PERMUTED, beside="gone.raw")
    (folder / "gone.raw").unlink()
    yield lone, r"has its voxels in gone\.raw, which is not there; put that file beside it"
    lone = write_nrrd(folder / "e.nhdr", values(), PERMUTED, beside="gone.raw")
    (folder / "gone.raw").unlink()
    yield lone, r"has its voxels in gone\.raw, which is not there"
    for name in ("f.mha", "f.nrrd"):
        (folder / name).write_text("<!DOCTYPE html>" + " " * 600)
        yield folder / name, "SimpleITK finds no header"
    (folder / "g.nrrd").touch()
    yield folder / "g.nrrd", "SimpleITK finds no header"
    complex_numbers = itk.Image([4, 3, 2], itk.sitkComplexFloat32)
    itk.WriteImage(complex_numbers, str(folder / "h.nrrd"))
    yield folder / "h.nrrd", "complex numbers"


def test_damaged_files_are_refused(tmp_path):
    for path, message in damaged(tmp_path):
        with pytest.raises(UnreadableFileError, match=message):
            HeaderFile(path).read()
    with pytest.raises(FileNotFoundError):
        HeaderFile(tmp_path / "missing.mha")
