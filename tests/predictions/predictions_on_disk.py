"""Small predictions and labels in files, in every layout that is read."""

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit, softmax

SHAPE = (7, 6, 5)
CASES = ("case_1", "case_2", "007", "NA")
TRUE_TEMPERATURE = 2.0
# axes of the file point left, anterior and superior in another order, with sizes of their own
AFFINE = np.array([[0, -1.5, 0, 10.0], [2.0, 0, 0, -20.0], [0, 0, -3.0, 5.0], [0, 0, 0, 1.0]])


def logits(case, num_classes=3, shape=SHAPE):
    """Over-confident logits (class, X, Y, Z): the labels are drawn at twice their temperature."""
    rng = np.random.default_rng([ord(letter) for letter in case])
    noise = rng.normal(size=(num_classes, *shape))
    return (TRUE_TEMPERATURE * 10 * gaussian_filter(noise, (0, 1.5, 1.5, 1.5))).astype(np.float32)


def labels(case, num_classes=3, shape=SHAPE):
    """A label map drawn from the calibrated probabilities."""
    rng = np.random.default_rng([*(ord(letter) for letter in case), 1])
    truth = softmax(logits(case, num_classes, shape).astype(float) / TRUE_TEMPERATURE, 0)
    return (rng.random(shape) > truth.cumsum(0)[:-1]).sum(0).astype(np.uint8)


def probabilities(case, num_classes=3, shape=SHAPE):
    """Over-confident probabilities (class, X, Y, Z)."""
    return softmax(logits(case, num_classes, shape).astype(float), 0).astype(np.float32)


def save(path, array, affine=AFFINE):
    """Write a NIfTI with unusual but valid header fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="aligned")
    nib.save(image, path)


def write_labels(root, cases=CASES, **kwargs):
    for case in cases:
        save(root / f"{case}.nii.gz", labels(case, **kwargs))
    return root


def write_volumes(root, cases=CASES, values=probabilities, name="{}_prob.nii.gz", **kwargs):
    for case in cases:
        save(root / name.format(case), np.moveaxis(values(case, **kwargs), 0, -1))
    return root


def write_channels(root, cases=CASES, values=probabilities, name="{}_{}.nii.gz"):
    for case in cases:
        for number, channel in enumerate(values(case)):
            save(root / name.format(case, number), channel)
    return root


def write_archives(root, cases=CASES, dtype=np.float32, with_segmentation=True, values=probabilities):
    """What ``nnUNetv2_predict --save_probabilities`` leaves: (class, Z, Y, X), and the segmentation beside it."""
    root.mkdir(parents=True, exist_ok=True)
    for case in cases:
        channels = values(case)
        np.savez_compressed(root / f"{case}.npz", probabilities=channels.transpose(0, 3, 2, 1).astype(dtype))
        if with_segmentation:
            save(root / f"{case}.nii.gz", channels.argmax(0).astype(np.uint8))
    return root


def independent(case):
    """Probabilities of independent classes."""
    return expit(logits(case, 2))
