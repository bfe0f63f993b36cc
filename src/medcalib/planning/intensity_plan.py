"""How intensities are normalised, and what is cropped away before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medcalib.planning.dataset_measures import DatasetMeasures

__all__ = ["IntensityPlan", "is_ct", "plan_intensities", "plan_picture_intensities"]

# below it the box of what is not 0 is that of a head without its surroundings; nnU-Net's number
_SMALL_BOX = 0.75
# air in Hounsfield units
_AIR = -500
# largest values of 8 bits, and of the 10, 12, 14 or 16 that a file of 16 bits may hold
_DEPTHS = (255, 1023, 4095, 16383, 65535)


class IntensityPlan(NamedTuple):
    """Transforms and their reasons.

    Attributes:
        crop: transforms that crop to what is not 0, none where that is of no use, with the reason.
        normalise: transforms, with the reason.
        modality: what kind of images these are, in a word.
    """

    crop: tuple[list[dict[str, Any]], str]
    normalise: tuple[list[dict[str, Any]], str]
    modality: str


def is_ct(name: str) -> bool:
    """Whether the name of a channel says that it is CT.

    Example:
        >>> is_ct("CT"), is_ct("ct_contrast"), is_ct("T1ce"), is_ct("PET")
        (True, True, False, False)
    """
    return "ct" in name.casefold().replace("_", " ").replace("-", " ").split()


def plan_intensities(measures: DatasetMeasures, channel_names: Sequence[str], named: bool) -> IntensityPlan:
    """Plan the crop and the normalisation of volumes.

    CT, whose numbers are physical, is clipped to the percentiles 0.5 and 99.5 of the foreground and standardised with
    its mean and standard deviation over the dataset; everything else case by case. Where cropping to what is not 0
    leaves less than three quarters of the median case, volumes are cropped, and means are those of what is not 0.

    Reference: Isensee et al., nnU-Net, doi:10.1038/s41592-020-01008-z.

    Args:
        measures: of all cases.
        channel_names: one name for each channel.
        named: whether the names were given, not made up; otherwise the values tell what is CT.
    """
    stats = [measures.channel(index) for index in range(len(channel_names))]
    ct = [
        is_ct(name) if named else one["lowest"] <= _AIR and one["whole"]
        for name, one in zip(channel_names, stats, strict=True)
    ]
    share = float(np.median(measures.rows("box").prod(1) / measures.rows("size").prod(1)))
    crops = share < _SMALL_BOX and not any(ct)
    why = "as its channel says" if named else "as whole numbers down to the -1000 of air say"
    if all(ct) and len(ct) == 1:
        one, std = stats[0], stats[0]["std"] or 1.0
        low, high = one["p0.5"], one["p99.5"]
        if not high > low:
            low, high = one["lowest"], max(one["highest"], one["lowest"] + 1)
        window = {
            "_target_": "monai.transforms.ScaleIntensityRanged",
            "keys": "image",
            "a_min": _rounded(low),
            "a_max": _rounded(high),
            "b_min": _rounded((low - one["mean"]) / std),
            "b_max": _rounded((high - one["mean"]) / std),
            "clip": True,
        }
        reason = (
            f"CT, {why}: its numbers mean the same in every case, so all are clipped to the percentiles 0.5 and 99.5 "
            f"of the foreground, whose mean {one['mean']:.4g} becomes 0 and standard deviation {one['std']:.4g} "
            f"becomes 1"
        )
        return IntensityPlan(_crop(crops, share, stats), ([window], reason), "CT")
    normalise: dict[str, Any] = {"_target_": "monai.transforms.NormalizeIntensityd", "keys": "image"}
    reason = "intensities of MR and the like have no unit, so each case has mean 0 and standard deviation 1"
    if crops:
        normalise["nonzero"] = True
        reason += ", counted where it is not 0"
    if len(ct) > 1:
        normalise["channel_wise"] = True
        reason += ", in each channel"
    if any(ct):
        normalise |= {
            name: [_rounded(one[key] or 1.0) if is_one else None for one, is_one in zip(stats, ct, strict=True)]
            for name, key in (("subtrahend", "mean"), ("divisor", "std"))
        }
        reason += "; CT has mean and standard deviation of the foreground of all cases"
    return IntensityPlan(_crop(crops, share, stats), ([normalise], reason), "CT and others" if any(ct) else "MR")


def plan_picture_intensities(measures: DatasetMeasures, num_channels: int) -> IntensityPlan:
    """Plan the normalisation of pictures.

    Of 8 bits, 0 to 255 becomes 0 to 1. Cameras seldom use all of 16 bits, so it is 0 to the largest value of 10, 12, 14
    or 16 bits that all pictures stay below. Where there are files of both kinds, or of 32 bits or negative numbers, no
    scale is common to all, so each picture's lowest value becomes 0 and its highest 1.

    Args:
        measures: of all cases.
        num_channels: of the pictures.
    """
    stats = [measures.channel(index) for index in range(num_channels)]
    highest, lowest = max(one["highest"] for one in stats), min(one["lowest"] for one in stats)
    bits = sorted({int(case.get("bits", 8)) for case in measures.cases})
    modality = "RGB" if num_channels == 3 else "grey pictures"
    none: tuple[list[dict[str, Any]], str] = ([], "")
    if len(bits) > 1 or bits[0] > 16 or lowest < 0:
        each = {"_target_": "monai.transforms.ScaleIntensityd", "keys": "image", "minv": 0.0, "maxv": 1.0}
        why = f"pictures of {' and '.join(map(str, bits))} bits" if len(bits) > 1 else "pictures of 32 bits"
        reason = f"{why} have no scale in common, so the lowest value of each becomes 0 and its highest 1"
        return IntensityPlan(none, ([each], reason), modality)
    top = 1 if highest <= 1 else next((depth for depth in _DEPTHS if highest <= depth), float(highest))
    scale = {
        "_target_": "monai.transforms.ScaleIntensityRanged",
        "keys": "image",
        "a_min": 0,
        "a_max": top,
        "b_min": 0.0,
        "b_max": 1.0,
    }
    reason = f"pictures of {bits[0]} bits have a scale of their own, 0 to {top:g} here, which becomes 0 to 1"
    return IntensityPlan(none, ([scale], reason), modality)


def _crop(crops: bool, share: float, stats: Sequence[dict[str, float]]) -> tuple[list[dict[str, Any]], str]:
    if not crops:
        return [], ""
    crop: dict[str, Any] = {
        "_target_": "monai.transforms.CropForegroundd",
        "keys": ["image", "label"],
        "source_key": "image",
        "allow_missing_keys": True,
    }
    checks: list[dict[str, Any]] = []
    if min(one["lowest"] for one in stats) < 0:
        # by default, only what is above 0 is kept
        crop["select_fn"] = "$torch.Tensor.bool"
    else:
        checks = [{"_target_": "medcalib.transforms.CheckForegroundd", "keys": "image"}]
    return [*checks, crop], f"what is not 0 fills {100 * share:.0f} % of the median case, so the rest is cropped away"


def _rounded(value: float) -> float:
    """Four digits, as a number with a dot, which YAML does not take for text.

    Example:
        >>> _rounded(-1024.0), _rounded(0.123456)
        (-1024.0, 0.1235)
    """
    return float(f"{value:.4g}")
