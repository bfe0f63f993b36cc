"""The phantom cells on disk: pictures whose classes are drawn from probabilities that are stored beside them."""

import csv
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.phantom_cells_model import CELL_CLASS_NAMES, CellModel
from medcalib.errors import UserError
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["make_phantom_cells", "phantom_cells_cases"]

_FORMAT_VERSION = 1
_DESCRIPTION = "dataset.json"
_TABLE = "cells.csv"
_COLUMNS = ("case", "label", *CELL_CLASS_NAMES, "nucleus_size", "chromatin")
_IMAGES = "images"
_PARTS = (SplitKeys.TRAINING, SplitKeys.VALIDATION, SplitKeys.TEST)


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
    root = Path(dataset_dir).expanduser()
    wanted = _description(num_training, num_validation, num_test, seed)
    if not _holds_something(root):
        make_phantom_cells(root, num_training, num_validation, num_test, seed)
    rows = _check(root, wanted)
    parts = {part.value: [_case(root, name, rows[name]) for name in wanted[part]] for part in _PARTS}
    return assemble_split(**parts)


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
    description = _description(num_training, num_validation, num_test, seed)
    if _holds_something(root):
        _check(root, description)
        return
    try:
        target = root.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
            draft = Path(temporary) / target.name
            _write(draft, description)
            try:
                draft.rename(target)
            except OSError:
                if not _holds_something(root):
                    raise
    except OSError as error:
        raise UserError(
            f"The phantom cells cannot be written to '{root}' ({error.strerror or error}): set data::dataset_dir to a "
            "folder you may write to, on a disk with space."
        ) from error
    _check(root, description)


def _description(num_training: int, num_validation: int, num_test: int, seed: int) -> dict[str, Any]:
    """Say what phantom cells made with these numbers are, in JSON's own types."""
    numbers = {"num_training": num_training, "num_validation": num_validation, "num_test": num_test, "seed": seed}
    for name, number in numbers.items():
        least = 0 if name == "seed" else 1
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise UserError(f"{name} is {number!r}: give a whole number of at least {least}.")
    names = [f"cell_{number:03d}" for number in range(1, num_training + num_validation + num_test + 1)]
    description = {
        "name": "phantom_cells",
        "format_version": _FORMAT_VERSION,
        "class_names": CELL_CLASS_NAMES,
        "seed": seed,
        "model": asdict(CellModel()),
        SplitKeys.TRAINING: names[:num_training],
        SplitKeys.VALIDATION: names[num_training : num_training + num_validation],
        SplitKeys.TEST: names[num_training + num_validation :],
    }
    return json.loads(json.dumps(description))


def _write(root: Path, description: dict[str, Any]) -> None:
    (root / _IMAGES).mkdir(parents=True)
    model = CellModel()
    with (root / _TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for index, name in enumerate(name for part in _PARTS for name in description[part]):
            cell = model.draw(np.random.default_rng([description["seed"], index]))
            Image.fromarray(cell.image).save(_image(root, name))
            table.writerow([name, cell.label, *cell.probability, cell.nucleus_size, cell.chromatin])
    (root / _DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def _image(root: Path, name: str) -> Path:
    return root / _IMAGES / f"{name}.png"


def _case(root: Path, name: str, row: dict[str, str]) -> Case:
    return {
        CaseKeys.CASE.value: name,
        CaseKeys.IMAGE.value: str(_image(root, name)),
        CaseKeys.LABEL.value: int(row["label"]),
        CaseKeys.PROBABILITY.value: [float(row[column]) for column in CELL_CLASS_NAMES],
    }


def _holds_something(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _check(root: Path, wanted: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Make sure that a folder holds the wanted cells, all of them; gives the rows of its table by case."""
    try:
        found = json.loads((root / _DESCRIPTION).read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("name") != wanted["name"]:
        raise UserError(
            f"'{root}' does not hold the phantom cells (no readable {_DESCRIPTION} of them in it): "
            "delete it, or set data::dataset_dir to a new folder."
        )
    if different := sorted(key for key in wanted if found.get(key) != wanted[key]):
        raise UserError(
            f"The phantom cells in '{root}' were made with another {' and '.join(different)}: "
            "delete the folder to have them made anew, or set data::dataset_dir to a new one."
        )
    rows = _read_table(root / _TABLE)
    for name in (name for part in _PARTS for name in wanted[part]):
        image = _image(root, name)
        if name not in rows or not image.is_file():
            lacking = f"'{image.relative_to(root)}'" if name in rows else f"the row of {name} in '{_TABLE}'"
            raise UserError(f"The phantom cells in '{root}' lack {lacking}: delete the folder to have them made anew.")
    return rows


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """The complete rows of the table by case."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return {}
    return {row["case"]: row for row in rows if all(row.get(column) for column in _COLUMNS)}
