"""Predictions of any program are read, compared and written as bundles read, compare and write theirs."""

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.image_files.headers import KINDS, header, write
from tests.image_files.test_grids import same_header

from medcalib.errors import UserError
from medcalib.predictions import PredictionFolder, calibrate_predictions

SHAPE = (8, 7, 6)
ACDC = KINDS["unit sform"]
AFFINE_ALONE = header(np.diag([-1.0, -1, 1, 1]))  # of a program that writes nothing but what nibabel calls the affine
SIZED = header(np.diag([-2.0, -2, 3, 1]), np.diag([-2.0, -2, 3, 1]))  # of a program that takes pixdim for the truth


def label(seed=0):
    return np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8)


def probabilities(seed=0):
    return (np.eye(3, dtype=np.float32)[label(seed)] * 0.7 + 0.1).astype(np.float32)


def folders(root, prediction=ACDC, truth=ACDC, cases=("a",)):
    for name in ("p", "l"):
        (root / name).mkdir()
    for seed, case in enumerate(cases):
        write(root / "p" / f"{case}.nii.gz", probabilities(seed), prediction)
        write(root / "l" / f"{case}.nii.gz", label(seed), truth)
    return root / "p", root / "l"


@pytest.mark.parametrize("prediction", [ACDC, AFFINE_ALONE, SIZED], ids=["header", "affine", "sized"])
def test_predictions_of_acdc_lie_on_its_labels(prediction, tmp_path):
    predicted = PredictionFolder(*folders(tmp_path, prediction), "probabilities").read("a")
    assert torch.equal(predicted.logits[0].argmax(0), predicted.labels[0, 0])


@pytest.mark.filterwarnings("ignore:.*its sform says voxels")
@pytest.mark.parametrize("kind", KINDS)
def test_every_header_lies_with_itself(kind, tmp_path):
    PredictionFolder(*folders(tmp_path, KINDS[kind], KINDS[kind]), "probabilities").read("a")


def test_another_place_is_refused(tmp_path):
    moved = header(np.diag([-2.0, -2, 3, 1]) + 5 * np.eye(4, k=3))
    with pytest.raises(UserError, match="differ, by 2.5 voxels at a corner"):
        PredictionFolder(*folders(tmp_path, moved), "probabilities").read("a")


@pytest.mark.parametrize("kind", ["unit sform", "sform moved against qform", "qform only"])
def test_calibrated_predictions_lie_where_they_lay(kind, tmp_path):
    predictions, labels = folders(tmp_path, KINDS[kind], KINDS[kind], cases=("a", "b"))
    calibrate_predictions(
        predictions, labels, tmp_path / "out", kind="probabilities", calibration_cases="a", cases="b", evaluate=False
    )
    same_header(predictions / "b.nii.gz", tmp_path / "out" / "predictions" / "b" / "b_prob.nii.gz")


@pytest.mark.parametrize("stored", [np.nextafter(label().astype("f4"), np.float32(9)), label() * 0.9999])
def test_labels_that_are_whole_but_for_a_rounding(stored, tmp_path):
    predictions, labels = folders(tmp_path)
    write(labels / "a.nii.gz", stored.astype(np.float32), ACDC)
    read = PredictionFolder(predictions, labels, "probabilities").read("a")
    np.testing.assert_array_equal(read.labels[0, 0], label())
    write(labels / "a.nii.gz", np.full(SHAPE, 2.02, np.float32), ACDC)
    with pytest.raises(UserError, match="holds the label 2.02, but 3 classes"):
        PredictionFolder(predictions, labels, "probabilities").read("a")


def test_more_classes_than_a_byte_counts(tmp_path):
    many = np.arange(300, dtype=np.uint16).reshape(10, 5, 6)
    for name in ("p", "l"):
        (tmp_path / name).mkdir()
    nib.save(nib.Nifti1Image(many, np.eye(4)), tmp_path / "l" / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.eye(300, dtype=np.float32)[many], np.eye(4)), tmp_path / "p" / "a.nii.gz")
    read = PredictionFolder(tmp_path / "p", tmp_path / "l", "probabilities").read("a")
    assert torch.equal(read.logits[0].argmax(0), read.labels[0, 0].long())
