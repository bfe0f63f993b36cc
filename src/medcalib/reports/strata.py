"""Results by what is known of the cases besides their images, such as vendor and centre."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medcalib.errors import UserError
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.keys import CaseKeys

__all__ = ["case_attributes", "check_attribute_names", "strata", "strata_text", "with_attributes"]

Attributes = Mapping[str, Mapping[str, str]]

FILENAME = "filename"
NUM_CASES = "num_cases"
NUM_VALUES = "num_values"
# an attribute such as the age of a patient has nearly as many values as there are cases
LARGEST_PRINTED = 20


def case_attributes(split: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """Attributes of every case of a split, as texts, by case id and name; a case that has none is left out.

    Raises:
        UserError: the attributes of a case are no mapping.

    Example:
        >>> case_attributes({"test": [{"case": "a", "attributes": {"centre": 1}}, {"case": "b"}]})
        {'a': {'centre': '1'}}
    """
    found = {}
    for case in (case for cases in split.values() for case in cases):
        attributes = case.get(CaseKeys.ATTRIBUTES) or {}
        if not isinstance(attributes, Mapping):
            raise UserError(
                f"Case {case[CaseKeys.CASE]}: its attributes must be texts by name, such as {{'vendor': 'A'}}, not "
                f"{attributes!r}; correct the function that data::cases names."
            )
        if known := {str(name): str(value) for name, value in attributes.items() if value is not None}:
            found[str(case[CaseKeys.CASE])] = known
    return found


def check_attribute_names(attributes: Attributes, taken: Collection[str]) -> None:
    """Check that no attribute has the name of another column of the case table.

    Args:
        attributes: of each case, by its id.
        taken: names of the other columns.

    Raises:
        UserError: one has.
    """
    for name in _names(attributes.values()):
        if name in taken:
            raise UserError(
                f"The cases have an attribute {name!r}, which is also the name of a column of results in cases.csv; "
                f"rename the attribute in the function that data::cases names."
            )


def with_attributes(table: pd.DataFrame, attributes: Attributes) -> pd.DataFrame:
    """A case table with a column for each attribute after ``filename``; NaN where a case lacks one.

    Args:
        table: one row per case, with the case id as ``filename``.
        attributes: of each case, by its id; those of other cases are left out.

    Raises:
        UserError: an attribute has the name of another column.

    Example:
        >>> with_attributes(pd.DataFrame({"filename": ["a"], "nll": [0.5]}), {"a": {"vendor": "A"}})
          filename vendor  nll
        0        a      A  0.5
    """
    rows = [attributes.get(case, {}) for case in table[FILENAME]]
    names = _names(rows)
    check_attribute_names({"": dict.fromkeys(names, "")}, list(table.columns))
    result = table.copy()
    for place, name in enumerate(names, start=1):
        result.insert(place, name, pd.Series([row.get(name) for row in rows], index=table.index, dtype=object))
    return result


def strata(
    tables: Mapping[str, pd.DataFrame], binned: BinnedCases, attributes: Attributes
) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of the cases that have the same value of an attribute.

    They are what an evaluation of these cases alone would give: the mean over its cases of every metric that has a
    value for each case, and the calibration errors of its pooled bins. A case that lacks an attribute is in none of its
    strata.

    Args:
        tables: case tables by metric.
        binned: bin statistics of the same cases, each once.
        attributes: of each case, by its id.

    Returns:
        By attribute and value, values in order: ``num_cases``, ``micro_ece``, ``micro_ace``, ``micro_mce``, each
        metric, NaN where no case of the stratum has a value, and as ``num_values`` over how many cases the metric, and
        its value for each class, was taken.
    """
    rows = [attributes.get(case, {}) for case in binned.cases]
    return {
        name: {
            value: _stratum(tables, binned, [row.get(name) == value for row in rows])
            for value in sorted({row[name] for row in rows if name in row}, key=_in_order)
        }
        for name in _names(rows)
    }


def strata_text(found: Mapping[str, Mapping[str, Mapping[str, Any]]], titles: Mapping[str, str]) -> str:
    """Tables to be printed, one for each attribute.

    Args:
        found: what `strata` returns.
        titles: the metrics that are shown, and how they are called.

    Returns:
        The tables, each after an empty line; of an attribute with very many values only their number.
    """
    parts = []
    for attribute, by_value in found.items():
        if len(by_value) > LARGEST_PRINTED:
            parts.append(f"\n{attribute}: {len(by_value)} values, see summary.json.")
            continue
        table = pd.DataFrame(
            {
                "cases": [part[NUM_CASES] for part in by_value.values()],
                **{
                    title: [part[name] for part in by_value.values()]
                    for name, title in titles.items()
                    if all(name in part for part in by_value.values())
                },
            },
            index=pd.Index(by_value, name=attribute),
        )
        text = table.rename_axis(index=None, columns=attribute).to_string(
            float_format=lambda value: f"{value:.4f}", na_rep="-"
        )
        parts.append(f"\n{text}")
    return "\n".join(parts)


def _stratum(tables: Mapping[str, pd.DataFrame], binned: BinnedCases, chosen: Sequence[bool]) -> dict[str, Any]:
    inside = np.array(chosen)
    of_cases = {name: table[inside] for name, table in tables.items() if table[FILENAME].tolist() == binned.cases}
    means: dict[str, Any] = {name: float(table["mean"].mean()) for name, table in of_cases.items()}
    micro = binned.rows(np.flatnonzero(inside).tolist()).micro_errors()
    means |= {name: errors.nanmean().item() for name, errors in micro.items()}
    means[NUM_VALUES] = {
        name: {column: int(table[column].notna().sum()) for column in table.columns[1:]}
        for name, table in of_cases.items()
    }
    return {NUM_CASES: int(inside.sum()), **means}


def _names(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Names of attributes in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _in_order(value: str) -> tuple[float, str]:
    """Numbers by size, before all other texts."""
    return (float(value), value) if value.isdecimal() else (float("inf"), value)
