"""Measure all cases of a dataset by several processes, remember what was measured, and sum it up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from medcalib.data.case_identity import case_identities
from medcalib.data.cases import Case
from medcalib.errors import UserError, listed
from medcalib.files.writing import write_text
from medcalib.keys import CaseKeys
from medcalib.planning.case_measures import measure_case

__all__ = ["DatasetMeasures", "measure_dataset"]

# what is remembered of another version is measured again
_VERSION = 2


class DatasetMeasures(NamedTuple):
    """What was measured of all cases.

    Attributes:
        cases: of each case, as of `medcalib.planning.case_measures.measure_case`, in their order.
        remembered: how many of them were known from an earlier run.
    """

    cases: list[dict[str, Any]]
    remembered: int = 0

    @property
    def num_axes(self) -> int:
        """Number of spatial axes."""
        return len(self.cases[0]["size"])

    def rows(self, name: str) -> NDArray[np.float64]:
        """``size``, ``spacing`` or ``box`` of every case, (case, axis)."""
        return np.array([case[name] for case in self.cases], dtype=float)

    def channel(self, index: int) -> dict[str, float]:
        """Statistics of a channel, to which each case contributes alike: those of `measure_case`, and percentiles."""
        of_cases = [case["channels"][index] for case in self.cases]
        means, stds = (np.array([one[name] for one in of_cases]) for name in ("mean", "std"))
        pooled = np.concatenate([one["quantiles"] for one in of_cases])
        percentiles = {f"p{percent}": float(np.percentile(pooled, percent)) for percent in (0.5, 50, 99.5)}
        return {
            "lowest": min(one["lowest"] for one in of_cases),
            "highest": max(one["highest"] for one in of_cases),
            "whole": all(one["whole"] for one in of_cases),
            "mean": float(means.mean()),
            "std": float(np.sqrt(max(0.0, (stds**2 + means**2).mean() - means.mean() ** 2))),
            **percentiles,
        }

    @property
    def label_values(self) -> list[int]:
        """All label values in the files."""
        return sorted({int(value) for case in self.cases for value in case["classes"]})


def measure_dataset(
    cases: Sequence[Case],
    has_pictures: bool,
    cache: Path | None = None,
    num_workers: int = 0,
    progress: bool = True,
    ignore_label: int | None = None,
) -> DatasetMeasures:
    """Measure every case, except those that were measured before and have the same files.

    Args:
        cases: as of a split.
        has_pictures: whether the files are pictures.
        cache: JSON file of what was measured before, which is written anew; None to remember nothing.
        num_workers: processes that measure, beside this one; 0: none, this one does.
        progress: whether a bar shows how far it is.
        ignore_label: the value of voxels whose truth is unknown.

    Raises:
        UserError: a case cannot be measured, or cases differ in their number of axes or channels.
    """
    known = _remembered(cache)
    keys = [_key(identity, ignore_label) for identity in case_identities(cases)]
    missing = [(key, case) for key, case in zip(keys, cases, strict=True) if key not in known]
    remembered = len(cases) - len(missing)
    loader: DataLoader = DataLoader(
        _Measuring([case for _, case in missing], has_pictures, ignore_label),
        batch_size=None,
        num_workers=min(num_workers, len(missing)),
        collate_fn=_unchanged,
        prefetch_factor=2 if min(num_workers, len(missing)) else None,
    )
    problems = []
    try:
        bar = tqdm(loader, total=len(missing), desc="measuring cases", unit="case", disable=not progress, delay=1)
        for (key, _), found in zip(missing, bar, strict=True):
            if isinstance(found, str):
                problems.append(found)
            else:
                known[key] = found
    finally:
        # what a run that is stopped has measured, the next one need not
        if cache is not None and missing:
            write_text(cache, json.dumps({"version": _VERSION, "measured": known}) + "\n")
    if problems:
        more = len(problems) - 1
        told = f" ({more} more case{'s' * (more > 1)} cannot be used, either)" if more else ""
        raise UserError(f"{problems[0].removesuffix('.')}{told}.")
    # the same files may have had another name
    measured = [{**known[key], "case": str(case[CaseKeys.CASE])} for key, case in zip(keys, cases, strict=True)]
    _check_alike(measured)
    return DatasetMeasures(measured, remembered)


class _Measuring(Dataset):
    """Measures of cases; of one that cannot be measured, the sentence that says why."""

    def __init__(self, cases: Sequence[Case], has_pictures: bool, ignore_label: int | None) -> None:
        self.cases = list(cases)
        self.ignore_label = ignore_label
        self.has_pictures = has_pictures

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any] | str:
        try:
            return measure_case(self.cases[index], self.has_pictures, self.ignore_label)
        except UserError as error:
            return str(error)


def _unchanged(item: Any) -> Any:
    return item


def _key(identity: Mapping[str, Any], ignore_label: int | None) -> str:
    return f"{identity['image']}-{identity['label']}" + ("" if ignore_label is None else f"-without-{ignore_label}")


def _remembered(cache: Path | None) -> dict[str, Any]:
    """What was measured before, by what the files hold; nothing if that is of another version or damaged."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8")) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    usable = isinstance(content, dict) and content.get("version") == _VERSION
    return dict(content["measured"]) if usable else {}


def _check_alike(measured: Sequence[Mapping[str, Any]]) -> None:
    def differing(values: Mapping[str, int], what: str) -> Iterator[str]:
        usual = max(set(values.values()), key=list(values.values()).count)
        if others := [case for case, value in values.items() if value != usual]:
            yield (
                f"Case {others[0]} has {values[others[0]]} {what}, but most cases have {usual} (so "
                f"{listed(others, 3)} differ{'s' * (len(others) == 1)}): correct its files, or leave it out."
            )

    for values, what in (
        ({str(case["case"]): len(case["size"]) for case in measured}, "spatial axes"),
        ({str(case["case"]): len(case["channels"]) for case in measured}, "channels"),
    ):
        for sentence in differing(values, what):
            raise UserError(sentence)
