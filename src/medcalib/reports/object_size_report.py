"""Report results for small, medium and large objects of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from medcalib.errors import UserError, suggestion
from medcalib.files.result_tables import write_table
from medcalib.functional import every_calibration_error
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import BINNED, OBJECT_SIZES, results_of
from medcalib.task import Task

__all__ = ["ObjectSizeReportHandler", "size_limits", "size_table"]

Limits = Sequence[float] | Mapping[str, Sequence[float]]

SIZES = ("small", "medium", "large")
_PRINTED = {"mean_dice": "Dice", "macro_ece": "ECE", "macro_ace": "ACE", "micro_ece": "pooled ECE", "brier": "Brier"}


class ObjectSizeReportHandler:
    """Report every metric for small, medium and large objects of each class, an object being all of it in a case.

    Writes ``object_sizes.csv`` and prints its main columns: a row for each class and size, with the volumes in ml from
    which and below which it counts, the number of cases, the mean over these cases of each metric that has a value for
    each class, and the calibration errors of their pooled bins. A class that a case lacks has no size there. Needs a
    `medcalib.handlers.ObjectSizesHandler` and a `medcalib.handlers.CalibrationErrorHandler` on the same engine.

    Args:
        folder: where the table goes.
        task: which classes are reported.
        limits_ml: volumes at which medium and large objects begin, for all classes or by the name of each; when None
            the tertiles of the calibration cases, so that a third of them is of each size.
        calibration_evaluator: engine over the calibration cases, with an `medcalib.handlers.ObjectSizesHandler`, too,
            that has run when the epoch ends; without it, or if no case was seen, tertiles are those of the evaluated
            cases, which is said.

    Raises:
        UserError: ``limits_ml`` is not two rising numbers for each class.

    Example:
        >>> from medcalib.handlers import CalibrationErrorHandler, ObjectSizesHandler
        >>> task = Task(["background", "organ"])
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> report = ObjectSizeReportHandler(folder, task, limits_ml=[2, 10])
        >>> for handler in (folder, CalibrationErrorHandler(task), ObjectSizesHandler(task), report):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        task: Task,
        limits_ml: Limits | None = None,
        calibration_evaluator: Engine | None = None,
    ) -> None:
        self.folder = folder
        self.classes = task.reported_classes
        self.limits = None if limits_ml is None else size_limits(limits_ml, self.classes)
        self.calibration_evaluator = calibration_evaluator

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).need(self, BINNED, OBJECT_SIZES)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        results_of(engine).complete()
        # every process takes part in what is gathered
        limits, origin = self._limits(results_of(engine)[OBJECT_SIZES])
        if not self.folder.writes:
            return
        rows = results_of(engine)[BINNED].first_rows()
        binned = results_of(engine)[BINNED].unique()
        details = {
            name: np.array(values.detach().cpu(), dtype=float)[rows]
            for name, values in engine.state.metric_details.items()
            if values.shape[1] == len(self.classes)
        }
        table = size_table(results_of(engine)[OBJECT_SIZES][rows].numpy(), limits, details, binned)
        write_table(table, self.folder.file("object_sizes.csv"))
        self.folder.tell(_text(table, origin))

    def _limits(self, sizes: Any) -> tuple[dict[str, tuple[float, float]], str]:
        if self.limits is not None:
            return self.limits, "as given"
        origin, others = "tertiles of the evaluated cases", sizes
        if self.calibration_evaluator is not None:
            found = results_of(self.calibration_evaluator).get(OBJECT_SIZES)
            if found is not None and len(found):
                origin, others = "tertiles of the calibration cases", found
        limits = {}
        for index, name in enumerate(self.classes):
            known = others[:, index].numpy()
            known = known[known > 0]
            low, high = np.quantile(known, (1 / 3, 2 / 3)) if known.size else (np.nan, np.nan)
            limits[name] = (float(low), float(high))
        return limits, origin


def size_limits(given: Limits, classes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The volumes at which medium and large objects of each class begin.

    Args:
        given: two for all classes, or by the name of each class.
        classes: their names.

    Raises:
        UserError: a class is missing, or its limits are not two rising numbers above 0.

    Example:
        >>> size_limits([2, 10], ["organ", "lesion"])
        {'organ': (2.0, 10.0), 'lesion': (2.0, 10.0)}
    """
    by_class = given if isinstance(given, Mapping) else dict.fromkeys(classes, given)
    limits = {}
    for name in classes:
        if name not in by_class:
            raise UserError(
                f"object_sizes::limits_ml has no limits of the class {name}{suggestion(name, map(str, by_class))}"
            )
        values = by_class[name]
        numbers = isinstance(values, list | tuple) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        if not numbers or len(values) != 2 or not 0 < values[0] < values[1]:
            raise UserError(
                f"object_sizes::limits_ml must hold the volumes in ml at which medium and large objects begin, such as "
                f"[2,10], not {values!r}."
            )
        limits[name] = (float(values[0]), float(values[1]))
    return limits


def size_table(
    sizes: NDArray, limits: Mapping[str, tuple[float, float]], details: Mapping[str, NDArray], binned: BinnedCases
) -> pd.DataFrame:
    """A row for each class and size.

    Args:
        sizes: volumes in ml, (case, class); 0 where a class is absent.
        limits: at which medium and large begin, by class.
        details: values by metric, (case, class).
        binned: bin statistics of the cases.

    Returns:
        ``class``, ``size``, ``from_ml``, ``below_ml``, ``num_cases``, a column for each metric, the mean over the cases
        without NaN, and ``micro_ece``, ``micro_ace``, ``micro_mce``; NaN where there is no case.
    """
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(binned.classes):
        ends = (0.0, *limits[name], np.inf)
        for number, size in enumerate(SIZES):
            volumes = sizes[:, index]
            chosen = (volumes > 0) & (volumes >= ends[number]) & (volumes < ends[number + 1])
            row = {"class": name, "size": size, "from_ml": ends[number], "below_ml": ends[number + 1]}
            row["num_cases"] = int(chosen.sum())
            for metric, values in details.items():
                known = values[chosen, index][~np.isnan(values[chosen, index])]
                row[metric] = float(known.mean()) if known.size else np.nan
            pooled = binned.rows(np.flatnonzero(chosen).tolist()).statistics.pool()
            for metric, errors in every_calibration_error(pooled).items():
                row[f"micro_{metric}"] = errors[0, index].item() if chosen.any() else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def _text(table: pd.DataFrame, origin: str) -> str:
    shown = {"cases": table["num_cases"], **{title: table[name] for name, title in _PRINTED.items() if name in table}}
    rows = pd.DataFrame(shown)
    rows.index = pd.Index([f"{name}, {size}" for name, size in zip(table["class"], table["size"], strict=True)])
    medium = table[table["size"] == "medium"]
    ends = [
        f"{name} {low:.3g} and {high:.3g} ml"
        for name, low, high in zip(medium["class"], medium["from_ml"], medium["below_ml"], strict=True)
    ]
    numbers = rows.to_string(float_format=lambda value: f"{value:.4f}", na_rep="-")
    return f"\n{numbers}\n\nMedium and large begin at ({origin}): {'; '.join(ends)}."
