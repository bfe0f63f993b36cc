"""Labels that have a file, or a channel, for each structure."""

import numpy as np
import pytest
from tests.data.layouts import message, names, write_volume

from medcalib.data import pattern_cases
from medcalib.data.case_identity import case_identities
from medcalib.errors import UserError
from medcalib.transforms.loading import LoadCased

PATTERNS = {"image": "{case}/ct.nii.gz", "label": "{case}/segmentations/{class}.nii.gz"}
NAMES = ["background", "aorta", "liver", "spleen"]
SHAPE = (6, 5, 4)


def masks():
    found = {name: np.zeros(SHAPE, np.uint8) for name in NAMES[1:]}
    found["aorta"][1:3] = 1
    found["liver"][2:4] = 1
    return found


@pytest.fixture
def root(tmp_path):
    """Five cases; aorta and liver share a slice, and the file of the spleen is empty."""
    for number in range(5):
        write_volume(tmp_path / f"s{number}" / "ct.nii.gz", np.zeros(SHAPE, np.int16))
        for name, mask in masks().items():
            write_volume(tmp_path / f"s{number}" / "segmentations" / f"{name}.nii.gz", mask)
    return tmp_path


def first(root, **options):
    split = pattern_cases(root, **(PATTERNS | {"class_names": NAMES} | options))
    return next(case for part in split.values() for case in part if case["case"] == "s0")


def test_a_later_class_wins(root):
    case = first(root)
    assert [path.rpartition("/")[2] for path in case["label"]] == ["aorta.nii.gz", "liver.nii.gz", "spleen.nii.gz"]
    label = LoadCased()(case)["label"]
    expected = np.zeros(SHAPE)
    expected[1:3] = 1
    expected[2:4] = 2
    np.testing.assert_array_equal(label[0].numpy(), expected)
    turned = LoadCased()(first(root, class_names=["background", "liver", "aorta", "spleen"]))["label"]
    assert (turned[0, 2] == 2).all()  # the aorta now


def test_structures_that_overlap_are_channels(root):
    label = LoadCased()(first(root, class_names=NAMES[1:], overlap="channels"))["label"]
    np.testing.assert_array_equal(label.numpy(), np.stack(list(masks().values())))


def test_a_pattern_for_each_structure_by_its_name(root):
    patterns = {name: f"{{case}}/segmentations/{name}.nii.gz" for name in ("spleen", "liver", "aorta")}
    assert first(root, label=patterns) == first(root)
    some = first(root, label={"liver": patterns["liver"]}, class_names=["background", "liver"])
    assert set(LoadCased()(some)["label"].flatten().tolist()) == {0, 1}
    with pytest.raises(UserError, match="'livre', which is no structure of data::class_names; did you mean liver"):
        first(root, label={"livre": patterns["liver"]})


def test_a_structure_without_file_is_refused_unless_it_is_said_to_be_absent(root):
    (root / "s0" / "segmentations" / "aorta.nii.gz").unlink()
    told = message(pattern_cases, root, **PATTERNS, class_names=NAMES)
    assert "Case 's0' has no '" in told
    assert "aorta.nii.gz', so nobody knows whether it lacks the structure or its file" in told
    case = first(root, missing_structures="absent")
    assert case["structures"] == "2,3"
    assert set(LoadCased()(case)["label"].flatten().tolist()) == {0, 2}
    channels = LoadCased()(first(root, missing_structures="absent", class_names=NAMES[1:], overlap="channels"))
    assert channels["label"].sum((1, 2, 3)).tolist() == [0, 40, 0]


def test_a_case_without_any_structure_has_no_label(root):
    for name in NAMES[1:]:
        (root / "s0" / "segmentations" / f"{name}.nii.gz").unlink()
    options = {**PATTERNS, "class_names": NAMES, "missing_structures": "absent"}
    assert "Case 's0' has no file of any structure" in message(pattern_cases, root, **options)
    split = pattern_cases(root, **options, skip_unlabelled=True)
    assert "s0" not in [name for cases in split.values() for name in names(cases)]


def test_channels_of_one_file(root):
    for number in range(5):
        channels = list(masks().values())
        background = 1 - np.clip(sum(channels), 0, 1)
        write_volume(root / f"s{number}" / "all.nii.gz", np.stack([background, *channels], -1).astype(np.uint8))
    options = {"label": "{case}/all.nii.gz", "label_channels": NAMES}
    label = LoadCased()(first(root, **options))["label"]
    assert label.equal(LoadCased()(first(root))["label"])
    told = message(LoadCased(), first(root, label="{case}/all.nii.gz", label_channels=NAMES[1:]))
    assert "all.nii.gz has 4 channel(s), but data::cases gives 3 classes to them" in told


def test_files_that_lie_elsewhere_or_mark_several_structures_are_named(root):
    place = root / "s0" / "segmentations" / "liver.nii.gz"
    write_volume(place, masks()["liver"], spacing=(2, 1, 1))
    assert "liver.nii.gz" in message(LoadCased(), first(root))
    write_volume(place, masks()["liver"][:4])
    assert "differ in shape" in message(LoadCased(), first(root))
    write_volume(place, masks()["liver"] + 2 * masks()["aorta"])
    told = message(LoadCased(), first(root))
    assert "liver.nii.gz holds the values 1, 2, 3, but what marks one structure has one value beside 0" in told


def test_what_holds_other_structures_is_another_case(root):
    one, other = case_identities([first(root), first(root, class_names=["background", "liver", "aorta", "spleen"])])
    assert one["image"] == other["image"]
    assert one["label"] not in (None, other["label"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"class_names": []}, "needs|class_names"),
        ({"overlap": "both"}, "has overlap: 'both', but it must be one of later, channels"),
        ({"missing_structures": "empty"}, "missing_structures: 'empty'"),
        ({"label_channels": ["liver"]}, "label_channels beside one file"),
    ],
)
def test_options_that_cannot_be(options, told, root):
    with pytest.raises(UserError, match=told):
        first(root, **options)
