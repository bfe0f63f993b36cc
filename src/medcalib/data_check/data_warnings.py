"""What may be meant in a set of data, but rarely is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from medcalib.data_check.data_report import readable_bytes
from medcalib.errors import listed
from medcalib.keys import SplitKeys

__all__ = ["data_warnings"]

# fewer cases than this in a part of the split are few: of volumes, and of whole images that are classified
FEW_CASES = {"segmentation": 5, "classification": 20}
# share of a patch that is padding in every case
MUCH_PADDING = 0.2
# share of the machine's memory that the cache may take
SHARE_FOR_CACHE = 0.5


def data_warnings(report: Mapping[str, Any]) -> list[str]:
    """What a user should know before a training, one sentence each.

    Args:
        report: what a check of data found.
    """
    return [
        *_classes(report),
        *_ignored(report),
        *_validation(report),
        *_few_cases(report),
        *_large_patch(report),
        *_large_cache(report),
    ]


def _classes(report: Mapping[str, Any]) -> Iterator[str]:
    for name, found in report["labels"][SplitKeys.TRAINING].items():
        if found["voxels"] == 0:
            yield (
                f"No training case has the class {name}, so it cannot be learned; check data::class_names and "
                f"data::label_map, or leave the class out."
            )


def _ignored(report: Mapping[str, Any]) -> Iterator[str]:
    found = report["ignored"]["all"]
    if nothing := found["cases_of_nothing_else"]:
        yield (
            f"All voxels of {listed(nothing, 3)} are to be ignored (data::ignore_label), so nothing is learnt or "
            f"measured there; leave {'these cases' if nothing[1:] else 'this case'} out."
        )
    if report["ignore_label"] is not None and not found["voxels"]:
        yield (
            f"No label holds data::ignore_label {report['ignore_label']}, so there is no voxel to be ignored; correct "
            f"it, if some should."
        )


def _validation(report: Mapping[str, Any]) -> Iterator[str]:
    """A metric of the validation cases chooses the epoch, so these must have what it measures."""
    found = {name: of_class["voxels"] for name, of_class in report["labels"][SplitKeys.VALIDATION].items()}
    if report["task"] == "classification":
        if sum(number > 0 for number in found.values()) == 1:
            yield (
                f"All validation cases are of the class {next(name for name, number in found.items() if number)}, so "
                f"the AUC that chooses the best epoch has no value, and the last epoch will be kept; divide the data "
                f"in another way."
            )
    elif not any(found[name] for name in report["foreground_classes"]):
        yield (
            f"No validation case has any of the classes {', '.join(report['foreground_classes'])}, so the Dice that "
            f"chooses the best epoch has no value, and the last epoch will be kept; divide the data in another way."
        )


def _few_cases(report: Mapping[str, Any]) -> Iterator[str]:
    for part, found in report["cases"].items():
        repeated = part == SplitKeys.CALIBRATION and report["calibration_is_validation"]
        number = found["number"]
        if number < FEW_CASES[report["task"]] and not repeated:
            yield (
                f"The {part} part has only {number} case{'s' * (number > 1)}, so whatever is found with it depends "
                f"much on chance; add cases, or divide the data in another way."
            )


def _large_patch(report: Mapping[str, Any]) -> Iterator[str]:
    patch = report["patch_size"]
    shapes = (report["memory"]["cache"] or {}).get("preprocessed_shapes", [])
    if not shapes or report["task"] == "classification":
        return
    padding = 1 - max(math.prod(map(min, shape, patch)) for shape in shapes) / math.prod(patch)
    if padding > MUCH_PADDING:
        yield (
            f"data::patch_size {patch} is larger than every volume, at most {np.max(shapes, axis=0).tolist()} after "
            f"preprocessing, so at least {100 * padding:.0f} % of every patch is padding; smaller patches need less "
            f"time and memory."
        )


def _large_cache(report: Mapping[str, Any]) -> Iterator[str]:
    cache, machine = report["memory"]["cache"], report["memory"]["machine"]
    needed = cache["training"] + cache["validation"] if cache else 0
    if needed > machine:
        whole = sum(cache[part] / rate for part, rate in cache["cache_rate"].items() if rate)
        rate = math.floor(100 * SHARE_FOR_CACHE * machine / whole) / 100
        yield (
            f"The cache of the datasets takes about {readable_bytes(needed)}, but this machine has "
            f"{readable_bytes(machine)}; keep fewer cases in memory, with --train::dataset::cache_rate={rate:g} "
            f"--validate::dataset::cache_rate={rate:g}."
        )
