"""Read single files of an evaluation."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from medcalib.compare.raw_tables import case_ids
from medcalib.errors import UserError, plain_reason
from medcalib.functional import BinStatistics

__all__ = ["read_arrays", "read_cases", "read_json", "read_part", "read_summary", "statistics_of"]

Content = TypeVar("Content")


def read_part(path: Path, read: Callable[[Path], Content]) -> Content | None:
    """What a file holds; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({plain_reason(error)}): delete the folder and evaluate again."
        ) from None


def read_summary(path: Path) -> dict[str, Any]:
    """What ``summary.json`` holds, with dictionaries where others read on."""
    summary = read_json(path)
    for name in ("provenance", "strata"):
        _check_part(summary, name)
    _check_part(summary.get("provenance") or {}, "versions")
    return summary


def _check_part(content: dict[str, Any], name: str) -> None:
    if not isinstance(content.get(name), dict | None):
        raise ValueError(f"its {name} is no dictionary")


def read_json(path: Path) -> dict[str, Any]:
    """A dictionary."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it holds no dictionary")
    return content


def read_cases(path: Path, attributes: list[str]) -> pd.DataFrame:
    """``cases.csv``, one row a case; attributes stay texts."""
    # a case may be called 007 or NA
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "filename" not in table:
        raise ValueError("it has no column filename")
    table["filename"] = case_ids(table["filename"])
    for name in table.columns.difference(["filename", *attributes]):
        try:
            table[name] = table[name].astype(float)
        except ValueError:
            continue  # the name of a class, or an attribute
    return table


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """``bin_statistics.npz``, with shapes that belong together."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    for name in (*BinStatistics._fields, "cases", "classes"):
        if name not in found:
            raise ValueError(f"it has no array {name}")
    for prefix in ("", "top_label_") if "top_label_counts" in found else ("",):
        parts = {f"{prefix}{name}": found.get(f"{prefix}{name}") for name in BinStatistics._fields}
        classes = 1 if prefix else len(found["classes"])
        for name, values in parts.items():
            if values is None or values.dtype.kind not in "iuf":
                raise ValueError(f"its array {name} holds no numbers")
            if values.ndim != 3 or values.shape[:2] != (len(found["cases"]), classes):
                raise ValueError(f"its array {name} does not belong to its cases and classes")
        if len({values.shape for values in parts.values() if values is not None}) > 1:
            raise ValueError("its arrays have different numbers of bins")
    return found


def statistics_of(arrays: dict[str, np.ndarray], prefix: str) -> BinStatistics:
    """Bin statistics of the arrays that begin with a prefix."""
    return BinStatistics(*(torch.from_numpy(arrays[f"{prefix}{name}"]) for name in BinStatistics._fields))
