"""Folders as nnU-Net, version 2, leaves them: a cross-validation, its splits, and predictions of new cases."""

import json
import pickle

import numpy as np
from scipy.special import expit, softmax
from tests.predictions.predictions_on_disk import AFFINE, logits, save

DATASET = "Dataset900_Phantom"
FOLDS = {0: ["a_1", "b"], 1: ["007", "c"]}
NEW = ["n_1", "n_2"]
MEMBERS = ("by_fold_0", "by_fold_1", "by_fold_2")
LABELS = {"background": 0, "liver": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
SHAPE = (9, 8, 6)
# where nnU-Net found anything but zero
BOX = (slice(1, 9), slice(0, 8), slice(2, 5))


def _shape(cropped):
    return tuple(part.stop - part.start for part in BOX) if cropped else SHAPE


def probabilities(case, member=0, regions=False, cropped=True):
    """Over-confident probabilities (class, X, Y, Z), and what nnU-Net puts around its crop."""
    values = logits(case, 2 if regions else 3, _shape(cropped)).astype(float)
    if member:
        rng = np.random.default_rng([*(ord(letter) for letter in case), member])
        values += rng.normal(scale=1.5, size=values.shape)
    inside = expit(values) if regions else softmax(values, 0)
    if not cropped:
        return inside.astype(np.float32)
    whole = np.zeros((len(inside), *SHAPE), np.float32)
    whole[0] = 0 if regions else 1
    whole[:, *BOX] = inside
    return whole


def labels(case, regions=False, cropped=True):
    """A label map drawn from the calibrated probabilities, whose temperature is 2."""
    rng = np.random.default_rng([*(ord(letter) for letter in case), 1])
    values = logits(case, 2 if regions else 3, _shape(cropped)).astype(float)
    if regions:
        whole, core = rng.random(values.shape) < expit(values / 2)
        inside = whole + (whole & core).astype(np.uint8)
    else:
        truth = softmax(values / 2, 0)
        inside = (rng.random(truth.shape[1:]) > truth.cumsum(0)[:-1]).sum(0).astype(np.uint8)
    if not cropped:
        return inside
    whole = np.zeros(SHAPE, np.uint8)
    whole[BOX] = inside
    return whole


def segmentation(channels, regions=False):
    if not regions:
        return channels.argmax(0).astype(np.uint8)
    found = np.zeros(channels.shape[1:], np.uint8)
    for channel, label in zip(channels, (1, 2), strict=True):
        found[channel > 0.5] = label
    return found


def properties():
    """What SimpleITKIO remembers of an image, in LPS, and what the cropping adds."""
    to_lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    direction = to_lps[:3, :3] / spacing
    return {
        "sitk_stuff": {
            "spacing": tuple(map(float, spacing)),
            "origin": tuple(map(float, to_lps[:3, 3])),
            "direction": tuple(map(float, direction.ravel())),
        },
        "spacing": [float(size) for size in spacing[::-1]],
        "shape_before_cropping": SHAPE[::-1],
        "bbox_used_for_cropping": [[part.start, part.stop] for part in BOX[::-1]],
    }


def write_case(folder, case, channels, regions=False):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{case}.npz", probabilities=channels.transpose(0, 3, 2, 1))
    (folder / f"{case}.pkl").write_bytes(pickle.dumps(properties()))
    save(folder / f"{case}.nii.gz", segmentation(channels, regions))


def write_descriptions(folder, regions=False, reader="SimpleITKIO"):
    folder.mkdir(parents=True, exist_ok=True)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": REGIONS if regions else LABELS,
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    if regions:
        dataset["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(dataset))
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {},
        "foreground_intensity_properties_per_channel": {},
    }
    (folder / "plans.json").write_text(json.dumps(plans))


def results_dir(root):
    return root / "nnUNet_results" / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"


def preprocessed_dir(root):
    return root / "nnUNet_preprocessed" / DATASET


def write_nnunet(root, regions=False, folds=FOLDS, cropped=True):
    """A whole cross-validation, and the predictions of new cases by three networks; returns the results folder."""
    results, preprocessed = results_dir(root), preprocessed_dir(root)
    write_descriptions(results, regions)
    everyone = [case for cases in folds.values() for case in cases]
    for number, cases in folds.items():
        for case in cases:
            channels = probabilities(case, regions=regions, cropped=cropped)
            write_case(results / f"fold_{number}" / "validation", case, channels, regions)
        (results / f"fold_{number}" / "validation" / "summary.json").write_text("{}")
    splits = [
        {"train": [case for case in everyone if case not in cases], "val": cases} for _, cases in sorted(folds.items())
    ]
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    for case in everyone:
        save(preprocessed / "gt_segmentations" / f"{case}.nii.gz", labels(case, regions, cropped))
    for member, name in enumerate(MEMBERS, 1):
        write_descriptions(root / name, regions)
        for case in NEW:
            write_case(root / name, case, probabilities(case, member, regions, cropped), regions)
    for case in NEW:
        save(root / "labelsTs" / f"{case}.nii.gz", labels(case, regions, cropped))
    return results
