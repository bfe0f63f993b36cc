"""Read the folders that evaluations leave."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medcalib.compare.evaluation_files import (
    read_arrays,
    read_cases,
    read_json,
    read_part,
    read_summary,
    statistics_of,
)
from medcalib.compare.image_scores import case_tables_of_images, top_label_tables
from medcalib.compare.raw_tables import RAW, case_ids, is_pooled, read_raw_table
from medcalib.errors import UserError, suggestion
from medcalib.functional import BinStatistics

__all__ = ["Evaluation", "find_evaluations", "read_evaluation"]

_ADVICE = "give the folder of an evaluation, which --mode inference_eval of a bundle writes"
_SEED_FOLDER = re.compile(r"seed_(\d+)(_debug)?")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation; what its folder lacks is None.

    Attributes:
        folder: where they were read.
        metrics: by metric, one row a case, the case id as index, one column a class and ``mean``; NaN where a case has
            no value. A metric that was computed once from all cases has one row, ``dataset``.
        summary: what ``summary.json`` holds; numbers that do not exist are None.
        cases: what ``cases.csv`` holds, one row a case, ``filename`` the case id; attributes of cases are texts.
        statistics: bin statistics (case, class, bin), in the order of the rows of ``cases``.
        top_label: of classified images, bin statistics of the predicted class, (case, 1, bin).
        class_names: names of the evaluated classes.
        quality_control: what ``quality_control.json`` holds.
        retention: of classified images, what ``retention.json`` holds.
        seed: seed of the training.
    """

    folder: Path
    metrics: dict[str, pd.DataFrame]
    summary: dict[str, Any] | None = None
    cases: pd.DataFrame | None = None
    statistics: BinStatistics | None = None
    class_names: list[str] = dataclasses.field(default_factory=list)
    quality_control: dict[str, Any] | None = None
    seed: int | None = None
    top_label: BinStatistics | None = None
    retention: dict[str, Any] | None = None

    @property
    def case_ids(self) -> list[str]:
        """The case ids, in the order of all rows."""
        if self.cases is not None:
            return self.cases["filename"].tolist()
        tables = [table for table in self.metrics.values() if not is_pooled(table)]
        return list(dict.fromkeys(case for table in tables for case in table.index))

    @property
    def provenance(self) -> dict[str, Any]:
        """What ``summary.json`` says of how the results came about; empty where it says nothing."""
        return (self.summary or {}).get("provenance") or {}

    @property
    def corruption(self) -> dict[str, Any] | None:
        """How images of its cases were made worse: ``kind``, ``level``, ``strength``; None of images as they are."""
        recorded = self.provenance.get("corruption")
        return recorded if isinstance(recorded, dict) else None

    @property
    def classifies(self) -> bool:
        """Whether whole images are classified, and not their voxels."""
        return self.cases is not None and {"label", "predicted", "correct"} <= set(self.cases.columns)

    @property
    def debug(self) -> bool:
        """Whether this is a trial run with ``--debug``."""
        return any((found := _SEED_FOLDER.fullmatch(part)) and bool(found[2]) for part in self.folder.parts)

    def values(self, metric: str) -> np.ndarray:
        """A metric of every case, mean over classes, (case,), NaN where a case has none.

        Raises:
            UserError: the evaluation has no such metric per case.
        """
        known = [name for name, table in self.metrics.items() if not is_pooled(table)]
        if metric not in known:
            raise UserError(f"{self.folder} has no metric {metric} of each case{suggestion(metric, known, True)}")
        return self.metrics[metric]["mean"].reindex(self.case_ids).to_numpy(dtype=float)


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read the folder ``evaluation`` that ``--mode inference_eval`` of a bundle leaves, or one of its kind.

    A folder that holds nothing but ``<metric>_raw.csv`` files in the shape of MONAI's ``MetricsSaver`` will do. Cases
    are known by their names: ``patient101.nii.gz`` and ``patient101`` are one.

    Args:
        folder: the folder.

    Returns:
        What its files hold.

    Raises:
        UserError: there is no metric in the folder, a file is damaged, or the files do not hold the same cases.

    Example:
        >>> read_evaluation("bundles/none/evaluation")
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: bundles/none/evaluation holds no <metric>_raw.csv: give the folder of an \
evaluation, which --mode inference_eval of a bundle writes.
    """
    folder = Path(folder).expanduser()
    tables = {path.name.removesuffix(RAW): read_raw_table(path) for path in sorted(folder.glob(f"?*{RAW}"))}
    if not tables:
        raise UserError(f"{folder} holds no <metric>_raw.csv: {_ADVICE}.")
    summary = read_part(folder / "summary.json", read_summary)
    strata = (summary or {}).get("strata") or {}
    cases = read_part(folder / "cases.csv", lambda path: read_cases(path, list(strata)))
    arrays = read_part(folder / "bin_statistics.npz", read_arrays)
    if cases is not None and arrays is not None and cases["filename"].tolist() != case_ids(arrays["cases"].tolist()):
        raise UserError(
            f"{folder / 'cases.csv'} and {folder / 'bin_statistics.npz'} hold different cases, so they do not stem "
            f"from one evaluation: evaluate again."
        )
    if cases is not None:
        _check_rows(folder, tables, cases["filename"].tolist())
    evaluation = Evaluation(
        folder,
        tables,
        summary,
        cases,
        None if arrays is None else statistics_of(arrays, ""),
        _class_names(tables) if arrays is None else arrays["classes"].tolist(),
        read_part(folder / "quality_control.json", read_json),
        _seed(folder, summary),
        statistics_of(arrays, "top_label_") if arrays is not None and "top_label_counts" in arrays else None,
        read_part(folder / "retention.json", read_json),
    )
    if evaluation.classifies and cases is not None:
        tables.update(case_tables_of_images(cases, evaluation.statistics, evaluation.class_names))
        if evaluation.top_label is not None:
            tables.update(top_label_tables(evaluation.top_label))
    return evaluation


def find_evaluations(folder: str | Path) -> list[Path]:
    """The evaluations that lie in a folder.

    Args:
        folder: of an evaluation, which gives itself; of a seed of a bundle, ``seed_<n>``, which gives its own; or of a
            bundle, which gives that of every seed. Trial runs with ``--debug`` are left out where there are others.

    Returns:
        Folders of evaluations, seeds in order.

    Raises:
        UserError: there is none.

    Example:
        >>> find_evaluations("bundles/none")
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: bundles/none is no folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder.")
    if any(folder.glob(f"*{RAW}")):
        return [folder]
    if any((folder / "evaluation").glob(f"*{RAW}")):
        return [folder / "evaluation"]
    found: list[tuple[bool, int, Path]] = []
    for path in folder.glob("seed_*/evaluation"):
        if (seed := _SEED_FOLDER.fullmatch(path.parent.name)) and any(path.glob(f"*{RAW}")):
            found.append((bool(seed[2]), int(seed[1]), path))
    if not found:
        raise UserError(
            f"{folder} holds no evaluation: run the bundle with --mode inference_eval, or give the folder that holds "
            f"<metric>_raw.csv."
        )
    debug = all(trial for trial, _, _ in found)
    return [path for trial, _, path in sorted(found) if trial == debug]


def _check_rows(folder: Path, tables: dict[str, pd.DataFrame], ids: list[str]) -> None:
    for metric, table in tables.items():
        if is_pooled(table):
            continue
        for case in [*(one for one in ids if one not in table.index), *(one for one in table.index if one not in ids)]:
            has, other = (RAW, "cases.csv") if case in table.index else ("cases.csv", RAW)
            has, other = (f"{metric}{RAW}" if name == RAW else name for name in (has, other))
            raise UserError(
                f"{folder / has} holds case {case}, but {other} beside it does not, so that one of them is damaged: "
                f"evaluate again."
            )


def _class_names(tables: dict[str, pd.DataFrame]) -> list[str]:
    return list(dict.fromkeys(name for table in tables.values() for name in table.columns[:-1]))


def _seed(folder: Path, summary: dict[str, Any] | None) -> int | None:
    known = ((summary or {}).get("provenance") or {}).get("seed")
    if isinstance(known, int):
        return known
    found = [match[1] for part in folder.parts if (match := _SEED_FOLDER.fullmatch(part))]
    return int(found[-1]) if found else None
