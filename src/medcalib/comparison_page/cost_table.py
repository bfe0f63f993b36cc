"""What every method costs: time and memory."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medcalib.bundle.layout import COST
from medcalib.compare import Comparison, Evaluation
from medcalib.comparison_page.metric_words import UNKNOWN
from medcalib.comparison_page.page_tables import Cell, Table
from medcalib.errors import UserError
from medcalib.files.writing import read_json

__all__ = ["cost_table", "memory_text", "time_text"]

TRAINING = "train"
PER_CASE = {"inference_pred": "Prediction, s per case", "inference_eval": "Evaluation, s per case"}


def cost_table(comparison: Comparison) -> Table | None:
    """Time and memory of every method, from the files in ``cost/`` beside ``evaluation/``; None without any.

    Times are means over seeds, memory is the largest of all runs.
    """
    found = {
        name: [costs for one in evaluations if (costs := _costs_of(one))]
        for name, evaluations in comparison.evaluations.items()
    }
    if not any(found.values()):
        return None
    devices = sorted(
        {
            str(cost.get("cpu") if cost.get("device") in (None, "cpu") else cost["device"])
            for seeds in found.values()
            for costs in seeds
            for cost in costs.values()
            if cost.get("cpu") or cost.get("device")
        }
    )
    rows = [
        [
            Cell(name, method=name),
            _time_cell([_number(costs.get(TRAINING, {}).get("seconds")) for costs in seeds]),
            *(_per_case_cell([_per_case(costs.get(mode, {})) for costs in seeds]) for mode in PER_CASE),
            *(_memory_cell(seeds, key) for key in ("peak_memory_bytes", "peak_gpu_memory_bytes")),
        ]
        for name, seeds in found.items()
    ]
    caption = "Time (mean over seeds) and largest memory of all runs"
    caption += f", measured on {'; '.join(devices)}" if devices else ""
    if any(_saved(cost) for seeds in found.values() for costs in seeds for cost in costs.values()):
        caption += "; predictions that were read from a cache count with the time that they took at first"
    caption += ". A dash: not measured, or the training is another method's."
    return Table(caption, ["Method", "Training", *PER_CASE.values(), "Memory", "GPU memory"], rows, key="cost")


def _costs_of(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    # an evaluation with settings of its own lies elsewhere in the bundle than the training
    training = _training_folder(evaluation)
    of_training = {} if training is None else _costs(training / COST)
    shared = {mode: cost for mode, cost in of_training.items() if mode == TRAINING}
    return shared | _costs(evaluation.folder.parent / COST)


def _training_folder(evaluation: Evaluation) -> Path | None:
    """Where the results of the bundle's own training lie; None where it used weights of another bundle."""
    checkpoint = PurePosixPath(str(evaluation.provenance.get("checkpoint")))
    bundle = evaluation.provenance.get("bundle")
    if len(checkpoint.parts) < 3 or checkpoint.parts[0] != bundle:
        return None
    return next(
        (parent.joinpath(*checkpoint.parts[1:-2]) for parent in evaluation.folder.parents if parent.name == bundle),
        None,
    )


def _costs(folder: Path) -> dict[str, dict[str, Any]]:
    """What is known of each mode; a damaged file counts as none."""
    costs = {}
    for path in sorted(folder.glob("*.json")):
        try:
            costs[path.stem] = read_json(path, "run the mode again")
        except UserError:
            continue
    return costs


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def _per_case(cost: dict[str, Any]) -> float:
    cases = _number(cost.get("num_cases"))
    # what a method costs does not depend on who was the first to predict
    return (_number(cost.get("seconds")) + _saved(cost)) / cases if cases > 0 else np.nan


def _saved(cost: dict[str, Any]) -> float:
    saved = _number(cost.get("seconds_saved"))
    return 0.0 if np.isnan(saved) else saved


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _time_cell(values: list[float]) -> Cell:
    mean = _known_mean(values)
    return Cell(time_text(mean), mean)


def _per_case_cell(values: list[float]) -> Cell:
    mean = _known_mean(values)
    return Cell(UNKNOWN if np.isnan(mean) else f"{mean:.3g}", mean)


def _memory_cell(seeds: list[dict[str, dict[str, Any]]], key: str) -> Cell:
    largest = max(
        (_number(cost.get(key)) for costs in seeds for cost in costs.values() if cost.get(key)), default=np.nan
    )
    return Cell(memory_text(largest), largest)


def time_text(seconds: float) -> str:
    """A duration.

    Example:
        >>> time_text(12.34), time_text(3725), time_text(600), time_text(float("nan"))
        ('12.3 s', '1 h 02 min', '10 min 00 s', '–')
    """
    if math.isnan(seconds):
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def memory_text(size: float) -> str:
    """A number of bytes.

    Example:
        >>> memory_text(2.5e9), memory_text(3e6), memory_text(float("nan"))
        ('2.5 GB', '3 MB', '–')
    """
    if math.isnan(size):
        return UNKNOWN
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
