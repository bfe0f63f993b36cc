"""Write the results of an evaluation and print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from torch import Tensor

from medcalib.errors import UserError
from medcalib.files.result_tables import (
    case_table,
    joined_table,
    overall_table,
    summary_table,
    write_metrics,
    write_table,
)
from medcalib.files.writing import write_json
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import BINNED, BOUNDARY_BINNED, CASE_SCORES, results_of
from medcalib.reports.debiased_tables import debiased_tables
from medcalib.reports.strata import (
    case_attributes,
    check_attribute_names,
    strata,
    strata_text,
    with_attributes,
)

__all__ = ["EvaluationReportHandler"]

_PRINTED = {
    "mean_dice": "Dice",
    "macro_ece": "ECE",
    "macro_ace": "ACE",
    "macro_mce": "MCE",
    "nll": "NLL",
    "brier": "Brier",
    "macro_boundary_ece": "boundary ECE",
    "macro_boundary_ace": "boundary ACE",
    "surface_dice": "surface Dice",
    "hd95": "HD95",
}


class EvaluationReportHandler:
    """Turn the metrics of an evaluation into tables, ``summary.json`` and a printed table.

    Reads ``engine.state.metric_details`` (case, class) and the bins of a `medcalib.handlers.CalibrationErrorHandler`,
    which it needs on the same engine. A case that several ranks saw counts once. A class that the ground truth of a
    case lacks is NaN in that case's row of every metric.

    Writes, for every metric, ``<metric>_raw.csv`` (one row per case, or one row called ``dataset``) and
    ``<metric>_summary.csv``; ``metrics.csv`` with the mean of each over the cases; ``summary.json`` with the same
    numbers, the values per class, over how many cases each was taken, the cases that lack a class, and the provenance;
    ``cases.csv``, one row per case, with the mean of each metric and each score of an `UncertaintyScoresHandler`; and
    ``bin_statistics.npz`` with ``counts``, ``sum_pred``, ``sum_true`` (case, class, bin), ``cases`` and ``classes``.
    With a `medcalib.handlers.BoundaryCalibrationHandler` on the engine, ``boundary_bin_statistics.npz`` holds the same
    of the bands at the boundaries.

    Where cases have attributes, such as vendor and centre, these are columns of ``cases.csv`` after ``filename``, and
    ``summary.json`` holds, as ``strata``, by attribute and value the results of the cases that have it.

    Args:
        folder: where the files go.
        split: the dataset's split, which says what the attributes of its cases are; none when None.
        overall_metrics: metrics that have one value per case, over all classes together, and none per class.

    Raises:
        UserError: an attribute has the name of a metric; of those that only this evaluation has, when it ends. Then
            too: a metric has neither one value for each class nor one for each case.

    Example:
        >>> from medcalib.handlers import CalibrationErrorHandler
        >>> from medcalib.task import Task
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> found = CalibrationErrorHandler(Task(["background", "organ"]))
        >>> for handler in (folder, found, EvaluationReportHandler(folder)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        split: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        overall_metrics: Sequence[str] = ("nll_categorical",),
    ) -> None:
        self.folder = folder
        self.overall_metrics = frozenset(overall_metrics)
        self.attributes = case_attributes(split or {})
        # before anything is predicted
        check_attribute_names(self.attributes, ["filename", *_PRINTED])

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, BINNED)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        results_of(engine).complete()
        if not self.folder.writes:
            return
        binned = results_of(engine)[BINNED].unique()
        absent = binned.absent().numpy()
        band: BinnedCases | None = results_of(engine).get(BOUNDARY_BINNED)
        band = None if band is None else band.unique()
        tables = self._tables(engine, binned, band, absent)
        for name, table in tables.items():
            write_table(table, self.folder.file(f"{name}_raw.csv"))
            write_table(summary_table(table), self.folder.file(f"{name}_summary.csv"))
        by_case = joined_table(tables | self._scores(engine, binned.cases))
        write_table(with_attributes(by_case, self.attributes), self.folder.file("cases.csv"))
        metrics = {name: float(table["mean"].mean()) for name, table in tables.items()}
        write_metrics(metrics, self.folder.file("metrics.csv"))
        by_attribute = strata(tables, binned, self.attributes)
        summary = {
            **metrics,
            "num_cases": len(binned.cases),
            "per_class": {
                name: {c: float(table[c].mean()) for c in table.columns[1:-1]} for name, table in tables.items()
            },
            "num_values": {
                name: {c: int(table[c].notna().sum()) for c in table.columns[1:]} for name, table in tables.items()
            },
            "cases_without_class": {
                name: [case for case, without in zip(binned.cases, absent[:, index], strict=True) if without]
                for index, name in enumerate(binned.classes)
            },
            **({"strata": by_attribute} if by_attribute else {}),
            "provenance": self.folder.provenance,
        }
        write_json(self.folder.file("summary.json"), summary)
        self._save("bin_statistics.npz", binned)
        if band is not None:
            self._save("boundary_bin_statistics.npz", band)
        self.folder.tell("\n".join([self._text(tables, binned.classes), strata_text(by_attribute, _PRINTED)]).rstrip())

    def _save(self, name: str, binned: BinnedCases) -> None:
        np.savez_compressed(
            self.folder.file(name),
            **{part: values.numpy() for part, values in binned.statistics._asdict().items()},
            cases=np.array(binned.cases),
            classes=np.array(binned.classes),
        )

    def _tables(
        self, engine: Engine, binned: BinnedCases, band: BinnedCases | None, absent: np.ndarray
    ) -> dict[str, pd.DataFrame]:
        results, cases, classes, tables = results_of(engine), binned.cases, binned.classes, {}
        rows = results[BINNED].first_rows()
        for metric, details in engine.state.metric_details.items():
            values = np.array(details.detach().cpu(), dtype=float)[rows]
            if metric in self.overall_metrics or (values.shape[1] == 1 and len(classes) > 1):
                tables[metric] = overall_table(cases, values[:, 0])
                continue
            if values.shape[1] != len(classes):
                raise UserError(
                    f"The metric {metric} has {values.shape[1]} values for each case, but {len(classes)} classes are "
                    f"evaluated, {', '.join(classes)}; give it the same include_background as the others."
                )
            tables[metric] = case_table(cases, classes, np.where(absent, np.nan, values))
        micro = binned.micro_errors() | ({} if band is None else band.micro_errors("boundary_"))
        for metric, details in micro.items():
            tables[metric] = case_table(["dataset"], classes, details.numpy()[None])
        return tables | debiased_tables(binned)

    def _scores(self, engine: Engine, cases: list[str]) -> dict[str, pd.DataFrame]:
        # made without looking at labels, so that a class that the label lacks does not matter
        scores: dict[str, Tensor] = results_of(engine).get(CASE_SCORES) or {}
        rows = results_of(engine)[BINNED].first_rows()
        return {name: overall_table(cases, of_cases[rows].nanmean(1).numpy()) for name, of_cases in scores.items()}

    def _text(self, tables: dict[str, pd.DataFrame], classes: Sequence[str]) -> str:
        shown = {title: tables[name] for name, title in _PRINTED.items() if name in tables}
        rows = pd.DataFrame(
            {title: [table[c].mean() for c in [*classes, "mean"]] for title, table in shown.items()},
            index=[*classes, "mean"],
        )
        micro = {name: tables[f"micro_{name}"]["mean"].mean() for name in ("ece", "ace", "mce")}
        pooled = ", ".join(f"{name.upper()} {value:.4f}" for name, value in micro.items())
        squared, left = (tables[f"micro_rmsce{kind}"]["mean"].mean() for kind in ("", "_debiased"))
        num_cases = len(next(iter(shown.values())))
        return (
            f"\n{rows.to_string(float_format=lambda value: f'{value:.4f}', na_rep='-')}\n\n"
            f"Mean over {num_cases} cases; a case that lacks a class is left out of its row.\n"
            f"Pooled over all voxels of all cases: {pooled}.\n"
            f"Root mean square calibration error {squared:.4f}; less what chance adds to that of {num_cases} cases "
            f"{left:.4f}."
        )
