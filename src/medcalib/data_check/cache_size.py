"""How much memory, or disk, the prepared cases of a training will take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.bundle import ConfigParser
from monai.transforms import Compose, RandomizableTrait, Transform
from torch import Tensor
from torch.utils._pytree import tree_leaves

from medcalib.data.cases import Case
from medcalib.data_check.case_checks import CheckedCases
from medcalib.data_check.first_batch import reason
from medcalib.keys import CaseKeys

__all__ = ["CacheMemory", "cache_memory", "machine_memory"]

# so many cases are preprocessed to see how large they become
MEASURED_CASES = 8


class CacheMemory(NamedTuple):
    """Bytes of the preprocessed cases that a training keeps in memory, and on disk.

    Attributes:
        training: in memory, of the training cases.
        validation: in memory, of the validation cases.
        rates: share of the cases of either part that is kept in memory.
        disk: on disk, of either part.
        folders: where these lie, None for a part that is not kept on disk.
        shapes: spatial shapes of the cases that were preprocessed for this; other cases are taken to be like them.
        spacing: voxel size in mm of the first of them.
    """

    training: int
    validation: int
    rates: tuple[float, float]
    disk: tuple[int, int]
    folders: tuple[str | None, str | None]
    shapes: list[tuple[int, ...]]
    spacing: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "training": self.training,
            "validation": self.validation,
            "cache_rate": dict(zip(("training", "validation"), self.rates, strict=True)),
            "disk": {
                "training": self.disk[0],
                "validation": self.disk[1],
                "free_in": {folder: _free(folder) for folder in self.folders if folder is not None},
            },
            "preprocessed_cases": len(self.shapes),
            "preprocessed_shapes": [list(shape) for shape in self.shapes],
        }


def cache_memory(parser: ConfigParser, checked: CheckedCases) -> CacheMemory | None:
    """Preprocess some training cases, from the smallest to the largest, to see what the cache will take.

    Args:
        parser: configuration of a training.
        checked: what was found in the cases, to which are added those that cannot be preprocessed.

    Returns:
        The estimate, which is exact if there are few cases; None if no case can be preprocessed.
    """
    voxels = checked.voxels
    parts = [parser.get_parsed_content(f"{part}::dataset::data") for part in ("train", "validate")]
    ordered = sorted(checked.usable(parts[0]), key=lambda case: voxels[str(case[CaseKeys.CASE])])
    chosen = np.unique(np.linspace(0, len(ordered) - 1, min(MEASURED_CASES, len(ordered))).round().astype(int))
    preprocessing = parser.get_parsed_content("preprocessing").flatten()
    training = parser.get_parsed_content("train::preprocessing").flatten()
    measured = []
    for case in [ordered[index] for index in chosen]:
        try:
            measured.append((voxels[str(case[CaseKeys.CASE])], *_preprocessed(case, preprocessing, training)))
        except Exception as error:
            cause = reason(error)
            name = f"Case {case[CaseKeys.CASE]}"
            sentence = f"{cause}." if cause.startswith(name) else f"{name}: its preprocessing fails ({cause})."
            checked.problems.append(sentence)
            checked.damaged.add(case[CaseKeys.CASE])
    if not measured:
        return None
    sizes, shapes, spacings, *number_of_bytes = zip(*measured, strict=True)
    typical = float(np.median(list(voxels.values())))  # of cases that could not be read
    rates = [_cache_rate(parser, part) for part in ("train", "validate")]
    folders = [_cache_folder(parser, part) for part in ("train", "validate")]
    totals = [
        np.interp([voxels.get(str(case[CaseKeys.CASE]), typical) for case in cases], sizes, of_sizes).sum()
        for cases, of_sizes in zip(parts, number_of_bytes, strict=True)
    ]
    in_memory = [round(rate * total) for rate, total in zip(rates, totals, strict=True)]
    on_disk = [0 if folder is None else round(total) for folder, total in zip(folders, totals, strict=True)]
    (training, validation), (first_rate, second_rate), (first_disk, second_disk) = in_memory, rates, on_disk
    return CacheMemory(
        training,
        validation,
        (first_rate, second_rate),
        (first_disk, second_disk),
        (folders[0], folders[1]),
        list(shapes),
        spacings[0],
    )


def machine_memory() -> int:
    """Bytes of memory of this machine, or of the container in which this runs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return memory


def _preprocessed(
    case: Case, preprocessing: Compose, training: Compose
) -> tuple[tuple[int, ...], tuple[float, ...], int, int]:
    """Shape and spacing of a case after preprocessing, and its bytes in the caches of training and validation."""
    end = training.get_index_of_first(lambda t: isinstance(t, RandomizableTrait) or not isinstance(t, Transform))
    end = len(training.transforms) if end is None else end
    start = len(preprocessing.transforms)
    item = preprocessing(dict(case))
    shape = tuple(item[CaseKeys.IMAGE].shape[1:])
    spacing = tuple(item[CaseKeys.IMAGE].pixdim.tolist()[: len(shape)])
    validation = _bytes(item)
    if start <= end and list(training.transforms[:start]) == list(preprocessing.transforms):
        item = training(item, start=start, end=end)
    else:
        item = training(dict(case), end=end)
    return shape, spacing, _bytes(item), validation


def _bytes(item: Any) -> int:
    leaves = tree_leaves(item)
    tensors = sum(leaf.untyped_storage().nbytes() for leaf in leaves if isinstance(leaf, Tensor))
    return tensors + sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))


def _cache_rate(parser: ConfigParser, part: str) -> float:
    dataset = parser.get(f"{part}::dataset")
    if "CacheDataset" not in dataset["_target_"]:
        return 0.0
    return float(parser.get_parsed_content(f"{part}::dataset::cache_rate")) if "cache_rate" in dataset else 1.0


def _cache_folder(parser: ConfigParser, part: str) -> str | None:
    if "cache_dir" not in parser.get(f"{part}::dataset"):
        return None
    folder = parser.get_parsed_content(f"{part}::dataset::cache_dir")
    return None if folder is None else str(folder)


def _free(folder: str) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    path = Path(folder).expanduser().absolute()
    return shutil.disk_usage(next(parent for parent in (path, *path.parents) if parent.exists())).free
