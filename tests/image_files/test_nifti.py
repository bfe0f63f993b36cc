"""NIfTI files as people have them: read right, or refused in one sentence."""

import gzip
import struct
import warnings

import nibabel as nib
import numpy as np
import pytest
from tests.image_files.headers import header, patch, write

from medcalib.errors import UserError
from medcalib.image_files.nifti import NiftiFile
from medcalib.transforms import LoadCased

SHAPE = (5, 4, 3)
DIM, DATATYPE, SLOPE, SROW_X, OFFSET = 40, 70, 112, 280, 108


def values(dtype=np.float32, shape=SHAPE):
    return (np.random.default_rng(0).normal(size=shape) * 100).astype(dtype)


def load(path, **keys):
    return LoadCased()({"case": "a", "image": str(path)} | keys)["image"]


def sentence(path, **keys):
    with pytest.raises(UserError) as caught:
        load(path, **keys)
    text = str(caught.value)
    assert text.startswith(f"Case a: {path} ")
    assert text.endswith(".")
    assert "\n" not in text
    return text.removeprefix(f"Case a: {path} ")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_values_are_those_of_nibabel(dtype, kind, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    nib.save(kind(values(dtype), np.diag([2, 2, 3, 1]), dtype=dtype), path)
    np.testing.assert_array_equal(load(path)[0].numpy(), nib.load(path).get_fdata(dtype=np.float32))


def test_values_of_the_other_byte_order(tmp_path):
    head = nib.Nifti1Header(endianness=">")
    head.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(values(np.int16), np.eye(4), head), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(load(tmp_path / "a.nii.gz")[0].numpy(), values(np.int16))


def test_slope_and_intercept_are_applied(tmp_path):
    path = tmp_path / "a.nii.gz"
    head = nib.Nifti1Header()
    head.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(values(np.float64), np.eye(4), head), path)
    content = gzip.decompress(path.read_bytes())
    assert struct.unpack("<f", content[SLOPE : SLOPE + 4])[0] not in (0, 1)
    np.testing.assert_array_equal(load(path)[0].numpy(), nib.load(path).get_fdata(dtype=np.float32))


def test_channels_come_first(tmp_path):
    path = write(tmp_path / "a.nii.gz", values(shape=(5, 4, 3, 2)))
    np.testing.assert_array_equal(load(path).numpy(), np.moveaxis(values(shape=(5, 4, 3, 2)), -1, 0))
    path = write(tmp_path / "v.nii.gz", values(shape=(5, 4, 3, 1, 2)))  # as ITK writes vectors
    np.testing.assert_array_equal(load(path).numpy(), np.moveaxis(values(shape=(5, 4, 3, 2)), -1, 0))
    flat = write(tmp_path / "f.nii.gz", values(shape=(5, 4)))
    assert load(flat).shape == (1, 5, 4)


@pytest.mark.parametrize(("name", "packed"), [("a.nii.gz", False), ("a.nii", True)])
def test_content_counts_and_not_the_name(name, packed, tmp_path):
    """macOS unpacks what a browser loads and may keep the name; people pack and rename."""
    source = tmp_path / ("b.nii.gz" if packed else "b.nii")
    write(source, values())
    source.rename(tmp_path / name)
    np.testing.assert_array_equal(load(tmp_path / name)[0].numpy(), values())


