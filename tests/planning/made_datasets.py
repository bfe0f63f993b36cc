"""Tiny datasets in the layouts that people have."""

import json
import shutil

import numpy as np
from PIL import Image
from tests.data.layouts import blobs, scan, write_volume
from tests.data.layouts_2d import ellipse
from tests.image_files.written import write_dicom, write_nrrd

ORGANS = (
    *("spleen", "right_kidney", "left_kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
    *("inferior_vena_cava", "pancreas", "right_adrenal_gland", "left_adrenal_gland", "duodenum", "bladder", "prostate"),
)


def as_nnunet(task, folder, channel_names):
    """A Decathlon task in nnU-Net's layout, with the names that nnU-Net asks for."""
    description = json.loads((task / "dataset.json").read_text()) if (task / "dataset.json").exists() else {}
    for kind, suffix in (("images", "_0000"), ("labels", "")):
        (folder / f"{kind}Tr").mkdir(parents=True)
        for file in (task / f"{kind}Tr").glob("[!.]*.nii.gz"):
            name = file.name.removesuffix(".nii.gz")
            shutil.copyfile(file, folder / f"{kind}Tr" / f"{name}{suffix}.nii.gz")
    labels = description.get("labels", {"0": "background", "1": "Anterior", "2": "Posterior"})
    content = {
        "channel_names": channel_names,
        "labels": {name: int(value) for value, name in labels.items()},
        "numTraining": len(list((folder / "labelsTr").iterdir())),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def describe_decathlon(task, labels=("background", "Anterior", "Posterior"), **changes):
    """Write the ``dataset.json`` of a Decathlon task."""
    names = sorted(file.name for file in (task / "imagesTr").glob("[!.]*.nii.gz"))
    content = {
        "name": "Hippocampus",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {str(value): name for value, name in enumerate(labels)},
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
    }
    (task / "dataset.json").write_text(json.dumps(content | changes))
    return task


def make_partly_labelled(folder, num_cases=10, shape=(16, 14, 12), ignored=3):
    """MR of two organs in nnU-Net's layout, of which only some slices were labelled; one case has no label at all."""
    rng = np.random.default_rng(0)
    for number in range(num_cases):
        label = blobs(rng, shape, (1, 2))
        image = scan(rng, label, step=60.0)
        label[:, :, rng.permutation(shape[2])[: shape[2] // 3]] = ignored
        if number == num_cases - 1:
            label[:] = ignored
        for path, volume in ((f"imagesTr/p_{number:02}_0000", image), (f"labelsTr/p_{number:02}", label)):
            write_volume(folder / f"{path}.nii.gz", volume, axcodes="RAS")
    content = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "gland": 1, "nodule": 2, "ignore": ignored},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def make_abdomen(folder, num_cases=6, shape=(40, 40, 10)):
    """CT of 15 organs with left and right ones, slices 5 mm apart and pixels of 0.8 mm, in nnU-Net's layout."""
    rng = np.random.default_rng(0)
    for number in range(num_cases):
        label = blobs(rng, shape, range(1, len(ORGANS) + 1))
        image = np.rint(scan(rng, label, background=-1000, tissue=-50, step=10)).astype(np.int16)
        for path, volume in ((f"imagesTr/a_{number}_0000", image), (f"labelsTr/a_{number}", label)):
            write_volume(folder / f"{path}.nii.gz", volume, (0.8, 0.8, 5.0))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: value for value, name in enumerate(ORGANS, 1)}},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def make_pictures(folder, num_cases=8, size=(40, 32)):
    """Colour pictures with masks of 0 and 255."""
    rng = np.random.default_rng(0)
    for kind in ("pictures", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(num_cases):
        lesion = ellipse(rng, size)
        skin = np.where(lesion[..., None], (120, 70, 60), (225, 180, 160)) + rng.normal(0, 6, (*size, 3))
        Image.fromarray(skin.clip(0, 255).astype(np.uint8)).save(folder / "pictures" / f"p{number}.png")
        Image.fromarray(lesion.astype(np.uint8) * 255).save(folder / "masks" / f"p{number}.png")
    return folder


def make_palette_pictures(folder, numbers=(("train", 6), ("val", 2), ("test", 2)), size=(40, 32)):
    """Colour pictures in folders of the split, which name them alike, with masks of three classes and a palette."""
    rng = np.random.default_rng(0)
    for part, number in numbers:
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for place in range(number):
            inner = ellipse(rng, size)
            label = np.where(inner, 2, 0).astype(np.uint8)
            label[: size[0] // 4] = 1
            picture = 60 + 70 * label[..., None] + rng.normal(0, 6, (*size, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / part / "images" / f"{place:02}.png")
            mask = Image.fromarray(label, "P")
            # as VOC has it: the first classes are black, dark red and green
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            mask.save(folder / part / "labels" / f"{place:02}.png")
    return folder


def make_structures(folder, num_cases=5, shape=(24, 20, 12), nested=False):
    """CT with a file for each structure as TotalSegmentator writes them: the one that is not there is empty.

    Args:
        nested: whether the cyst lies in the liver, whose file has its voxels, too.
    """
    rng = np.random.default_rng(0)
    for number in range(num_cases):
        label = blobs(rng, shape, (1, 2, 3))
        image = np.rint(scan(rng, label, background=-1000, tissue=0, step=60)).astype(np.int16)
        write_volume(folder / f"s{number:04}" / "ct.nii.gz", image, (1.5, 1.5, 3.0))
        masks = {"liver": label >= 2 if nested else label == 2, "cyst": label == 3, "aorta": label == 1}
        masks["gallbladder"] = np.zeros(shape, bool)
        masks["gallbladder"][:2, :2, :2] = number != 0
        for name, mask in masks.items():
            path = folder / f"s{number:04}" / "segmentations" / f"{name}.nii.gz"
            write_volume(path, mask.astype(np.uint8), (1.5, 1.5, 3.0))
    return folder


def make_mixed_volumes(folder, num_cases=5, shape=(16, 14, 10)):
    """MR as series of DICOM slices, with labels in NRRD, made by `tests.image_files.written`, each turned otherwise."""
    rng = np.random.default_rng(0)
    for number in range(num_cases):
        label = blobs(rng, shape, (1, 2))
        image = np.rint(scan(rng, label)).clip(0).astype(np.int16)
        affine = np.diag([0.5 + number / 10, 0.6, 2.0, 1.0])
        write_dicom(folder / f"p{number}" / "MR", image, affine)
        write_nrrd(folder / f"p{number}" / "seg.nrrd", label, affine)
    return folder
