"""Every mistake a user can make is one sentence that names its place, and leaves nothing behind."""

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from tests.data.layouts import make_hippocampus

from medcalib.bundle.run import run
from medcalib.errors import UserError


@pytest.fixture(scope="module")
def hippocampus_dir(tmp_path_factory):
    """Ten tiny cases in the layout of the Medical Segmentation Decathlon."""
    return make_hippocampus(tmp_path_factory.mktemp("msd") / "Task04_Hippocampus")


@pytest.fixture
def dataset(hippocampus_dir, tmp_path):
    return shutil.copytree(hippocampus_dir, tmp_path / "Task04_Hippocampus")


@pytest.fixture
def hippocampus(tmp_path, make_bundle):
    return make_bundle(tmp_path, data="hippocampus")


FAST = {
    "network::init_filters": 4,
    "network::blocks_down": [1, 1],
    "data::patch_size": [8, 8, 8],
    "data::max_epochs": 1,
}


def refused(bundle, message, mode="train", **settings):
    with pytest.raises(UserError, match=message) as caught:
        run(str(bundle), mode, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def case_file(dataset, folder, number=3):
    return dataset / folder / f"hippocampus_{number:03}.nii.gz"


def missing_folder(dataset):
    shutil.rmtree(dataset)


def empty_folder(dataset):
    shutil.rmtree(dataset)
    dataset.mkdir()


def other_layout(dataset):
    (dataset / "imagesTr").rename(dataset / "images")


def image_without_label(dataset):
    case_file(dataset, "labelsTr").unlink()


def other_shape(dataset):
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)), case_file(dataset, "labelsTr"))


def other_affine(dataset):
    path = case_file(dataset, "labelsTr")
    label = np.asarray(nib.load(path).dataobj)
    nib.save(nib.Nifti1Image(label, np.diag([1, 1, 2, 1])), path)


def cut_short(dataset):
    path = case_file(dataset, "imagesTr")
    path.write_bytes(path.read_bytes()[:2000])


def not_gzip(dataset):
    path = case_file(dataset, "imagesTr")
    path.write_bytes(gzip.decompress(path.read_bytes())[:100])


def strange_label(dataset):
    path = case_file(dataset, "labelsTr")
    label = np.asarray(nib.load(path).dataobj).copy()
    label[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(label, np.eye(4)), path)


def not_a_number(dataset, value=np.nan):
    path = case_file(dataset, "imagesTr")
    image = nib.load(path).get_fdata(dtype=np.float32).copy()
    image[0, 0, 0] = value
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)


def infinite(dataset):
    not_a_number(dataset, np.inf)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_folder, "Task04_Hippocampus.*does not exist"),
        (empty_folder, "Task04_Hippocampus"),
        (other_layout, "imagesTr"),
        (image_without_label, "hippocampus_003"),
        (other_shape, r"Case hippocampus_003: image and label differ in shape, \(12, 14, 12\) against \(5, 5, 5\)"),
        (other_affine, "Case hippocampus_003: the affines of image and label differ"),
        (cut_short, "Case hippocampus_003: .*imagesTr.hippocampus_003.nii.gz cannot be read"),
        (not_gzip, "Case hippocampus_003: .*imagesTr.hippocampus_003.nii.gz cannot be read"),
        (strange_label, "Case hippocampus_003: its label holds the value 7"),
        (not_a_number, "Case hippocampus_003: .*holds 1 NaN or Inf"),
        (infinite, "Case hippocampus_003: .*holds 1 NaN or Inf"),
    ],
)
def test_damaged_data(hippocampus, dataset, damage, message):
    damage(dataset)
    everything = {"data::cases::fractions": [0.8, 0.1, 0.1], "data::cases::seed": 0}
    refused(hippocampus, message, overrides=FAST | everything | {"data::dataset_dir": str(dataset)})
    assert not list(hippocampus.glob("seed_*"))


def test_damaged_data_read_by_a_worker_process(hippocampus, dataset):
    strange_label(dataset)
    settings = {"data::cases::fractions": [0.8, 0.1, 0.1], "data::cases::seed": 0, "data::dataset_dir": str(dataset)}
    settings |= {"train::dataset::cache_rate": 0.0, "num_workers": 1}
    refused(hippocampus, "^Case hippocampus_003: its label holds the value 7", overrides=FAST | settings)
    assert not list(hippocampus.glob("seed_*"))


@pytest.mark.parametrize(
    ("id_", "value", "message"),
    [
        ("data::max_epochs", "x", "^--data::max_epochs must be a whole number, not 'x'"),
        ("data::max_epochs", True, "^--data::max_epochs must be a whole number, not True"),
        ("data::batch_size", 0, "^--data::batch_size must be at least 1, not 0"),
        ("data::patch_size", "[8,8", r"^--data::patch_size must be a list, not '\[8,8'"),
        ("data::class_names", 3, "^--data::class_names must be a list, not 3"),
    ],
)
def test_override_that_cannot_be(hippocampus, id_, value, message):
    refused(hippocampus, message, overrides=FAST | {id_: value})
    assert not list(hippocampus.glob("seed_*"))


def test_bundle_that_does_not_exist(tmp_path, monkeypatch, make_bundle):
    monkeypatch.chdir(tmp_path)
    refused("phantom_x", "none under bundles; generate one")
    bundle = make_bundle(tmp_path)
    refused(bundle.name[:-2], f"did you mean {bundle.name}")


