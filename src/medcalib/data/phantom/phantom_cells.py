"""The phantom cells on disk: pictures whose classes are drawn from probabilities that are stored beside them."""

import csv
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.phantom.cell_model import CELL_CLASS_NAMES, CellModel
from medcalib.data.phantom.drawn_cases import PARTS, SyntheticDataset
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["make_phantom_cells", "phantom_cells_cases"]

_DATASET = SyntheticDataset("phantom_cells", "cell", 1, CELL_CLASS_NAMES, asdict(CellModel()))
_TABLE = "cells.csv"
_COLUMNS = ("case", "label", *CELL_CLASS_NAMES, "nucleus_size", "chromatin")
_IMAGES = "images"


def phantom_cells_cases(
    dataset_dir: str | Path, num_training: int = 240, num_validation: int = 60, num_test: int = 100, seed: int = 0
) -> Split:
    """List the cases of the phantom cells, which are made first where they are missing.

    Args:
        dataset_dir: folder of the dataset.
        num_training: number of training cases.
        num_validation: number of validation cases, which calibrators are fitted on, too.
        num_test: number of test cases.
        seed: seed of cells, readers and noise.

    Returns:
        The split. The ``label`` of a case is a class index: negative, low grade, high grade. Every case also has the
        key ``probability``: the probabilities of the classes that its label was drawn from.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if it holds something else: another
            dataset, cells made with other numbers, or a part of them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     split = phantom_cells_cases(f"{folder}/cells", num_training=1, num_validation=1, num_test=1)
        >>> case = split["training"][0]
        >>> case["case"], case["label"], [round(share, 2) for share in case["probability"]]
        ('cell_001', 0, [0.65, 0.34, 0.01])
    """
    make_phantom_cells(dataset_dir, num_training, num_validation, num_test, seed)
    root = Path(dataset_dir).expanduser()
    rows = _read_table(root / _TABLE)
    names = _DATASET.describe(num_training, num_validation, num_test, seed)
    return assemble_split(**{part.value: [_case(root, name, rows[name]) for name in names[part]] for part in PARTS})


def make_phantom_cells(
    dataset_dir: str | Path, num_training: int = 240, num_validation: int = 60, num_test: int = 100, seed: int = 0
) -> None:
    """Write the phantom cells.

    ``images`` holds one ``cell_<number>.png`` of 64 x 64 pixels in colour per case, ``cells.csv`` has a row for each
    with its label, the probabilities of the classes, and what these depend on, and ``dataset.json`` says how they were
    made. The same arguments give the same bytes. The files are written to a temporary folder that takes its final name
    in the end, so a run that is interrupted leaves no dataset; of two that run at the same time, the first to finish is
    kept.

    Args:
        dataset_dir: folder of the dataset; missing or empty.
        num_training: number of training cases.
        num_validation: number of validation cases.
        num_test: number of test cases.
        seed: seed of cells, readers and noise.

    Raises:
        UserError: if a number is not usable, if the folder cannot be written, or if something else is in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_phantom_cells(f"{folder}/cells", num_training=1, num_validation=1, num_test=1)
        ...     sorted(path.name for path in Path(folder, "cells").iterdir())
        ['cells.csv', 'dataset.json', 'images']
    """
    root = Path(dataset_dir).expanduser()
    description = _DATASET.describe(num_training, num_validation, num_test, seed)
    _DATASET.make(root, description, _write)
    rows = _read_table(root / _TABLE)
    for name in (name for part in PARTS for name in description[part]):
        if name not in rows:
            raise _DATASET.lacks(root, f"the row of {name} in '{_TABLE}'")
        _DATASET.check_files(root, [_image(root, name)])


def _write(root: Path, description: Mapping[str, Any]) -> None:
    (root / _IMAGES).mkdir()
    model = CellModel()
    with (root / _TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for index, name in enumerate(name for part in PARTS for name in description[part]):
            cell = model.draw(np.random.default_rng([description["seed"], index]))
            Image.fromarray(cell.image).save(_image(root, name))
            table.writerow([name, cell.label, *cell.probability, cell.nucleus_size, cell.chromatin])


def _image(root: Path, name: str) -> Path:
    return root / _IMAGES / f"{name}.png"


def _case(root: Path, name: str, row: dict[str, str]) -> Case:
    return {
        CaseKeys.CASE.value: name,
        CaseKeys.IMAGE.value: str(_image(root, name)),
        CaseKeys.LABEL.value: int(row["label"]),
        CaseKeys.PROBABILITY.value: [float(row[column]) for column in CELL_CLASS_NAMES],
    }


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """The complete rows of the table by case."""
    try:
        _, rows = read_table(path)
    except UserError:
        return {}
    return {row["case"]: row for row in rows if all(row.get(column) for column in _COLUMNS)}
