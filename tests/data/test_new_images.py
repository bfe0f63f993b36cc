"""Which files are which case."""

import re

import nibabel as nib
import numpy as np
import pytest

from medcalib.data import images_name, new_image_cases
from medcalib.errors import UserError
from medcalib.transforms import LoadCased

NIFTI = (".nii.gz", ".nii")


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def cases(images, channels=("CT",), endings=NIFTI, series=False):
    split = new_image_cases(str(images), list(channels), endings, series)
    assert {part: found for part, found in split.items() if part != "test"} == {
        "training": [], "validation": [], "calibration": [],
    }  # fmt: skip
    return {case["case"]: case["image"] for case in split["test"]}


def test_a_folder_its_pattern_and_a_list_of_its_files_are_the_same_cases(tmp_path):
    folder = made(tmp_path / "scans", "b.nii", "a.nii.gz", ".hidden.nii", "notes.md", "deeper/c.nii")
    expected = {"a": str(folder / "a.nii.gz"), "b": str(folder / "b.nii")}
    (tmp_path / "list.txt").write_text("# two\nscans/a.nii.gz\n\nscans/b.nii  # the second\n")
    assert cases(folder) == cases(folder / "*.nii*") == cases(tmp_path / "list.txt") == expected
    assert list(cases(folder / "a.nii.gz")) == ["a"]
    assert list(cases(folder / "**" / "c.nii")) == ["c"]


def test_upper_case_endings_are_read_and_ids_keep_their_dots(tmp_path):
    assert list(cases(made(tmp_path, "P.1.NII.GZ"))) == ["P.1"]


def test_one_channel_loses_its_number_only_where_all_files_have_it(tmp_path):
    assert list(cases(made(tmp_path / "nnunet", "a_0000.nii", "b_0000.nii"))) == ["a", "b"]
    assert list(cases(made(tmp_path / "numbered", "a_0000.nii", "a_0001.nii"))) == ["a_0000", "a_0001"]


@pytest.mark.parametrize(
    "names",
    [
        ["x_0000.nii", "x_0001.nii", "x_0002.nii", "x_0003.nii"],
        ["x_t1.nii", "x_t1ce.nii", "x_t2.nii", "x_flair.nii"],
        ["x-T1.nii", "x.T1CE.nii", "x_T2.nii", "x-FLAIR.nii"],
    ],
)
def test_channels_by_number_and_by_name_come_in_the_order_of_the_fragment(tmp_path, names):
    folder = made(tmp_path, *names)
    assert cases(folder, ["T1", "T1CE", "T2", "FLAIR"]) == {"x": [str(folder / name) for name in names]}


def test_one_file_may_hold_all_channels(tmp_path):
    folder = made(tmp_path, "lesion.png", "lesion_2.JPG")
    found = cases(folder, ["red", "green", "blue"], (".png", ".jpg"))
    assert found == {"lesion": str(folder / "lesion.png"), "lesion_2": str(folder / "lesion_2.JPG")}


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        (["a.nii", "a.nii.gz"], ["CT"], "a.nii.* and .*a.nii.* would both be case 'a'"),
        (["a_0000.nii", "a_0001.nii", "a.nii"], ["T1", "T2"], "would both be case 'a'"),
        (["a_0000.nii", "a_t1.nii"], ["T1", "T2"], "would both be case 'a'"),
        (["a_0000.nii"], ["T1", "T2"], r"Case 'a' has no file of the channel T2, only .*a_0000\.nii"),
        (["a_0000.nii", "a_0001.nii", "a_0002.nii"], ["T1", "T2"], r"a_0002\.nii would be channel 2"),
        (["configs.nii"], ["CT"], "cannot be predicted under the name 'configs'"),
        (["notes.md"], ["CT"], r"No image lies in .*, which holds notes\.md; names of images end in \.nii\.gz, \.nii"),
    ],
)
def test_what_is_unclear_is_refused(tmp_path, names, channels, message):
    with pytest.raises(UserError, match=message):
        cases(made(tmp_path, *names), channels)


def sliced(folder, *names):
    for name in names or ("IM1", "IM2"):
        made(folder, name).joinpath(name).write_bytes(bytes(128) + b"DICM")
    return folder


def test_a_folder_of_slices_is_a_case_and_one_of_such_folders_holds_several(tmp_path):
    one, two = sliced(tmp_path / "one"), sliced(tmp_path / "t.2")
    made(tmp_path, "three.nii", "no slices/notes.txt")
    expected = {"one": str(one), "t.2": str(two)}
    assert cases(tmp_path, series=True) == expected | {"three": str(tmp_path / "three.nii")}
    assert cases(one, series=True) == {"one": str(one)}
    assert cases(tmp_path / "*", series=True) == cases(tmp_path, series=True)
    (tmp_path / "list.txt").write_text("one\nt.2/\n")
    assert list(cases(tmp_path / "list.txt", series=True)) == ["one", "t.2"]
    assert list(cases(tmp_path)) == ["three"]


