"""Read the folders that evaluations leave."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from medcalib.errors import UserError, plain_reason
from medcalib.functional import BinStatistics

__all__ = ["Evaluation", "read_evaluation"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation.

    Attributes:
        folder: where they were read.
        summary: what ``summary.json`` holds; numbers that do not exist are None.
        cases: one row a case: ``filename``, the case id, and the mean over classes of every metric, NaN where a case
            has none.
        statistics: bin statistics (case, class, bin), in the order of the rows of ``cases``.
        class_names: names of the evaluated classes.
    """

    folder: Path
    summary: dict[str, Any]
    cases: pd.DataFrame
    statistics: BinStatistics
    class_names: list[str]

    @property
    def case_ids(self) -> list[str]:
        """The case ids, in the order of all rows."""
        return self.cases["filename"].tolist()

    def values(self, metric: str) -> np.ndarray:
        """A metric of every case, (case,), NaN where a case has none.

        Raises:
            UserError: the evaluation has no such metric per case.
        """
        known = [name for name in self.cases.columns if name != "filename"]
        if metric not in known:
            raise UserError(f"{self.folder / 'cases.csv'} has no column {metric}; it has {', '.join(known)}.")
        return self.cases[metric].to_numpy(dtype=float)


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read the folder ``evaluation`` that ``--mode inference_eval`` of a bundle leaves, or one of its kind.

    Args:
        folder: the folder with ``summary.json``, ``cases.csv`` and ``bin_statistics.npz``.

    Returns:
        What these files hold.

    Raises:
        UserError: a file is missing or damaged, or the files do not hold the same cases.

    Example:
        >>> read_evaluation("bundles/none/evaluation")
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: bundles/none/evaluation/summary.json does not exist: give the folder of an \
evaluation, which --mode inference_eval of a bundle writes.
    """
    folder = Path(folder)
    summary = _read(folder / "summary.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    cases = _read(folder / "cases.csv", _read_cases)
    arrays = _read(folder / "bin_statistics.npz", _read_arrays)
    if "filename" not in cases or cases["filename"].tolist() != arrays["cases"].tolist():
        raise UserError(
            f"{folder / 'cases.csv'} and {folder / 'bin_statistics.npz'} hold different cases, so they do not stem "
            f"from one evaluation: evaluate again."
        )
    statistics = BinStatistics(*(torch.from_numpy(arrays[name]) for name in BinStatistics._fields))
    return Evaluation(folder, summary, cases, statistics, arrays["classes"].tolist())


def _read(path: Path, read: Any) -> Any:
    try:
        return read(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: give the folder of an evaluation, which --mode inference_eval of a bundle writes."
        ) from None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({plain_reason(error)}): delete the folder and evaluate again."
        ) from None


def _read_cases(path: Path) -> pd.DataFrame:
    # a case may be called 007 or NA
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.astype({name: float for name in table.columns if name != "filename"})


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in (*BinStatistics._fields, "cases", "classes")}
