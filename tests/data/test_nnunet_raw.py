"""Datasets in nnU-Net's layout are listed, and divided as the same cases are in the Decathlon's layout."""

import json

import pytest
from tests.data.layouts import make_hippocampus
from tests.planning.made_datasets import as_nnunet

from medcalib.data import decathlon_cases, nnunet_cases, split_digest
from medcalib.data.sets.nnunet_raw import nnunet_files
from medcalib.errors import UserError


@pytest.fixture
def hippocampus(tmp_path):
    return make_hippocampus(tmp_path / "Task04_Hippocampus")


@pytest.fixture
def dataset(hippocampus, tmp_path):
    return as_nnunet(hippocampus, tmp_path / "nnUNet_raw" / "Dataset004_Hippocampus", {"0": "MRI"})


def ids(split):
    return {part: [case["case"] for case in cases] for part, cases in split.items()}


def test_the_division_is_that_of_the_decathlon(hippocampus, dataset):
    assert ids(nnunet_cases(dataset)) == ids(decathlon_cases(hippocampus))
    assert split_digest(nnunet_cases(dataset)) == split_digest(decathlon_cases(hippocampus))


def test_labels_of_test_images_make_the_test_part(dataset):
    for kind in ("images", "labels"):
        (dataset / f"{kind}Ts").mkdir()
    for name in ("hippocampus_009", "hippocampus_010"):
        (dataset / "imagesTr" / f"{name}_0000.nii.gz").rename(dataset / "imagesTs" / f"{name}_0000.nii.gz")
        (dataset / "labelsTr" / f"{name}.nii.gz").rename(dataset / "labelsTs" / f"{name}.nii.gz")
    change(dataset, numTraining=8)
    assert ids(nnunet_cases(dataset))["test"] == ["hippocampus_009", "hippocampus_010"]
    folds = [{"train": [f"hippocampus_00{n}" for n in range(1, 7)], "val": ["hippocampus_007", "hippocampus_008"]}]
    (dataset / "splits_final.json").write_text(json.dumps(folds))
    split = ids(nnunet_cases(dataset, splits="splits_final.json"))
    assert split["validation"] == folds[0]["val"]
    assert split["test"] == ["hippocampus_009", "hippocampus_010"]
    (dataset / "labelsTs" / "hippocampus_010.nii.gz").unlink()
    assert nnunet_files(dataset).without_label == ["hippocampus_010"]
    assert ids(nnunet_cases(dataset))["test"] == ["hippocampus_009"]


def test_files_that_dataset_json_lists_may_lie_anywhere(hippocampus, dataset):
    listed = {
        f"case_{n}": {
            "images": [f"../../Task04_Hippocampus/imagesTr/hippocampus_{n:03}.nii.gz"],
            "label": f"../../Task04_Hippocampus/labelsTr/hippocampus_{n:03}.nii.gz",
        }
        for n in range(1, 6)
    }
    change(dataset, dataset=listed, numTraining=5)
    assert [case["case"] for case in nnunet_files(dataset).training] == sorted(listed)
    assert nnunet_files(dataset).training[0]["image"] == str(hippocampus / "imagesTr" / "hippocampus_001.nii.gz")


def change(folder, **changes):
    content = json.loads((folder / "dataset.json").read_text()) | changes
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_ending": None}, "lacks file_ending"),
        ({"file_ending": ".mha"}, r"0 cases matched imagesTr/\*_0000.mha"),
        ({"channel_names": None}, "lacks channel_names"),
        ({"numTraining": 11}, "says numTraining 11, but there are 10 training cases"),
        ({"dataset": {"a": {}}}, "lists case 'a' without 'images' and 'label'"),
    ],
)
def test_a_dataset_json_that_contradicts_the_files(changes, message, dataset):
    change(dataset, **changes)
    with pytest.raises(UserError, match=message):
        nnunet_cases(dataset)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("dataset.json", "lacks dataset.json"),
        ("labelsTr/hippocampus_002.nii.gz", "'hippocampus_002' has no .*labelsTr"),
    ],
)
def test_missing_files(missing, message, dataset):
    (dataset / missing).unlink()
    with pytest.raises(UserError, match=message):
        nnunet_cases(dataset)


def test_a_missing_channel(dataset):
    image = dataset / "imagesTr" / "hippocampus_003_0000.nii.gz"
    image.rename(dataset / "imagesTr" / "hippocampus_003_0001.nii.gz")
    with pytest.raises(UserError, match="Case 'hippocampus_003' has no channel 0000"):
        nnunet_cases(dataset)
    image.with_name("hippocampus_003_0001.nii.gz").rename(image)
    (dataset / "imagesTr" / "hippocampus_004_0001.nii.gz").symlink_to(image)
    with pytest.raises(UserError, match="'hippocampus_004' has 2 files of channels, but .* lists 1 channel_names"):
        nnunet_cases(dataset)
