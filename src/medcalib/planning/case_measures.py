"""Measure one case: its grid, what is cropped away, its intensities in the foreground, its classes and objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medcalib.data.cases import Case
from medcalib.errors import UserError
from medcalib.functional import majority, mean_response
from medcalib.image_files.image_traits import grid_traits
from medcalib.image_files.label_values import value_text
from medcalib.keys import CaseKeys
from medcalib.transforms.images import LoadPictured, PictureFile
from medcalib.transforms.loading import LoadCased

__all__ = ["NUM_QUANTILES", "measure_case"]

NUM_QUANTILES = 400
"""So many evenly spaced quantiles stand for the intensities of a channel, as a sample from every case."""


def measure_case(case: Case, has_pictures: bool, ignore_label: int | None = None) -> dict[str, Any]:
    """Measure a case from its files.

    Args:
        case: with its label, a file or the index of a class.
        has_pictures: whether the files are pictures.
        ignore_label: the value of voxels whose truth is unknown, which are neither foreground nor objects.

    Returns:
        Plain values. ``size`` in voxels, ``spacing`` in mm, and ``box``, the size of what is not 0 in any channel, by
        axis, of volumes left-right, back-front, foot-head; ``orientation``, that of the file; ``channels``, for each
        ``lowest``, ``highest``, ``whole`` (whether all values are whole numbers), and of the foreground, or of all
        voxels where there is none, ``mean``, ``std`` and ``quantiles``; ``classes``, by label value the ``voxels``, the
        number of ``objects`` and the voxels of the ``smallest``, an object being what touches by faces, edges or
        corners, and of structures in files of their own the voxels that are ``shared`` with others; of the value to be
        ignored the voxels alone; ``bits`` of each value in the file of a picture.

    Raises:
        UserError: a file is missing, damaged, or does not belong to the others, or a label value is no whole number;
            names case and file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, values in (("a", np.arange(8.0)), ("b", [0, 0, 0, 0, 0, 1, 0, 1])):
        ...         volume = np.asarray(values, np.float32).reshape(2, 2, 2)
        ...         nib.save(nib.Nifti1Image(volume, np.diag([1, 1, 3, 1])), f"{folder}/{name}.nii.gz")
        ...     found = measure_case({"case": "x", "image": f"{folder}/a.nii.gz", "label": f"{folder}/b.nii.gz"}, False)
        >>> found["spacing"], found["channels"][0]["mean"], found["classes"]["1"]
        ([1.0, 1.0, 3.0], 6.0, {'voxels': 2, 'objects': 1, 'smallest': 2})
    """
    files: dict[Any, Any] = dict(case)
    load = LoadPictured() if has_pictures else LoadCased()
    # structures are read one by one
    one_by_one = CaseKeys.LABEL if CaseKeys.STRUCTURES in case else None
    loaded = load({key: value for key, value in files.items() if key != one_by_one})
    image = loaded[CaseKeys.IMAGE]
    affine = None if has_pictures or image.ndim != 4 else np.asarray(image.affine, dtype=float)
    values = image.numpy()
    traits = grid_traits(values.shape[1:], affine)
    is_class = not isinstance(case[CaseKeys.LABEL], str | list)
    label, classes = None, {str(case[CaseKeys.LABEL]): {"images": 1}} if is_class else {}
    if CaseKeys.STRUCTURES in case:
        label, classes = _structures(load, files)
    elif not is_class:
        labels = _whole(case, np.asarray(loaded[CaseKeys.LABEL]))
        if CaseKeys.RATERS not in case:
            labels = _one_channel(case, labels)[None]
        label = _most(labels)
        classes = _all_classes(label, labels, ignore_label)
        label = np.where(label == ignore_label, 0, label)
    foreground = None if label is None else label > 0
    first = case[CaseKeys.IMAGE] if isinstance(case[CaseKeys.IMAGE], str) else case[CaseKeys.IMAGE][0]
    return {
        "case": str(case[CaseKeys.CASE]),
        **traits,
        "box": grid_traits(_box(values), affine)["size"],
        "orientation": "".join(nib.aff2axcodes(affine)) if affine is not None else "",
        "channels": [_channel(channel, foreground) for channel in values],
        "classes": classes,
        **({"bits": PictureFile(first).num_bits} if has_pictures else {}),
    }


def _one_channel(case: Case, label: NDArray) -> NDArray:
    if len(label) > 1:
        raise UserError(
            f"Case {case[CaseKeys.CASE]}: {case[CaseKeys.LABEL]} has {len(label)} channels, but the labels of others "
            f"have one: correct the file."
        )
    return label[0]


def _structures(load: LoadCased, case: Mapping[Any, Any]) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Where any structure is, and what is known of each."""
    found: dict[str, Any] = {}
    places: dict[str, NDArray] = {}
    covered: Any = None
    for index, mask in load.structure_masks(case):
        voxels = mask.numpy()
        covered = np.zeros(voxels.shape, np.uint16) if covered is None else covered
        if index and voxels.any():
            covered += voxels
            found[str(index)] = _classes(voxels.astype(np.int32))["1"]
            places[str(index)] = np.flatnonzero(voxels)
    flat = covered.reshape(-1)
    for value, place in places.items():
        found[value]["shared"] = int((flat[place] > 1).sum())
    return covered > 0, {"0": {"voxels": int((covered == 0).sum())}, **found}


