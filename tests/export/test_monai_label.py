"""An exported bundle has what the loader of MONAI Label reads, and gives it the segmentation of the bundle."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medcalib.export import export

# of class BundleConstants, and of BundleInferTask.__init__, in monailabel/tasks/infer/bundle.py of MONAI Label 0.8.5;
# the last of several ids that are there wins
CONFIG, METADATA, WEIGHTS = "configs/inference.yaml", "configs/metadata.json", "models/model.pt"
PREPROCESSING, POSTPROCESSING = ("preprocessing", "pre_transforms"), ("postprocessing", "post_transforms")
IDS = {"network_def": "PortableNetwork", "inferer": "SamplingInferer", "device": "device", "bundle_root": "str"}
NOT_THERE = ("detector", "detector_ops", "displayable_configs")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return export(trained, "bundle", output=tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def image_and_segmentation(trained, phantom_dir):
    case = sorted(path.name for path in (trained / "seed_12345" / "predictions").glob("phantom_*"))[0]
    seg = nib.load(trained / "seed_12345" / "predictions" / case / f"{case}_seg.nii.gz")
    return str(phantom_dir / "images" / f"{case}.nii.gz"), np.asarray(seg.dataobj)


def last_of(parser, ids):
    (*_, id_) = [id_ for id_ in ids if parser.get(id_)]
    return parser.get_parsed_content(id_, instantiate=True)


def test_what_the_loader_reads_is_there_and_gives_the_segmentation(exported, image_and_segmentation):
    parser = ConfigParser()
    parser.read_config(str(exported / CONFIG))
    parser.config["bundle_root"] = str(exported)
    assert {id_: type(parser.get_parsed_content(id_)).__name__ for id_ in IDS} == IDS
    assert not any(parser.get(id_) for id_ in NOT_THERE)
    about = json.loads((exported / METADATA).read_text())
    (key_image, image), *_ = about["network_data_format"]["inputs"].items()
    (key_pred, pred), *_ = about["network_data_format"]["outputs"].items()
    assert (key_image, key_pred, len(image["spatial_shape"])) == ("image", "pred", 3)
    assert {int(key): name for key, name in pred["channel_def"].items()} == {0: "background", 1: "organ", 2: "lesion"}
    assert about["description"]
    assert about["version"]

    file, segmentation = image_and_segmentation
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(exported / WEIGHTS, weights_only=True), strict=True)
    data = {"image": file, "device": "cpu"}
    for transform in last_of(parser, PREPROCESSING).transforms:
        data = transform(data)
    with torch.no_grad():
        data[key_pred] = parser.get_parsed_content("inferer")(inputs=data["image"][None], network=network.eval())[0]
    for transform in last_of(parser, POSTPROCESSING).transforms:
        data = transform(data)
    np.testing.assert_array_equal(np.asarray(data[key_pred])[0], segmentation)


def test_its_own_loader_gives_the_segmentation(exported, image_and_segmentation):
    bundle = pytest.importorskip("monailabel.tasks.infer.bundle")
    task = bundle.BundleInferTask(str(exported), {"preload": "false"}, skip_writer=True)
    assert task.is_valid()
    assert task.info()["labels"] == {"organ": 1, "lesion": 2}
    file, segmentation = image_and_segmentation
    _, data = task({"image": file, "device": "cpu"})
    np.testing.assert_array_equal(np.asarray(data["pred"]).squeeze(), segmentation)
