"""Read ``<metric>_raw.csv``, whoever wrote it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from medcalib.errors import UserError
from medcalib.files.tables import read_text_file

__all__ = ["DATASET", "RAW", "case_ids", "is_pooled", "read_raw_table"]

RAW = "_raw.csv"
"""How the name of the file of a metric ends."""
DATASET = "dataset"
"""The row of a metric that has one value for all cases together."""
MEAN = "mean"
_IMAGE_ENDING = re.compile(r"\.(nii(\.gz)?|mha|mhd|nrrd|png|jpe?g|tiff?|bmp|npy|npz|pt)$", re.IGNORECASE)


def read_raw_table(path: Path) -> pd.DataFrame:
    """The values of a metric, one row a case.

    Args:
        path: ``<metric>_raw.csv`` in the shape of MONAI's ``MetricsSaver``: the case first, then a column for each
            class, and ``mean``. Where a column occurs again in the header, as in files of some MONAI versions, the
            first counts.

    Returns:
        A table with the case ids as index, a column for each class, and ``mean``, over the classes where the file has
        none. NaN where a case has no value; so is what is infinite, such as the distance to nothing. A metric that is
        computed once over all cases has one row, ``dataset``.

    Raises:
        UserError: the file is no such table, breaks off in a row, or has two rows for a case.
    """
    text = read_text_file(path)
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            index_col=False,
            skipinitialspace=True,
            header=None,
            names=range(head.count(separator) + 1),
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path} is no table of a metric ({str(error).strip()}): evaluate again.") from None
    names = [str(name).strip() for name in table.iloc[0]] if len(table) else []
    if len(names) < 2 or len(table) < 2:
        raise UserError(f"{path} has no values: its first column must be the case, the others classes and mean.")
    first = [place for place, name in enumerate(names) if place and name not in names[1:place]]
    rows_read = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    if broken := next((row for row in rows_read if any(row) and len(row) <= first[-1]), None):
        raise UserError(f"{path} breaks off in the row of {broken[0]}, which has too few values: evaluate again.")
    values = table.iloc[1:, first].fillna("")
    try:
        numbers = values.map(lambda value: float(value) if value.strip() else np.nan)
    except ValueError as error:
        raise UserError(f"{path} holds something else than numbers ({error}): evaluate again.") from None
    numbers.columns = [names[place] for place in first]
    metric = path.name.removesuffix(RAW)
    rows = [str(name).strip() for name in table.iloc[1:, 0]]
    pooled = len(rows) == 1 and (metric.startswith("micro_") or rows == [DATASET])
    numbers.index = pd.Index([DATASET] if pooled else case_ids(rows), name="case")
    if twice := numbers.index[numbers.index.duplicated()].tolist():
        raise UserError(f"{path} has two rows for case {twice[0]}: keep the one that is right.")
    numbers = numbers.where(np.isfinite(numbers))
    if MEAN not in numbers:
        numbers[MEAN] = numbers.mean(axis=1)
    return numbers[[*(name for name in numbers if name != MEAN), MEAN]]


def is_pooled(table: pd.DataFrame) -> bool:
    """Whether a metric has one value for all cases together and none for each."""
    return table.index.tolist() == [DATASET]


def case_ids(names: Sequence[str]) -> list[str]:
    """Case ids from names or paths of files.

    Example:
        >>> case_ids(["/data/a.nii.gz", "/data/b.nii.gz"]), case_ids(["a/image.png", "b/image.png"])
        (['a', 'b'], ['a/image', 'b/image'])
    """
    plain = [_IMAGE_ENDING.sub("", name) for name in names]
    short = [name.replace("\\", "/").rpartition("/")[2] for name in plain]
    return short if len(set(short)) == len(set(plain)) else plain
