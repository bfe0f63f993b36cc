"""Results by what is known of the cases besides their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medcalib.compare import Comparison
from medcalib.comparison_page.metric_words import metric_label, words
from medcalib.comparison_page.page_tables import Cell, Table, arrow, number_cell

__all__ = ["stratum_tables"]

MOST_VALUES = 12


def stratum_tables(comparison: Comparison, metrics: Sequence[str]) -> list[Table]:
    """Means of the cases that share the value of an attribute, a table an attribute and metric, means over seeds.

    They are what ``summary.json`` of each evaluation holds as ``strata``. Attributes with very many values are left
    out.
    """
    tables: list[Table] = []
    for attribute, values in _attributes(comparison).items():
        if len(values) > MOST_VALUES:
            continue
        for metric in metrics:
            rows = []
            for method in comparison.evaluations:
                cells = [_cell(comparison, method, attribute, value, metric) for value in values]
                if any(not np.isnan(cell.value if cell.value is not None else np.nan) for cell in cells):
                    rows.append([Cell(method, method=method), *cells])
            if rows:
                title = f"{metric_label(metric)} {arrow(comparison.higher_is_better(metric))} by {words(attribute)}"
                tables.append(
                    Table(title, ["Method", *values], rows, title, key=f"strata-{attribute}-{metric}", open=not tables)
                )
    return tables


def _attributes(comparison: Comparison) -> dict[str, list[str]]:
    """Values of every attribute, in the order in which they first occur."""
    found: dict[str, dict[str, None]] = {}
    for evaluations in comparison.evaluations.values():
        for one in evaluations:
            for attribute, values in _strata(one.summary).items():
                found.setdefault(attribute, {}).update(dict.fromkeys(values))
    return {attribute: list(values) for attribute, values in found.items()}


def _strata(summary: dict[str, Any] | None) -> dict[str, dict[str, dict[str, Any]]]:
    return (summary or {}).get("strata") or {}


def _cell(comparison: Comparison, method: str, attribute: str, value: str, metric: str) -> Cell:
    parts = [
        part
        for one in comparison.evaluations[method]
        if (part := _strata(one.summary).get(attribute, {}).get(value)) and part.get(metric) is not None
    ]
    if not parts:
        return number_cell(None)
    cases = min(int(part.get("num_cases", 0)) for part in parts)
    return number_cell(float(np.mean([part[metric] for part in parts])), f"n = {cases}")
