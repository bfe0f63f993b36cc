"""Which files belong to an image."""

import pytest

from medcalib.files.image_parts import image_parts, slice_files, voxel_files

META = "ObjectType = Image\nDimSize = 4 3 2\n"
NRRD = "NRRD0004\n# data file: not.raw\ntype: short\nsizes: 4 3 2\n"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.mhd", META + "ElementDataFile = a.raw\n", ["a.raw"]),
        ("a.mhd", META + "ElementDataFile=deeper/my voxels.zraw", ["deeper/my voxels.zraw"]),
        ("a.mhd", META.replace("\n", "\r\n") + "ElementDataFile = a.raw\r\n", ["a.raw"]),
        ("a.mha", META + "ElementDataFile = LOCAL\ndata file: b.raw\n", []),
        ("a.mhd", META + "ElementDataFile = LIST\na1.raw\na2.raw\n", ["a1.raw", "a2.raw"]),
        ("a.mhd", META + "ElementDataFile = a%03d.raw 1 2 1\n", []),
        ("a.nhdr", NRRD + "data file: a.raw\n\n", ["a.raw"]),
        ("a.nhdr", NRRD + "datafile: LIST\na1.raw\na2.raw\n", ["a1.raw", "a2.raw"]),
        ("a.nrrd", NRRD + "\ndata file: b.raw\n", []),
    ],
)
def test_headers_name_the_files_of_their_voxels(tmp_path, name, text, found):
    (tmp_path / name).write_bytes(text.encode())
    assert voxel_files(tmp_path / name) == [tmp_path / one for one in found]
    assert image_parts(tmp_path / name) == [tmp_path / name, *(tmp_path / one for one in found)]


def test_slices_are_known_by_their_content(tmp_path):
    for name in ("IM2", "IM1.dcm", ".hidden", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes.dcm").write_text("no slice")
    (tmp_path / "deeper").mkdir()
    assert slice_files(tmp_path) == image_parts(tmp_path) == [tmp_path / "IM1.dcm", tmp_path / "IM2"]
