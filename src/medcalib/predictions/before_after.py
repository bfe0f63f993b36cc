"""Evaluate predictions before and after their calibration, and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from medcalib.compare.bootstrap import bootstrap_interval
from medcalib.compare.evaluations import read_evaluation
from medcalib.files.result_tables import write_table
from medcalib.predictions.evaluating import PredictionSource, write_evaluation
from medcalib.task import Task

__all__ = ["write_before_and_after"]

METRICS = ("mean_dice", "nll", "nll_categorical", "brier", "macro_ece", "macro_ace", "macro_mce")


def write_before_and_after(
    folder: Path,
    sources: Mapping[str, PredictionSource],
    cases: Sequence[str],
    *,
    task: Task,
    num_bins: int,
    provenance: Mapping[str, Any],
    device: torch.device,
    poor_below: float | None = None,
    of: str = "",
    split: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Write the evaluations ``before`` and ``after`` and ``comparison.csv`` to a folder, and print them.

    Args:
        folder: the folder.
        sources: the predictions ``before`` and ``after``.
        cases: case ids.
        task: what is predicted.
        num_bins: number of bins of the calibration errors.
        provenance: what ``summary.json`` says of both; of ``before`` without ``calibrator``.
        device: where metrics are computed.
        poor_below: as of `write_evaluation`.
        of: what is evaluated, where it must be said in the headings that are printed.
        split: as of `write_evaluation`.

    Returns:
        The rows of ``comparison.csv`` by metric.

    Raises:
        UserError: as :func:`~medcalib.predictions.evaluate_predictions`.
    """
    for title, source in sources.items():
        print(f"\n{title.capitalize()} calibration{of and f', {of}'}:")
        write_evaluation(
            source,
            cases,
            folder / title,
            task=task,
            num_bins=num_bins,
            provenance={**provenance, "calibrator": provenance["calibrator"] if title == "after" else None},
            device=device,
            title=f"evaluating {title}",
            poor_below=poor_below,
            split=split,
        )
    comparison = _comparison(folder)
    write_table(comparison, folder / "comparison.csv")
    print(f"\n{comparison.to_string(index=False, float_format=lambda value: f'{value:.4f}', na_rep='-')}")
    return comparison.set_index("metric").to_dict("index")


def _comparison(folder: Path) -> pd.DataFrame:
    """Every metric before and after, and how far their difference could have turned out otherwise."""
    before, after = (read_evaluation(folder / name) for name in ("before", "after"))
    earlier, later = before.summary or {}, after.summary or {}
    rows = []
    for metric in METRICS:
        if before.cases is None or metric not in before.cases:
            continue
        interval = bootstrap_interval(after.values(metric) - before.values(metric))
        rows.append(
            {
                "metric": metric,
                "before": earlier[metric],
                "after": later[metric],
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "num_cases": interval.num_cases,
            }
        )
    return pd.DataFrame(rows)
