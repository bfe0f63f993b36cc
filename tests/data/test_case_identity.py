"""Cases are known by their names and by what their files hold, wherever these lie."""

import gzip
import os
import shutil

import numpy as np
import pytest

from medcalib.data.case_identity import case_identities, file_digest, named_alike, shared_cases


@pytest.mark.parametrize("size", [0, 1, 65536, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_copies_are_equal_and_a_changed_byte_at_either_end_is_not(tmp_path, size):
    content = bytearray(np.random.default_rng(0).bytes(size))
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(content)
    shutil.copyfile(one, other)
    os.utime(other, (1, 1))
    assert file_digest(one) == file_digest(other)
    for place in {0, size - 1} if size else ():
        changed = bytearray(content)
        changed[place] ^= 1
        other.write_bytes(changed)
        assert file_digest(one) != file_digest(other)


def test_volumes_with_empty_ends_differ_by_their_middle(tmp_path):
    """Uncompressed volumes of heads begin and end with air."""
    for name, value in (("a", 1), ("b", 2)):
        volume = np.zeros((128, 128, 128), np.uint8)
        volume[32:96, 32:96, 32:96] = value
        (tmp_path / name).write_bytes(volume.tobytes())
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")


def test_a_compressed_file_differs_by_any_byte(tmp_path):
    """The checksum of everything stands at its end."""
    content = bytearray(np.random.default_rng(0).bytes(3 << 20))
    digests = set()
    for place in (None, 1 << 20, 2 << 20):
        if place:
            content[place] ^= 1
        (tmp_path / "a.gz").write_bytes(gzip.compress(content, 0, mtime=0))
        digests.add(file_digest(tmp_path / "a.gz"))
    assert len(digests) == 3


def test_parts_of_one_file_are_different_cases(tmp_path):
    path = tmp_path / "slide.png"
    path.write_bytes(b"picture")
    cases = [{"case": str(left), "image": str(path), "label": 1, "crop": [left, 0, 9, 9]} for left in range(3)]
    cases += [{"case": f"frame {frame}", "image": str(path), "label": 1, "frame": frame} for frame in range(3)]
    assert len({identity["image"] for identity in case_identities(cases)}) == 6


def test_channels_count_in_their_order(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(path.name)
    one, other = case_identities([{"case": "x", "image": paths}, {"case": "x", "image": paths[::-1]}])
    assert one["image"] != other["image"]
    assert one["label"] is None


def test_cases_are_shared_by_name_or_content():
    def case(name, image):
        return {"case": name, "image": image, "label": None}

    seen = [case("a", "1"), case("b", "2"), case("c", None)]
    assert shared_cases([case("a", "9"), case("x", "2"), case("y", None), case("z", "8")], seen) == ["a", "x"]


def test_other_patients_may_be_named_alike():
    """Where the image is not known, or one of image and label is the same, they are taken for the same."""

    def case(name, image, label):
        return {"case": name, "image": image, "label": label}

    seen = [case("a", "1", "1"), case("b", "2", "2"), case("c", "3", None), case("d", None, "4"), case("e", "5", "5")]
    cases = [case("a", "6", "6"), case("b", "7", "2"), case("c", "8", "8"), case("d", "9", "9"), case("e", "1", "7")]
    assert shared_cases(cases, seen) == list("abcde")
    assert named_alike(cases, seen) == ["a", "c"]


def test_voxels_beside_a_header_and_slices_in_a_folder_tell_images_apart(tmp_path):
    header, voxels, folder = tmp_path / "a.mhd", tmp_path / "a.raw", tmp_path / "series"
    header.write_text("ElementDataFile = a.raw\n")
    voxels.write_bytes(b"1")
    folder.mkdir()
    for name in ("IM1", "IM2"):
        (folder / name).write_bytes(bytes(128) + b"DICM" + name.encode())

    def digests():
        cases = [{"case": "a", "image": str(header)}, {"case": "b", "image": str(folder)}]
        return [one["image"] for one in case_identities(cases)]

    before = digests()
    assert None not in before
    (folder / "IM1").rename(folder / "renamed")
    assert digests() == before
    voxels.write_bytes(b"2")
    (folder / "IM2").write_bytes(bytes(128) + b"DICM" + b"other")
    assert not set(before) & set(digests())
    voxels.unlink()
    (folder / "IM2").unlink()
    (folder / "renamed").unlink()
    assert digests() == [None, None]