def test_folder_that_is_no_bundle(tmp_path):
    (tmp_path / "configs").mkdir()
    refused(tmp_path, "is not a bundle made by medcalib generate")


@pytest.mark.parametrize("seed", ["text", 1.5, -1, True])
def test_seed_that_is_no_number(bundle, seed):
    refused(bundle, "--seed must be a whole number", seed=seed)


def test_override_that_does_not_exist(bundle):
    refused(bundle, "--train::optimizer::l: torch.optim.AdamW takes no argument l; did you mean lr",
            overrides={"train::optimizer::l": 1})  # fmt: skip
    refused(bundle, "--num_bin does not exist .* did you mean num_bins", overrides={"num_bin": 1})
    refused(bundle, "--train::trainer::x::y does not exist", overrides={"train::trainer::x::y": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"data::networks::segresnet_ds::init_filters": 4},
            "read when a bundle is generated; write --network::<setting>",
        ),
        ({"data::network": {"init_filters": 4}}, "read when a bundle is generated"),
        ({"data::network::init_filters": 4, "network::init_filters": 8}, "init_filters is given twice, as 4 and 8"),
        ({"handlers": None}, "--handlers cannot be replaced as a whole.*--handlers::NAME=null"),
    ],
)
def test_override_that_would_do_nothing_or_too_much(bundle, settings, message):
    refused(bundle, message, overrides=settings)


def test_edited_bundle(bundle, tiny):
    path = bundle / "configs" / "data.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["max_epochs"] = 1
    path.write_text(yaml.safe_dump(content))
    refused(bundle, "edited since it was generated", overrides=tiny)
    assert not list(bundle.glob("seed_*"))
    for mode in ("train", "inference_eval"):
        run(str(bundle), mode, allow_edited=True, debug=True, overrides=tiny)
    summary = json.loads((bundle / "seed_12345_debug" / "evaluation" / "summary.json").read_text())
    assert summary["provenance"]["edited"] is True


def function(target, **arguments):
    return {"loss": {"function": {"_target_": target, **arguments}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (function("monai.losses.DiseLoss"), "monai.losses.DiseLoss' cannot be imported"),
        (function("monai.losses.DiceLoss", soft_max=True), "no argument soft_max; did you mean softmax"),
        (function("monai.losses.DiceLoss", softmax="@no::such"), "@no::such does not exist"),
        ({"+imports": ["$import torcht"]}, "torcht cannot be imported"),
    ],
)
def test_names_that_do_not_resolve(bundle, tiny, change, message):
    path = bundle / "configs" / "loss.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    refused(bundle, message, allow_edited=True, overrides=tiny)
    assert not list(bundle.glob("seed_*"))


@pytest.mark.parametrize("mode", ["inference_pred", "inference_eval"])
def test_inference_before_training(bundle, tiny, mode):
    message = refused(bundle, "is not trained with seed 3 yet", mode=mode, seed=3, overrides=tiny)
    assert f"--bundle {bundle} --mode train --seed 3" in message
    assert not list(bundle.glob("seed_*"))


def test_checkpoint_of_another_architecture(trained, tiny, tmp_path):
    """Of weights without a record, which would name the setting."""
    weights = trained / "seed_12345" / "models" / "model.pt"
    elsewhere = {"checkpoint": str(shutil.copy(weights, tmp_path)), "output_dir": str(tmp_path / "results")}
    with pytest.warns(UserWarning, match="does not say on which cases"):
        refused(trained, "model.pt holds the weights of another architecture", mode="inference_eval",
                overrides=tiny | elsewhere | {"network::init_filters": 8})  # fmt: skip
    assert not (tmp_path / "results").exists()


def test_damaged_checkpoint(trained, tiny, tmp_path):
    bundle = shutil.copytree(trained, tmp_path / trained.name)
    model = bundle / "seed_12345" / "models" / "model.pt"
    model.write_bytes(model.read_bytes()[:1000])
    refused(bundle, "model.pt is not a readable checkpoint", mode="inference_eval", overrides=tiny)


def test_training_with_other_settings_is_not_mixed(trained, tiny, tmp_path):
    bundle = shutil.copytree(trained, tmp_path / trained.name)
    checkpoint = torch.load(bundle / "seed_12345" / "models" / "checkpoint.pt", weights_only=True)
    more = tiny | {"train::trainer::max_epochs": 3, "train::optimizer::lr": 0.1}
    refused(bundle, r"was started with train::optimizer::lr=0\.002, not 0\.1", overrides=more)
    after = torch.load(bundle / "seed_12345" / "models" / "checkpoint.pt", weights_only=True)
    assert after["epoch"] == checkpoint["epoch"]


def test_output_folder_that_cannot_be_written(bundle, tiny):
    refused(bundle, "/proc/nowhere cannot be written .*--output_dir", overrides=tiny | {"output_dir": "/proc/nowhere"})


@pytest.mark.skipif(
    Path("/root").stat().st_uid == 0 and __import__("os").getuid() == 0, reason="root may write anywhere"
)
def test_read_only_bundle(bundle, tiny):
    bundle.chmod(0o555)
    refused(bundle, "cannot be written", overrides=tiny)
