"""Which patches are drawn, and how they are changed at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["plan_augmentation"]

_BOTH = ["image", "label"]
# a third of the patches is centred on a class, as in nnU-Net
_BACKGROUND_SHARE = 2
_LARGEST_ANGLE, _SMALL_ANGLE = 0.5, 0.2
_ANISOTROPIC = 3.0
_POSITIONS_KEPT = 5000


def plan_augmentation(
    patch_size: Sequence[int],
    spacing: Sequence[float],
    num_classes: int,
    covers: bool,
    flips: Sequence[int],
    unflipped: Sequence[str],
    has_pictures: bool,
    independent: bool = False,
    some_are_empty: bool = False,
    ignores: bool = False,
) -> list[tuple[list[dict[str, Any]], str]]:
    """Plan how training patches are drawn and changed.

    Args:
        patch_size: voxels per axis.
        spacing: voxel size after resampling.
        num_classes: number of classes, background included.
        covers: whether a patch holds a whole median case, so that none needs to be centred on a class.
        flips: axes along which patches are flipped.
        unflipped: why others are not.
        has_pictures: whether the images are pictures.
        independent: whether each class has a channel of its own, and there is none of a background.
        some_are_empty: whether cases have none of the classes.
        ignores: whether there are voxels of unknown truth, on which no patch is centred.

    Returns:
        Lists of transforms, each with a reason, which may be empty.
    """
    steps: list[tuple[list[dict[str, Any]], str]] = [
        (
            [{"_target_": "monai.transforms.SpatialPadd", "keys": _BOTH, "spatial_size": "@data::patch_size"}],
            "cases that are smaller than a patch are padded",
        )
    ]
    if covers or (independent and some_are_empty):
        crop = {
            "_target_": "monai.transforms.RandSpatialCropd",
            "keys": _BOTH,
            "roi_size": "@data::patch_size",
            "random_size": False,
        }
        why = "a patch holds most of a case, so it shows the classes wherever it lies"
        steps.append(([crop], why if covers else "drawn anywhere, since some cases have none of the structures"))
    elif independent:
        steps.append(
            (
                [_one_in_three(num_classes)],
                "a third of the patches is centred on a structure, on small ones as often as on large ones",
            )
        )
    else:
        steps.append(
            (
                [
                    {
                        "_target_": "medcalib.transforms.KnownClassesToIndicesd"
                        if ignores
                        else "monai.transforms.ClassesToIndicesd",
                        "keys": "label",
                        "num_classes": num_classes,
                        "max_samples_per_class": _POSITIONS_KEPT,
                    },
                    {
                        "_target_": "monai.transforms.RandCropByLabelClassesd",
                        "keys": _BOTH,
                        "label_key": "label",
                        "indices_key": "label_cls_indices",
                        "num_classes": num_classes,
                        "ratios": [_BACKGROUND_SHARE * (num_classes - 1), *[1] * (num_classes - 1)],
                        "spatial_size": "@data::patch_size",
                        "num_samples": 1,
                        "warn": False,
                    },
                ],
                "a third of the patches is centred on a class, on small ones as often as on large ones, as in nnU-Net",
            )
        )
    steps.append(_affine(spacing, has_pictures))
    why = "; ".join(["flipped along each axis that may be", *unflipped]) if unflipped else "flipped along each axis"
    for number, axis in enumerate(flips):
        flip = {"_target_": "monai.transforms.RandFlipd", "keys": _BOTH, "prob": 0.5, "spatial_axis": axis}
        steps.append(([flip], why if number == 0 else ""))
    by_channel = {"channel_wise": True} if has_pictures else {}
    steps.append(
        (
            [
                {
                    "_target_": "monai.transforms.RandScaleIntensityd",
                    "keys": "image",
                    "factors": 0.1,
                    "prob": 0.5,
                    **by_channel,
                },
                {
                    "_target_": "monai.transforms.RandShiftIntensityd",
                    "keys": "image",
                    "offsets": 0.05 if has_pictures else 0.1,
                    "prob": 0.5,
                },
                {
                    "_target_": "monai.transforms.RandGaussianNoised",
                    "keys": "image",
                    "prob": 0.15,
                    "std": 0.02 if has_pictures else 0.1,
                },
            ],
            "light and camera vary" if has_pictures else "scanners differ in gain and noise",
        )
    )
    return steps


def _one_in_three(num_classes: int) -> dict[str, Any]:
    """Patches of labels that have no channel of a background in which the other two thirds could be drawn."""
    anywhere = {
        "_target_": "monai.transforms.RandSpatialCropSamplesd",
        "keys": _BOTH,
        "roi_size": "@data::patch_size",
        "num_samples": 1,
        "random_size": False,
    }
    centred = {
        "_target_": "monai.transforms.RandCropByLabelClassesd",
        "keys": _BOTH,
        "label_key": "label",
        "num_classes": num_classes,
        "spatial_size": "@data::patch_size",
        "num_samples": 1,
        "warn": False,
    }
    return {"_target_": "monai.transforms.OneOf", "transforms": [anywhere, centred], "weights": [2, 1]}


def _affine(spacing: Sequence[float], has_pictures: bool) -> tuple[list[dict[str, Any]], str]:
    affine: dict[str, Any] = {
        "_target_": "monai.transforms.RandAffined",
        "keys": _BOTH,
        "prob": 0.5,
        "rotate_range": [_SMALL_ANGLE] * 3,
        "scale_range": [0.1] * len(spacing),
        "mode": ["bilinear", "nearest"],
        "padding_mode": "border",
    }
    if len(spacing) == 2:
        affine["rotate_range"] = [_LARGEST_ANGLE]
        return [affine], "rotation and size vary" if has_pictures else "position and size vary"
    coarse = max(range(3), key=lambda axis: spacing[axis])
    if spacing[coarse] < _ANISOTROPIC * min(spacing):
        return [affine], "position and size vary"
    affine["rotate_range"] = [_LARGEST_ANGLE if axis == coarse else 0.0 for axis in range(3)]
    affine["scale_range"] = [0.0 if axis == coarse else 0.1 for axis in range(3)]
    return [affine], (
        f"slices are far apart along axis {coarse}, so they are turned and scaled in their plane alone, as in nnU-Net"
    )