class TestDamage:
    def test_a_flipped_byte_anywhere_in_a_gzip_stream_is_found(self, tmp_path):
        """In the header, in what decodes to voxels, and in the checksum; a code that no voxel uses does not matter."""
        path = tmp_path / "a.nii.gz"
        write(path, np.arange(1500, dtype=np.int16).reshape(30, 10, 5) // 7)
        whole = path.read_bytes()
        content = gzip.decompress(whole)
        expected = load(path)
        start = whole.index(b"\0", 10) + 1 if whole[3] & 8 else 10  # time and name are no content
        places = [*range(start, len(whole) - 8, 7), *range(len(whole) - 8, len(whole))]
        passed = []
        for place in places:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << (place % 8)
            path.write_bytes(bytes(flipped))
            try:
                assert (load(path) == expected).all()
                assert gzip.decompress(flipped) == content
                passed.append(place)
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017
        assert len(passed) < len(places) / 20

    def test_a_flipped_byte_after_the_voxels_is_found(self, tmp_path):
        path = tmp_path / "a.nii.gz"
        write(path, values())
        content = gzip.decompress(path.read_bytes()) + bytes(1000)
        whole = gzip.compress(content)
        path.write_bytes(whole)
        np.testing.assert_array_equal(load(path)[0].numpy(), values())
        path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
        assert "its checksum does not fit its content" in sentence(path)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.97])
    @pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
    def test_cut_short(self, suffix, share, tmp_path):
        path = tmp_path / f"a.{suffix}"
        write(path, values())
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        assert "cut short" in sentence(path)

    @pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
    @pytest.mark.parametrize(
        ("place", "content", "reason"),
        [
            (DIM, struct.pack("<h", -1), "its header says that it has -1 axes"),
            (DIM, struct.pack("<h", 9), "its header says that it has 9 axes"),
            (DIM + 2, struct.pack("<h", -5), "it has 3 axes of -5 x 4 x 3 voxels"),
            (DIM + 4, struct.pack("<h", 0), "it has 3 axes of 5 x 0 x 3 voxels"),
            (DATATYPE, struct.pack("<h", 9999), "its header is damaged: data code 9999 not recognized"),
            (DIM, struct.pack("<4h", 3, 1300, 1300, 1000), "its header promises voxels of 6,760,000,000 bytes, but"),
            (OFFSET, struct.pack("<f", np.nan), "its header is damaged"),
            (SROW_X, struct.pack("<f", np.nan), "has NaN or Inf in its sform"),
            (SLOPE, struct.pack("<f", np.nan), "has scl_slope nan and scl_inter 0"),
            (SLOPE + 4, struct.pack("<f", np.inf), "has scl_slope 1 and scl_inter inf"),
        ],
    )
    def test_headers(self, place, content, reason, suffix, tmp_path):
        path = tmp_path / f"a.{suffix}"
        write(path, values())
        patch(path, place, content)
        assert reason in sentence(path)

    def test_a_slope_of_0_is_none(self, tmp_path):
        path = tmp_path / "a.nii.gz"
        write(path, values())
        patch(path, SLOPE, struct.pack("<2f", 0, np.nan))
        np.testing.assert_array_equal(load(path)[0].numpy(), values())

    def test_colours_and_complex_numbers(self, tmp_path):
        colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
        write(tmp_path / "a.nii.gz", colours)
        assert "holds colours" in sentence(tmp_path / "a.nii.gz")
        write(tmp_path / "c.nii.gz", values().astype(np.complex64))
        assert "holds complex numbers" in sentence(tmp_path / "c.nii.gz")

    def test_more_axes_than_a_volume_has(self, tmp_path):
        write(tmp_path / "a.nii.gz", np.zeros((4, 4, 4, 2, 3), np.uint8))
        assert "has axes of 4 x 4 x 4 x 2 x 3 voxels" in sentence(tmp_path / "a.nii.gz")

    def test_a_flat_sform(self, tmp_path):
        write(tmp_path / "a.nii.gz", values(), header(np.diag([1.0, 1, 0, 1])))
        assert "has an unusable sform (its voxels have no volume)" in sentence(tmp_path / "a.nii.gz")

    def test_a_negative_size_in_pixdim_is_a_size(self, tmp_path):
        path = tmp_path / "a.nii.gz"
        write(path, values(), header(qform=np.diag([2.0, 2, 3, 1])))
        patch(path, 80, struct.pack("<f", -2))
        assert load(path).pixdim.tolist() == [2, 2, 3]


class TestOtherFormats:
    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.mgz", b"\x1f\x8b", "convert it with mri_convert of FreeSurfer"),
            ("IM1.dcm", b"", "name the folder that holds the slices of its series"),
            ("a.img", b"", "convert it with nibabel"),
            ("a.npy", b"", "convert it with nibabel, from its array"),
            ("a.png", b"", "pictures are read by medcalib.transforms.LoadPictured"),
            ("IM1", bytes(128) + b"DICM" + bytes(600), "is a DICOM file by its content"),
            ("a.nii.gz", b"NRRD0004\n" + bytes(600), "is an NRRD file by its content"),
            ("a.nii.gz", b"<!DOCTYPE html>" + b" " * 600, "cannot be read (it is no NIfTI file"),
            ("a.nii.gz", b"", "cannot be read (its content of 0 bytes is shorter than a header)"),
        ],
    )
    def test_what_to_do_is_said(self, name, content, reason, tmp_path):
        (tmp_path / name).write_bytes(content)
        text = sentence(tmp_path / name)
        assert reason in text
        assert "Reader" not in text
        assert "allow_pickle" not in text

    def test_a_folder_of_slices(self, tmp_path):
        (tmp_path / "series").mkdir()
        assert "is a folder without DICOM files" in sentence(tmp_path / "series")

    def test_mgh_files_by_nibabel(self, tmp_path):
        nib.save(nib.MGHImage(values(), np.eye(4)), tmp_path / "a.mgz")
        assert "mri_convert" in sentence(tmp_path / "a.mgz")


def test_shapes_are_compared_before_voxels_are_read(tmp_path, monkeypatch):
    image = write(tmp_path / "i.nii.gz", values())
    label = write(tmp_path / "l.nii.gz", values(shape=(5, 4, 2)))

    def read(*_):
        raise AssertionError("voxels were read")

    monkeypatch.setattr(NiftiFile, "read", read)
    with pytest.raises(UserError, match=r"image and label differ in shape, \(5, 4, 3\) against \(5, 4, 2\)"):
        LoadCased()({"case": "a", "image": image, "label": label})
    with pytest.raises(UserError, match="the channels differ in shape"):
        LoadCased()({"case": "a", "image": [image, label]})


def test_reading_warns_of_nothing(tmp_path):
    path = write(tmp_path / "a.nii.gz", np.full(SHAPE, 1e300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "holds 60 NaN or Inf" in sentence(path)


def test_memory_that_is_not_there_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii.gz", values())

    def empty(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", empty)
    assert sentence(path).startswith("does not fit into memory; ")
