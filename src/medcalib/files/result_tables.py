"""Tables of results, all written the same way: comma-separated, full precision, NaN as ``nan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["case_table", "joined_table", "overall_table", "summary_table", "write_metrics", "write_table"]

SUMMARY_OPS = ("mean", "median", "max", "5percentile", "95percentile", "notnans")


def case_table(cases: Sequence[str], columns: Sequence[str], values: np.ndarray) -> pd.DataFrame:
    """One row per case: ``filename``, one column per class, their ``mean`` without NaN.

    Args:
        cases: case ids.
        columns: class names.
        values: (case, class).
    """
    values = np.asarray(values, dtype=float)
    table = pd.DataFrame(values, columns=list(columns))
    table.insert(0, "filename", list(cases))
    table["mean"] = pd.DataFrame(values).mean(axis=1, skipna=True)
    return table


def overall_table(cases: Sequence[str], values: np.ndarray) -> pd.DataFrame:
    """A case table of a metric that has one value per case and none per class.

    Args:
        cases: case ids.
        values: (case,).
    """
    return pd.DataFrame({"filename": list(cases), "mean": np.asarray(values, dtype=float)})


def joined_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per case: ``filename``, and the ``mean`` of every table that has a row for each case.

    Args:
        tables: case tables by metric, the first of which has a row for each case.
    """
    cases = next(iter(tables.values()))["filename"]
    columns = {name: table["mean"] for name, table in tables.items() if table["filename"].equals(cases)}
    return pd.DataFrame({"filename": cases, **columns})


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per column of a case table: its mean, median, maximum, percentiles and number of values, without NaN."""
    rows = []
    for name in table.columns[1:]:
        values = table[name].dropna().to_numpy()
        some = values.size > 0
        rows.append(
            {
                "class": name,
                "mean": values.mean() if some else np.nan,
                "median": np.median(values) if some else np.nan,
                "max": values.max() if some else np.nan,
                "5percentile": np.percentile(values, 5) if some else np.nan,
                "95percentile": np.percentile(values, 95) if some else np.nan,
                "notnans": values.size,
            }
        )
    return pd.DataFrame(rows, columns=["class", *SUMMARY_OPS])


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table that ``pandas.read_csv`` reads back unchanged."""
    table.to_csv(path, index=False, na_rep="nan")


def write_metrics(metrics: Mapping[str, float], path: Path) -> None:
    """Write ``metric,value`` rows."""
    write_table(pd.DataFrame({"metric": list(metrics), "value": list(metrics.values())}), path)
