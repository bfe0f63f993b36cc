import numpy as np
import pytest
from PIL import Image
from tests.data.layouts import everyone, files_of, message, names, reverse_file_system
from tests.data.layouts_2d import make_isic, make_isic_plain

from medcalib.data import isic_cases, split_digest
from medcalib.errors import UserError
from medcalib.transforms import LoadPictured

OFFICIAL = "ISBI2016_ISIC_Part1"


@pytest.fixture
def root(tmp_path):
    return make_isic(tmp_path / "isic")


def sizes(split):
    return {part: len(cases) for part, cases in split.items()}


def test_the_official_folders(root):
    split = isic_cases(root)
    assert sizes(split) == {"training": 9, "validation": 1, "test": 3, "calibration": 1}
    for part, cases in split.items():
        folder = f"{OFFICIAL}_{'Test' if part == 'test' else 'Training'}"
        for case in cases:
            image, mask = files_of(case)
            assert image == root / f"{folder}_Data" / f"{case['case']}.jpg"
            assert mask == root / f"{folder}_GroundTruth" / f"{case['case']}_Segmentation.png"


def test_the_plain_folders_give_the_same_split(root, tmp_path):
    plain = make_isic_plain(tmp_path / "plain")
    split = isic_cases(plain)
    assert split_digest(split) == split_digest(isic_cases(root))
    for case in everyone(split):
        image, mask = files_of(case)
        assert image.is_file()
        assert mask.is_file()
        assert {image.parent.parent, mask.parent.parent} == {plain}


def test_masks_may_have_the_names_of_their_images(tmp_path):
    plain = make_isic_plain(tmp_path / "plain")
    expected = isic_cases(plain)
    for path in plain.glob("masks*/*.png"):
        path.rename(path.with_name(path.name.replace("_Segmentation", "")))
    split = isic_cases(plain)
    assert split_digest(split) == split_digest(expected)
    assert all(files_of(case)[1].stem == case["case"] for case in everyone(split))


def test_the_test_part_is_that_of_the_challenge(root):
    expected = sorted(path.stem for path in (root / f"{OFFICIAL}_Test_Data").iterdir())
    for seed in range(3):
        assert names(isic_cases(root, seed=seed)["test"]) == expected


def test_the_shares_of_the_real_set(tmp_path):
    folders = [tmp_path / f"{OFFICIAL}_{part}" for part in ("Training_Data", "Training_GroundTruth")]
    folders += [tmp_path / f"{OFFICIAL}_{part}" for part in ("Test_Data", "Test_GroundTruth")]
    for index, folder in enumerate(folders):
        folder.mkdir()
        for number in range(900) if index < 2 else range(900, 1279):
            (folder / f"ISIC_{number:07d}{'_Segmentation.png' if index % 2 else '.jpg'}").touch()
    assert sizes(isic_cases(tmp_path)) == {"training": 810, "validation": 90, "test": 379, "calibration": 90}


def test_does_not_depend_on_the_order_of_the_file_system(root, monkeypatch):
    expected = isic_cases(root)
    reverse_file_system(monkeypatch)
    assert isic_cases(root) == expected
    assert split_digest(isic_cases(root, seed=1)) != split_digest(expected)


def test_hidden_twins_are_passed_over(root):
    expected = isic_cases(root)
    (root / f"{OFFICIAL}_Training_Data" / "._ISIC_0000000.jpg").touch()
    (root / f"{OFFICIAL}_Training_GroundTruth" / "._ISIC_0000000_Segmentation.png").touch()
    assert isic_cases(root) == expected


def test_every_case_loads(root):
    load = LoadPictured(num_channels=3, label_map={255: 1})
    for case in everyone(isic_cases(root)):
        loaded = load(case)
        width, height = Image.open(case["image"]).size
        assert loaded["image"].shape == (3, width, height)
        assert loaded["label"].shape == (1, width, height)
        assert loaded["label"].unique().tolist() == [0, 1]
        inside = loaded["label"][0].bool()
        assert loaded["image"][:, inside].mean() < loaded["image"][:, ~inside].mean() - 50


class TestErrors:
    def test_missing_folder(self, tmp_path):
        text = message(isic_cases, tmp_path / "nowhere")
        assert "does not exist" in text
        assert "challenge.isic-archive.com" in text

    def test_other_folder(self, tmp_path):
        (tmp_path / "imagesTr").mkdir()
        text = message(isic_cases, tmp_path)
        assert f"0 cases matched {OFFICIAL}_Training_Data/*.jpg" in text
        assert "which holds imagesTr/" in text

    @pytest.mark.parametrize("make", [make_isic, make_isic_plain])
    def test_the_test_images_were_not_extracted(self, make, tmp_path):
        root = make(tmp_path)
        test = next(path for path in root.iterdir() if path.name.endswith(("Test_Data", "imgs_test")))
        for path in test.iterdir():
            path.unlink()
        assert f"0 cases matched {test.name}/*.jpg" in message(isic_cases, root)

    def test_image_without_mask(self, root):
        mask = root / f"{OFFICIAL}_Training_GroundTruth" / "ISIC_0000004_Segmentation.png"
        mask.unlink()
        text = message(isic_cases, root)
        assert text.startswith(f"Case 'ISIC_0000004' has no '{mask}' (9 cases matched")

    def test_mask_without_image(self, root):
        image = root / f"{OFFICIAL}_Test_Data" / "ISIC_0000010.jpg"
        image.unlink()
        assert message(isic_cases, root).startswith(f"Case 'ISIC_0000010' has no '{image}' (2 cases matched")

    def test_too_few_images(self, tmp_path):
        assert "cannot be divided" in message(isic_cases, make_isic(tmp_path, num_training=1))

    def test_mask_of_another_size(self, root):
        case = isic_cases(root)["training"][0]
        Image.fromarray(np.zeros((5, 7), np.uint8)).save(case["label"])
        with pytest.raises(UserError, match=rf"^Case {case['case']}: image and label differ .*{case['label']}\)\.$"):
            LoadPictured()(case)
