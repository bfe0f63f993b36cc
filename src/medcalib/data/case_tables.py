"""Tables of what is known of cases beside their files: one row for each, with the column ``case``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from medcalib.data.cases import Case
from medcalib.data.given_splits import column_parts, named_part
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["case_rows", "column_num_folds", "table_parts"]

_COLUMN = "case"


def case_rows(
    root: Path,
    table: str | None,
    columns: Sequence[str],
    names: Sequence[str],
    may_be_empty: Collection[str | None] = (),
) -> dict[str, dict[str, str]]:
    """The rows of a table about cases, by case id.

    Args:
        root: folder below which it lies.
        table: path of the table; None if there is none.
        columns: columns that are needed.
        names: ids of cases that need a row with a value in each of them.
        may_be_empty: those of the columns in which a case may have no value.

    Raises:
        UserError: the table, a column, a row or a value is missing, or a case has two rows.

    Example:
        >>> case_rows(Path(), None, [], ["a"])
        {}
    """
    if table is None:
        if columns:
            raise UserError(f"data::cases names the column '{columns[0]}', but no table, the csv that has it.")
        return {}
    path = root / Path(table).expanduser()
    if not path.is_file():
        raise UserError(f"The table '{path}' does not exist: correct table in data::cases.")
    have, listed = read_table(path)
    if lacking := [column for column in (_COLUMN, *columns) if column not in have]:
        raise UserError(
            f"'{path}' lacks the column '{lacking[0]}', it has {', '.join(filter(None, have)) or 'none'}: add it, or "
            f"correct its name in data::cases."
        )
    rows: dict[str, dict[str, str]] = {}
    for row in listed:
        if row[_COLUMN] in rows:
            raise UserError(f"'{path}' has two rows for '{row[_COLUMN]}': remove one.")
        rows[row[_COLUMN]] = row
    for name in names:
        if name not in rows:
            short = name.lstrip("0")
            raise UserError(
                f"'{path}' has no row for case '{name}': "
                + (f"it has one for '{short}', since Excel drops leading zeros; " if short in rows else "")
                + "add it, or remove the files of this case."
            )
        if lacking := [column for column in columns if not rows[name].get(column) and column not in may_be_empty]:
            raise UserError(f"'{path}' has no value in the column '{lacking[0]}' of case '{name}': add it.")
    return rows


def table_parts(
    rows: Mapping[str, Mapping[str, str]],
    cases: Sequence[Case],
    split_column: str | None,
    fold_column: str | None,
    fold: int = 0,
    group: Callable[[Case], str] | None = None,
    apart: Mapping[str, str] | None = None,
) -> tuple[str, dict[str, str]]:
    """The part of every case by columns of a table.

    Args:
        rows: the rows by case id.
        cases: the cases that are to be divided.
        split_column: column with the part of each case; None without one.
        fold_column: column with the fold of each case; None without one.
        fold: which fold is held out.
        group: names the group of a case, which must lie in one fold.
        apart: part by case id of cases that are in no fold whatever the table says.

    Returns:
        What says so, for messages, and the part by case id.

    Raises:
        UserError: as of `medcalib.data.given_splits.named_part` and `medcalib.data.given_splits.column_parts`.

    Example:
        >>> rows = {"a": {"split": "train"}, "b": {"split": "val"}, "c": {"split": "test"}}
        >>> table_parts(rows, [{"case": name} for name in "abc"], "split", None)[1]
        {'a': 'training', 'b': 'validation', 'c': 'test'}
    """
    where = f"The column '{split_column}' of the table"
    given = {name: row.get(split_column) for name, row in rows.items()} if split_column is not None else {}
    parts = {name: named_part(part, where) for name, part in given.items() if part}
    parts |= apart or {}
    if fold_column is None:
        return where, parts
    where = f"The column '{fold_column}' of the table"
    folds = {name: row[fold_column] for name, row in rows.items() if row.get(fold_column)}
    names = [str(case[CaseKeys.CASE]) for case in cases]
    groups = {} if group is None else {str(case[CaseKeys.CASE]): group(case) for case in cases}
    return where, column_parts(names, folds, fold, where, parts, groups)


def column_num_folds(table: Path, fold_column: str) -> int:
    """How many folds a column has, which is known to be one of folds.

    Raises:
        UserError: the table cannot be read.
    """
    return len({row[fold_column] for row in read_table(table)[1] if row.get(fold_column)})