def test_channels_may_be_folders_of_slices(tmp_path):
    folders = [sliced(tmp_path / "a_T1"), sliced(tmp_path / "a_FLAIR")]
    assert cases(tmp_path, ["FLAIR", "T1"], series=True) == {"a": [str(folders[1]), str(folders[0])]}


def test_slices_beside_images_and_slices_by_themselves_are_refused(tmp_path):
    sliced(tmp_path / "a")
    with pytest.raises(UserError, match="is a slice of a DICOM series; name the folder that holds all of them"):
        cases(tmp_path / "a" / "IM1", series=True)
    made(tmp_path / "a", "converted.nii")
    with pytest.raises(UserError, match=r"holds DICOM slices such as IM1, and converted\.nii"):
        cases(tmp_path / "a", series=True)
    made(tmp_path / "b", "notes.md")
    with pytest.raises(UserError, match=r"end in \.nii\.gz, \.nii, or they are folders of DICOM slices"):
        cases(tmp_path / "b", series=True)


def test_files_of_one_name_in_two_folders_are_refused_and_both_named(tmp_path):
    made(tmp_path, "one/a.nii", "two/a.nii")
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'one/a.nii'))} and .*two/a.nii would both be"):
        cases(tmp_path / "*" / "a.nii")


def test_a_list_that_names_a_missing_file_is_refused_with_its_line(tmp_path):
    (tmp_path / "list.txt").write_text("# scans\nmissing.nii\n")
    with pytest.raises(UserError, match=r"list\.txt names .*missing\.nii in line 2"):
        cases(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="names no file"):
        cases(tmp_path / "list.txt")


def test_results_are_named_after_the_images(tmp_path):
    made(tmp_path / "clinic", "a.nii.gz")
    assert images_name(str(tmp_path / "clinic")) == images_name(str(tmp_path / "clinic" / "*.nii")) == "clinic"
    assert images_name(str(tmp_path / "clinic" / "a.nii.gz")) == "a"


def test_two_channels_are_read_in_the_order_of_the_fragment_however_their_files_are_named(tmp_path):
    names = {"numbered": ("x_0000.nii", "x_0001.nii"), "named": ("x_adc.nii", "x_T2W.nii")}
    for folder, files in names.items():
        (tmp_path / folder).mkdir()
        for value, name in enumerate(files):
            nib.save(nib.Nifti1Image(np.full((3, 3, 2), value, np.int16), np.eye(4)), tmp_path / folder / name)
    for channels, order in ((["ADC", "T2w"], [0, 1]), (["T2w", "ADC"], [1, 0])):
        image = cases(tmp_path / "named", channels)["x"]
        assert LoadCased(num_channels=2)({"case": "x", "image": image})["image"].mean((1, 2, 3)).tolist() == order
        image = cases(tmp_path / "numbered", channels)["x"]
        assert LoadCased(num_channels=2)({"case": "x", "image": image})["image"].mean((1, 2, 3)).tolist() == [0, 1]
    with pytest.raises(UserError, match=r"Case 'x' has no file of the channel DWI, only .*x_T2W\.nii, .*x_adc\.nii"):
        cases(tmp_path / "named", ["ADC", "T2w", "DWI"])


def test_a_pattern_leaves_out_what_was_predicted(tmp_path):
    made(tmp_path, "a.nii.gz", "out/provenance.json", "out/a/a_seg.nii.gz", "out/a/a_entropy.nii.gz", "sub/b.nii.gz")
    assert list(cases(tmp_path / "**" / "*.nii.gz")) == ["a", "b"]
    # unless it is named
    assert list(cases(tmp_path / "out" / "a")) == ["a_entropy", "a_seg"]
    with pytest.raises(UserError, match="Only results of earlier predictions match"):
        cases(tmp_path / "out" / "**" / "*.nii.gz")


def test_images_in_the_folders_of_a_folder_are_pointed_to(tmp_path):
    folder = made(tmp_path / "scans", "p1/t1.nii.gz", "p2/t1.nii.gz", "p1.nii/notes.md")
    with pytest.raises(
        UserError, match=r"which holds p1\.nii/, p1/, p2/; for .*p1/t1\.nii\.gz, .* '.*scans/\*/\*\.nii"
    ):
        cases(folder)


def test_a_list_that_names_a_file_twice(tmp_path):
    made(tmp_path, "a.nii", "b.nii")
    (tmp_path / "list.txt").write_text("a.nii\nb.nii\na.nii\n")
    with pytest.raises(UserError, match=r"names .*a\.nii again in line 3; remove the line"):
        cases(tmp_path / "list.txt")