def _most(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The value (...) that most raters (rater, ...) give a voxel; a tie goes to the smallest."""
    if len(labels) == 1:
        return labels[0]
    values, numbers = np.unique(labels, return_inverse=True)
    votes = torch.from_numpy(numbers.reshape(labels.shape))
    return values[majority(mean_response(votes, len(values)))[0].numpy()]


def _all_classes(
    label: NDArray[np.int32], labels: NDArray[np.int32], ignore_label: int | None = None
) -> dict[str, Any]:
    """Voxels and objects of every value; of one that only some raters see, those of the rater who sees the most."""
    found = _classes(label, ignore_label)
    if len(labels) > 1:
        for value in np.unique(labels).tolist():
            if str(value) not in found:
                most = int((labels == value).reshape(len(labels), -1).sum(1).argmax())
                found[str(value)] = _classes(labels[most], ignore_label)[str(value)]
    return found


def _whole(case: Case, label: NDArray) -> NDArray[np.int32]:
    rounded = label.astype(np.int32)
    if (wrong := label[rounded != label]).size:
        raise UserError(
            f"Case {case[CaseKeys.CASE]}: {case[CaseKeys.LABEL]} holds {value_text(float(wrong.flat[0]))}, but labels "
            f"are whole numbers: correct the file."
        )
    if (rounded < 0).any():
        raise UserError(
            f"Case {case[CaseKeys.CASE]}: {case[CaseKeys.LABEL]} holds {int(rounded.min())}, but labels are 0 or more: "
            f"correct the file."
        )
    return rounded


def _box(values: NDArray) -> tuple[int, ...]:
    """Size of what is not 0 in any channel; of everything where all is 0."""
    (found,) = ndimage.find_objects((values != 0).any(0).astype(np.uint8)) or [None]
    return values.shape[1:] if found is None else tuple(part.stop - part.start for part in found)


def _channel(values: NDArray, foreground: NDArray | None) -> dict[str, Any]:
    inside = values[foreground] if foreground is not None and foreground.any() else values.reshape(-1)
    places = (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    return {
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "whole": bool((values == np.rint(values)).all()),
        "mean": float(inside.mean(dtype=np.float64)),
        "std": float(inside.std(dtype=np.float64)),
        "quantiles": [float(f"{value:.6g}") for value in np.quantile(inside, places)],
    }


def _classes(label: NDArray[np.int32], ignore_label: int | None = None) -> dict[str, Any]:
    """Voxels and objects of every value."""
    found: dict[str, Any] = {}
    counts = dict(zip(*(part.tolist() for part in np.unique(label, return_counts=True)), strict=True))
    touching = ndimage.generate_binary_structure(label.ndim, label.ndim)
    boxes = ndimage.find_objects(label)
    for value, voxels in counts.items():
        if value in (0, ignore_label):
            found[str(value)] = {"voxels": voxels}
            continue
        objects, number = ndimage.label(label[boxes[value - 1]] == value, touching)
        sizes = np.bincount(objects.reshape(-1))[1:]
        found[str(value)] = {"voxels": voxels, "objects": int(number), "smallest": int(sizes.min())}
    return found
